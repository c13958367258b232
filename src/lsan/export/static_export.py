"""`lsan export --to executorch` and `--to litert`: a run as the file of an engine that wants all shapes in advance."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.answers import RawId
from lsan.data.dataset import Dataset
from lsan.errors import BundleError, ConfigError
from lsan.export.bundle import TOLERANCES
from lsan.export.export import Exported, items_path, load_with_cases
from lsan.export.onnx_settings import MOST_ITEMS
from lsan.export.program import program_of
from lsan.export.static import StaticNetwork
from lsan.export.static_engines import STATIC_ENGINES, Scores, StaticEngineName
from lsan.export.verify import compare_histories, evaluate_file, microseconds
from lsan.extras import require_extra
from lsan.files import write_atomically
from lsan.models.histories import Histories
from lsan.runs import Run
from lsan.runtime.file import VOCABULARY, Array

#: Made-up histories on which network and file are compared.
_MADE_UP = 24

_TOLERANCE = TOLERANCES["float32"]


def export_static(
    folder: Path, out: Path, *, engine: StaticEngineName, dataset: Dataset | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:  # fmt: skip
    """Export a run for an engine at `out`, with its items beside it (`items_path`); both are replaced where they exist.
    Writes nothing when the engine does not answer as the network does.

    Args:
        folder: the run.
        out: the file.
        engine: what it is for.
        dataset: the run's dataset, where it has moved.
        progress: called with (cases done, cases) during the evaluation.

    Raises:
        DataError: when the run cannot be used, or `dataset` is not its dataset.
        ConfigError: when the engine cannot run such a model.
        BundleError: when it answers otherwise.
        MissingExtraError: when the engine is not installed.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, and --to {engine} takes a run's folder")
    target = STATIC_ENGINES[engine]
    require_extra(engine, *target.packages, needed_by=f"--to {engine}")
    run, cases = load_with_cases(folder, dataset)
    if len(run.catalogue) > MOST_ITEMS:
        raise ConfigError(
            f"the model has {len(run.catalogue):,} items, and at most {MOST_ITEMS:,} can be scored at once"
        )
    network = StaticNetwork(run.network, timed=run.header.timed and program_of(run.network).timed)
    with warnings.catch_warnings(action="ignore"):  # the engines' own, of what they call in PyTorch and Python
        content = target.convert(network)
    scorer = StaticScorer(target.load(content), network)
    difference = _verify(run, scorer, network)
    agreement = report = latency = None
    if cases is not None:
        agreement = compare_histories(run, scorer, *cases, tolerance=_TOLERANCE)
        report = evaluate_file(run, scorer, *cases, progress or (lambda done, total: None))
        latency = microseconds(_recommend(run, scorer), run, *cases)
    items = _item_lines(run)
    write_atomically(items_path(out), items)
    write_atomically(out, content)
    return Exported(
        parts={"model": len(content), VOCABULARY: len(items)}, engine=target.version, difference=difference,
        agreement=agreement, report=report, latency=latency,
    )  # fmt: skip


class StaticScorer:
    """A loaded file that scores a run's items, one history after the other."""

    def __init__(self, scores: Scores, network: StaticNetwork) -> None:
        self._scores, self._timed, self._history = scores, network.timed, network.history

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the run's items 1..V (column v - 1)."""
        latest = histories.latest(self._history)
        asked = latest.asked.numpy()
        rows = zip(latest.items.numpy(), latest.times.numpy(), asked, strict=True)
        return torch.from_numpy(np.stack([self.score(items, times, when) for items, times, when in rows]))

    def score(self, items: Array, times: Array, asked: int) -> Array:
        """After one history [time], which is not longer than what the network reads."""
        left = self._history - len(items)
        inputs: list[Array] = [np.pad(items, (left, 0))[None].astype(np.int32)]
        if self._timed:
            moments = np.pad(times, (left, 0), constant_values=-1)[None].astype(np.int64)
            inputs += [moments, np.array([asked], dtype=np.int64)]
        return self._scores(inputs)


def _verify(run: Run, scorer: StaticScorer, network: StaticNetwork) -> float:
    """Largest difference of a score from the network's, as a share of the largest, after made-up histories of all
    lengths."""
    random = np.random.default_rng(0)
    lengths = np.linspace(0, network.history, _MADE_UP).astype(np.int64)
    present = np.arange(network.history) >= network.history - lengths[:, None]
    items = np.where(present, random.integers(1, len(run.catalogue) + 1, present.shape), 0)
    times = np.cumsum(random.integers(1, 400_000_000, present.shape), axis=1) + 1_000_000_000_000
    times = np.where(present & network.timed, times, -1)
    histories = Histories(
        items=torch.from_numpy(items), times=torch.from_numpy(times), asked=torch.from_numpy(times[:, -1] + 1),
        users=torch.zeros(_MADE_UP, dtype=torch.int64),
    )  # fmt: skip
    with torch.inference_mode():
        expected = run.network.scores(histories)
        off = (scorer.scores(histories) - expected).abs().amax(1) / expected.abs().amax(1).clamp(min=1e-30)
    worst = float(off.nan_to_num(torch.inf).max())
    if worst > _TOLERANCE:
        raise BundleError(
            f"scores after a made-up history are off by {worst:.2e} of the largest, allowed are {_TOLERANCE}; this is "
            "a bug in lsan, or in this version of the engine; please report it"
        )
    return worst


def _recommend(run: Run, scorer: StaticScorer) -> Callable[[list[RawId], int], object]:
    """From raw ids to titles, as a client does it."""
    catalogue, offered = run.catalogue, run.network.offered.numpy()

    def recommend(history: list[RawId], k: int) -> object:
        items = np.array([catalogue.index_of(raw) for raw in history][-run.network.config.history :], dtype=np.int64)
        scores = scorer.score(items, np.full(len(items), -1), -1)
        scores[~offered] = -np.inf
        if run.header.recipe.exclude_seen:
            scores[items[items > 0] - 1] = -np.inf
        best = np.argpartition(scores, -min(k, len(scores)))[-k:]
        return [catalogue.titles[place] for place in best[np.argsort(-scores[best])].tolist()]

    return recommend


def _item_lines(run: Run) -> bytes:
    """JSON lines, line v for item v."""
    catalogue, offered = run.catalogue, run.network.offered.tolist()
    entries = zip(catalogue.ids, catalogue.titles, catalogue.categories, offered, strict=True)
    lines = (
        json.dumps({"id": raw, "title": title or str(raw), "category": category, "offered": known}, ensure_ascii=False)
        for raw, title, category, known in entries
    )
    return "".join(f"{line}\n" for line in lines).encode()
