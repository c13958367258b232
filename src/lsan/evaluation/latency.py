"""How long one recommendation takes on the processor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lsan.data.splits import Cases
from lsan.data.windows import HistoryReader
from lsan.evaluation.ranking import Scorer
from lsan.models.histories import Histories

#: Recommendations that are not timed: first calls allocate and compile.
_WARM_UP = 10


def recommendation_microseconds(scorer: Scorer, cases: Cases, reader: HistoryReader, *, histories: int = 200) -> float:
    """Median time from one history of item indices to its 10 best items, one thread, scorer on the CPU.

    Asks for at most `histories` of the cases, spread evenly over all of them. Includes leaving out the items of the
    history; reading it from the dataset is not included.
    """
    chosen = cases.spread(histories)
    asked = [
        Histories.of(reader.read(chosen.start[[case]], chosen.stop[[case]]), chosen.users[[case]] + 1)
        for case in range(len(chosen))
    ]
    seconds = []
    with _one_thread(), torch.inference_mode():
        for history in [*asked[:_WARM_UP], *asked]:
            started = time.perf_counter()
            scores = scorer.scores(history)[0]
            scores[history.items[history.present] - 1] = -torch.inf
            scores.topk(min(10, len(scores)))
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[min(_WARM_UP, len(asked)) :])) * 1e6


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
