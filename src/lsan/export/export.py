"""`lsan export`: write the bundle, load it again, and let nothing leave that does not answer as the network does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lsan.data.dataset import Dataset
from lsan.errors import DataError
from lsan.evaluation.report import Report
from lsan.experiment import load_for_evaluation
from lsan.export.bundle import make_bundle
from lsan.export.verify import Agreement, EngineScorer, compare_histories, evaluate_file, microseconds
from lsan.files import write_atomically
from lsan.runs import load_run
from lsan.runtime.recommender import Recommender
from lsan.runtime.verify import verify_vectors


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what it was found to do."""

    parts: dict[str, int]
    """Bytes by part; their sum is the length of the file."""
    engine: str
    """The engine that was compared with the network: an instruction set, or numpy."""
    difference: float
    """On the made-up histories in the file: largest difference of a score, as a share of the largest."""
    agreement: Agreement | None
    """On real histories; None where the run's dataset is not at hand."""
    report: Report | None
    """Accuracy of the file on the test cases, likewise."""
    latency: tuple[float, float] | None
    """Median and 99th percentile, in microseconds, from raw ids to titles, likewise."""


def export_bundle(
    folder: Path, out: Path, *, dataset: Dataset | None = None, progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Export a run as a bundle at `out`, which is replaced where it exists. Writes nothing when the file does not
    answer as the network does. Arguments and errors of `checked_bundle`; and `out` is the file."""
    content, exported = checked_bundle(folder, dataset=dataset, progress=progress)
    write_atomically(out, content)
    return exported


def checked_bundle(
    folder: Path, *, dataset: Dataset | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[bytes, Exported]:
    """A run as the bytes of a bundle that answers as the network does, and what it was found to do.

    Args:
        folder: the run.
        dataset: the run's dataset, where it has moved.
        progress: called with (cases done, cases) during the evaluation.

    Raises:
        DataError: when the run cannot be used, or `dataset` is not its dataset.
        ConfigError: when the run cannot be written as a bundle.
        BundleError: when the bundle answers otherwise.
    """
    try:
        run, found, split = load_for_evaluation(folder, dataset, device=torch.device("cpu"))
    except DataError:
        if dataset is not None:
            raise
        run, found, split = load_run(folder, device=torch.device("cpu")), None, None
    made = make_bundle(run, metrics=run.header.progress)
    recommender = Recommender(made.content, where="the new bundle")
    engine = recommender.engine
    difference = verify_vectors(recommender.file, engine)
    agreement = report = latency = None
    if found is not None and split is not None and len(split.test):
        scorer = EngineScorer(engine, made.order)
        agreement = compare_histories(run, scorer, found, split)
        report = evaluate_file(run, scorer, found, split, progress or (lambda done, total: None))
        latency = microseconds(recommender, run, found, split)
    exported = Exported(
        parts=made.parts, engine=engine.instruction_set, difference=difference, agreement=agreement, report=report,
        latency=latency,
    )  # fmt: skip
    return made.content, exported
