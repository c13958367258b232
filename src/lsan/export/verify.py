"""Whether an exported file does what the network does, and how well and fast."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.answers import RawId
from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.errors import BundleError
from lsan.evaluation.ranking import Scorer
from lsan.evaluation.report import Report
from lsan.experiment import evaluate, history_reader
from lsan.models.histories import Histories
from lsan.runs import Run
from lsan.runtime.engine import Engine
from lsan.runtime.file import IntArray

#: Real histories on which network and file are compared, and those that are timed.
HISTORIES, TIMED = 1000, 200

_BEST = 10


class EngineScorer:
    """An engine that scores a run's items, in the run's order."""

    def __init__(self, engine: Engine, order: IntArray) -> None:
        """`order[i]` is the run's index of the bundle's item i + 1."""
        self._engine = engine
        self._place = np.argsort(order)  # of the run's item v at v - 1
        self._index = np.concatenate([[0], self._place + 1]).astype(np.int32)

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the run's items 1..V (column v - 1)."""
        rows = []
        for items, times, asked in zip(
            histories.items.numpy(), histories.times.numpy(), histories.asked.tolist(), strict=True
        ):
            present = items > 0
            moments = times[present] if self._engine.timed else None
            rows.append(self._engine.scores(self._index[items[present]], moments, asked if self._engine.timed else -1))
        return torch.from_numpy(np.stack(rows)[:, self._place])


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Network and file on the same histories."""

    histories: int
    """How many."""
    difference: float
    """Largest difference of two scores, as a share of the largest absolute score of that history."""


def some_histories(
    run: Run, dataset: Dataset, split: Split, histories: int = HISTORIES
) -> Iterator[tuple[IntArray, Histories]]:
    """Histories of test cases, spread evenly over all of them: numbers of cases, and their histories."""
    cases, reader = split.test, history_reader(dataset, split, run.header)
    chosen = np.linspace(0, len(cases) - 1, min(histories, len(cases))).astype(np.int64)
    for begin in range(0, len(chosen), 128):
        batch = chosen[begin : begin + 128]
        window = reader.read(cases.start[batch], cases.stop[batch])
        yield batch, Histories.of(window, np.zeros(len(batch), dtype=np.int64))


def compare_histories(run: Run, scorer: Scorer, dataset: Dataset, split: Split, *, tolerance: float) -> Agreement:
    """Compare all scores and the ten best items after histories of test cases, spread evenly over all of them.

    Raises:
        BundleError: when a score is off by more than `tolerance`, or an item is among the ten best that should not be.
    """
    worst, count, offered = 0.0, 0, run.network.offered.cpu()
    for batch, window in some_histories(run, dataset, split):
        count += len(batch)
        with torch.inference_mode():
            theirs, ours = run.network.scores(window), scorer.scores(window)
            scale = theirs.abs().amax(1).clamp(min=1e-30)
            off = ((ours - theirs).abs().amax(1) / scale).nan_to_num(torch.inf)
            worst = max(worst, float(off.max()))
            if worst > tolerance:
                row = int(off.argmax())
                raise BundleError(
                    f"the file's scores are off by {float(off[row]):.2e} of the largest after the history of test case "
                    f"{int(batch[row])} (allowed: {tolerance}); this is a bug in lsan, please report it"
                )
            theirs[:, ~offered], ours[:, ~offered] = -torch.inf, -torch.inf
            k = min(_BEST, int(offered.sum()))
            least = theirs.topk(k, dim=1).values[:, -1]
            worst_of_ours = theirs.gather(1, ours.topk(k, dim=1).indices).amin(1)
            if bool((worst_of_ours < least - 2 * tolerance * scale).any()):
                raise BundleError(
                    "the file's best items are not the network's; this is a bug in lsan, please report it"
                )
    return Agreement(histories=count, difference=worst)


def evaluate_file(
    run: Run, scorer: Scorer, dataset: Dataset, split: Split, progress: Callable[[int, int], None]
) -> Report:
    """Accuracy of the file itself on the test cases."""
    return evaluate(scorer, dataset, split, run.header, "test", device=torch.device("cpu"), progress=progress)


def microseconds(
    recommend: Callable[[list[RawId], int], object], run: Run, dataset: Dataset, split: Split
) -> tuple[float, float]:
    """Median and 99th percentile of the time from raw ids to the ten best, over histories of test cases, one thread."""
    cases, ids = split.test, run.catalogue.ids
    chosen = np.linspace(0, len(cases) - 1, min(TIMED, len(cases))).astype(np.int64)
    asked = [
        [ids[item - 1] for item in dataset.items[start:stop].tolist()]
        for start, stop in zip(cases.start[chosen].tolist(), cases.stop[chosen].tolist(), strict=True)
    ]
    seconds = []
    for history in [*asked[:20], *asked]:
        started = time.perf_counter()
        recommend(history, _BEST)
        seconds.append(time.perf_counter() - started)
    timed = np.array(seconds[min(20, len(asked)) :]) * 1e6
    return float(np.median(timed)), float(np.quantile(timed, 0.99))
