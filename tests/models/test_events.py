"""Training events of a split, counted by hand."""

from collections.abc import Callable

import pytest

from lsan.data.dataset import Dataset
from lsan.data.splits import Split, leave_one_out
from lsan.models.events import training_events, training_popularity, training_positions

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="module")
def log(make_dataset: MakeDataset) -> Dataset:
    """Training parts: 1 2 1 2 | 2 3 | 1 2 (a user of two events is all training) | 1."""
    return make_dataset([[1, 2, 1, 2, 4, 4], [2, 3, 4, 4], [1, 2], [1, 4, 4]], items=5)


@pytest.fixture(scope="module")
def split(log: Dataset) -> Split:
    return leave_one_out(log)


def test_positions(split: Split) -> None:
    assert training_positions(split).tolist() == [0, 1, 2, 3, 6, 7, 10, 11, 12]


def test_events(log: Dataset, split: Split) -> None:
    users, items = training_events(log, split)
    assert users.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3]
    assert items.tolist() == [1, 2, 1, 2, 2, 3, 1, 2, 1]


def test_popularity(log: Dataset, split: Split) -> None:
    assert training_popularity(log, split).tolist() == [4, 4, 1, 0, 0]
