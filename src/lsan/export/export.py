"""`lsan export`: write the bundle, load it again, and let nothing leave that does not answer as the network does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.errors import DataError
from lsan.evaluation.report import Report
from lsan.experiment import load_for_evaluation
from lsan.export.bundle import TOLERANCES, make_bundle
from lsan.export.program import Arithmetic
from lsan.export.verify import Agreement, EngineScorer, compare_histories, evaluate_file, microseconds
from lsan.files import write_atomically
from lsan.runs import Run, load_run
from lsan.runtime.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what it was found to do."""

    parts: dict[str, int]
    """Bytes by part; their sum is the length of the file."""
    engine: str
    """What was compared with the network: an engine's instruction set, numpy, or onnxruntime."""
    difference: float
    """On the made-up histories in the file: largest difference of a score, as a share of the largest."""
    agreement: Agreement | None
    """On real histories; None where the run's dataset is not at hand."""
    report: Report | None
    """Accuracy of the file on the test cases, likewise."""
    latency: tuple[float, float] | None
    """Median and 99th percentile, in microseconds, from raw ids to titles, likewise."""


def export_bundle(
    folder: Path, out: Path, *, arithmetic: Arithmetic = "float32", dataset: Dataset | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:  # fmt: skip
    """Export a run as a bundle at `out`, which is replaced where it exists. Writes nothing when the file does not
    answer as the network does. Arguments and errors of `checked_bundle`; and `out` is the file."""
    content, exported = checked_bundle(folder, arithmetic=arithmetic, dataset=dataset, progress=progress)
    write_atomically(out, content)
    return exported


def checked_bundle(
    folder: Path, *, arithmetic: Arithmetic = "float32", dataset: Dataset | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[bytes, Exported]:  # fmt: skip
    """A run as the bytes of a bundle that answers as the network does, and what it was found to do.

    Args:
        folder: the run.
        arithmetic: "int8" is faster, but not quite what the network computes; for quantised encoders only.
        dataset: the run's dataset, where it has moved.
        progress: called with (cases done, cases) during the evaluation.

    Raises:
        DataError: when the run cannot be used, or `dataset` is not its dataset.
        ConfigError: when the run cannot be written as a bundle.
        BundleError: when the bundle answers otherwise.
    """
    run, cases = load_with_cases(folder, dataset)
    made = make_bundle(run, arithmetic=arithmetic, metrics=run.header.progress)
    recommender = Recommender(made.content, where="the new bundle")
    engine = recommender.engine
    difference = recommender.verify()
    agreement = report = latency = None
    if cases is not None:
        scorer = EngineScorer(engine, made.order)
        agreement = compare_histories(run, scorer, *cases, tolerance=TOLERANCES[arithmetic])
        report = evaluate_file(run, scorer, *cases, progress or (lambda done, total: None))
        latency = microseconds(recommender.recommend, run, *cases)
    exported = Exported(
        parts=made.parts, engine=engine.instruction_set, difference=difference, agreement=agreement, report=report,
        latency=latency,
    )  # fmt: skip
    return made.content, exported


def load_with_cases(folder: Path, dataset: Dataset | None) -> tuple[Run, tuple[Dataset, Split] | None]:
    """A run, and its dataset and split where there are test cases at hand.

    Raises:
        DataError: when the run cannot be used, or `dataset` is not its dataset.
    """
    try:
        run, found, split = load_for_evaluation(folder, dataset, device=torch.device("cpu"))
    except DataError:
        if dataset is not None:
            raise
        return load_run(folder, device=torch.device("cpu")), None
    return run, (found, split) if len(split.test) else None


def items_path(out: Path) -> Path:
    """The file of the items beside a model of another engine: `model.onnx.items.jsonl` beside `model.onnx`. Each model
    has its own, since they do not have the items in the same order."""
    return out.with_name(f"{out.name}.items.jsonl")
