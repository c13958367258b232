"""The time of one recommendation."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.data.windows import HistoryReader
from lsan.evaluation.latency import recommendation_microseconds
from lsan.models.histories import Histories

MakeDataset = Callable[..., Dataset]


class Sleeper:
    """Takes 2 ms, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.threads: set[int] = set()

    def scores(self, histories: Histories) -> Tensor:
        self.asked += histories.items.tolist()
        self.threads.add(torch.get_num_threads())
        time.sleep(0.002)
        return torch.zeros(len(histories.items), 5)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Dataset:
    return make_dataset([[1, 2, 3], [4, 5, 1, 2], *([[1, 1, 1, 1]] * 40)], items=5)


def measure(dataset: Dataset, histories: int) -> tuple[float, Sleeper]:
    cases, sleeper = leave_one_out(dataset).test, Sleeper()
    reader = HistoryReader(dataset, 2, timed=False, known_items=None)
    return recommendation_microseconds(sleeper, cases, reader, histories=histories), sleeper


def test_one_history_at_a_time_on_one_thread(dataset: Dataset) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        microseconds, sleeper = measure(dataset, 30)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert 2000 < microseconds < 50_000
    assert sleeper.threads == {1}
    assert len(sleeper.asked) == 10 + 30  # ten to warm up
    assert sleeper.asked[10] == [1, 2]


def test_fewer_cases_than_asked_for(dataset: Dataset) -> None:
    microseconds, sleeper = measure(dataset, 1000)
    assert len(sleeper.asked) == 10 + 42
    assert np.isfinite(microseconds)
    _, sleeper = measure(dataset, 1)
    assert sleeper.asked == [[1, 2]] * 2
