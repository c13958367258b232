"""`lsan export --to onnx`: write the model and its items, if it answers as the bundle and the network do."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from lsan.answers import RawId
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.export.bundle import make_bundle
from lsan.export.export import Exported, items_path, load_with_cases
from lsan.export.onnx import OnnxModel, make_onnx
from lsan.export.onnx_session import OnnxScorer, session_of, verify_model
from lsan.export.onnx_settings import TOLERANCES, Answer, Precision
from lsan.export.verify import compare_histories, evaluate_file, microseconds, some_histories
from lsan.files import write_atomically
from lsan.runtime.file import PARTS, VOCABULARY, BundleFile, read_bytes
from lsan.runtime.recommender import Recommender
from lsan.runtime.vocabulary import Vocabulary


def export_onnx(
    source: Path, out: Path, *, answer: Answer = "top-k", precision: Precision = "float32",
    dataset: Dataset | None = None, progress: Callable[[int, int], None] | None = None,
) -> Exported:  # fmt: skip
    """Export a run, or a bundle file, as an ONNX model at `out` with its items beside it; both are replaced where they
    exist. Writes nothing when the model does not answer as the network does.

    Args:
        source: the run's folder, or the bundle file. A bundle has no test cases: then only made-up histories are
            compared.
        out: the model's file.
        answer: what the model gives.
        precision: in what numbers.
        dataset: the run's dataset, where it has moved.
        progress: called with (cases done, cases) during the evaluation.

    Raises:
        DataError: when the run cannot be used, or `dataset` is not its dataset.
        ConfigError: when there can be no such model.
        BundleError: when the bundle cannot be used, or what was made answers otherwise.
    """
    run = cases = order = None
    if source.is_file():
        if dataset is not None:
            raise ConfigError(f"{source} is a bundle, and a dataset goes with a run: name the run's folder instead")
        content = read_bytes(source)
    else:
        run, cases = load_with_cases(source, dataset)
        bundle = make_bundle(run, metrics=run.header.progress)
        content, order = bundle.content, bundle.order
    recommender = Recommender(content, where=str(source))
    recommender.verify()
    file, engine = recommender.file, recommender.engine
    made = make_onnx(file, answer=answer, precision=precision)
    onnx.checker.check_model(made.model)
    onnx.helper.set_model_props(
        made.model,
        {entry.key: entry.value for entry in made.model.metadata_props}
        | {"items_file": items_path(out).name, "items_sha256": hashlib.sha256(made.items).hexdigest()},
    )
    scorer = OnnxScorer(made, file, order)
    tolerance = max(
        TOLERANCES[precision], file.manifest["tolerance"]
    )  # of a bundle in whole numbers, which ONNX is not
    difference = verify_model(scorer, file, engine, tolerance)
    agreement = report = latency = None
    written = made.model.SerializeToString(deterministic=True)
    if run is not None and cases is not None:
        agreement = compare_histories(run, scorer, *cases, tolerance=tolerance)
        if scorer.answers_top_k:
            for _, histories in some_histories(run, *cases):
                scorer.best(*scorer.given(histories), min(10, file.manifest["items"]))
        report = evaluate_file(run, scorer, *cases, progress or (lambda done, total: None))
        latency = microseconds(_recommend(written, scorer, file), run, *cases)
    write_atomically(items_path(out), made.items)
    write_atomically(out, written)
    return Exported(
        parts=_parts(made, len(written)), engine=f"onnxruntime {version('onnxruntime')}", difference=difference,
        agreement=agreement, report=report, latency=latency,
    )  # fmt: skip


def _recommend(model: bytes, scorer: OnnxScorer, file: BundleFile) -> Callable[[list[RawId], int], object]:
    """From raw ids to titles, as a client does it; of a model that answers with tables, to the products."""
    session, vocabulary, unknown = session_of(model), Vocabulary(file), np.array([-1])

    def recommend(history: list[RawId], k: int) -> object:
        items = np.array([vocabulary.indices_of(history)])
        given = scorer.inputs(items, np.full_like(items, -1), unknown)
        if not scorer.answers_top_k:
            return session.run(None, given)
        indices, _ = session.run(None, {**given, "k": np.array(k)})
        return [vocabulary.title_of(index) for index in indices[0].tolist() if index]

    return recommend


def _parts(made: OnnxModel, whole: int) -> dict[str, int]:
    """Bytes by part, as those of a bundle; the items' file is the vocabulary."""
    parts = dict.fromkeys(PARTS, 0)
    for tensor in made.model.graph.initializer:
        if tensor.name.startswith("bundle."):
            name = tensor.name.removeprefix("bundle.")
            parts[next(part for part, begins in PARTS.items() if name.startswith(begins))] += len(tensor.raw_data)
    parts["graph"] = whole - sum(parts.values())
    parts[VOCABULARY] += len(made.items)
    return {part: size for part, size in parts.items() if size}
