"""Popularity and the first-order Markov chain, counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lsan.data.dataset import Dataset
from lsan.data.splits import Split, leave_one_out
from lsan.models.baselines import Markov, Popularity, training_events, training_popularity
from lsan.models.histories import Histories

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="module")
def log(make_dataset: MakeDataset) -> Dataset:
    """Training parts: 1 2 1 2 | 2 3 | 1 2 (a user of two events is all training) | 1."""
    return make_dataset([[1, 2, 1, 2, 4, 4], [2, 3, 4, 4], [1, 2], [1, 4, 4]], items=5)


@pytest.fixture(scope="module")
def split(log: Dataset) -> Split:
    return leave_one_out(log)


def after(*items: int) -> Histories:
    array = np.array([items], dtype=np.int64)
    return Histories.of(array, np.zeros_like(array))


def test_training_events(log: Dataset, split: Split) -> None:
    users, items = training_events(log, split)
    assert users.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3]
    assert items.tolist() == [1, 2, 1, 2, 2, 3, 1, 2, 1]


def test_popularity(log: Dataset, split: Split) -> None:
    popularity = training_popularity(log, split)
    assert popularity.tolist() == [4, 4, 1, 0, 0]
    assert Popularity(popularity).scores(after(3)).tolist() == [[4, 4, 1, 0, 0]]


def test_transitions(log: Dataset, split: Split) -> None:
    markov = Markov(log, split)
    # after 1: 2 three times; after 2: 1 once, 3 once; nothing crosses from user to user; popularity / 5 below that
    assert markov.scores(after(3, 1))[0].tolist() == pytest.approx([0.8, 3.8, 0.2, 0, 0])
    assert markov.scores(after(1, 2))[0].tolist() == pytest.approx([1.8, 0.8, 1.2, 0, 0])


def test_no_transition_or_no_history_leaves_popularity(log: Dataset, split: Split) -> None:
    markov = Markov(log, split)
    for history in (after(3), after(4), after(5), after(0), after(0, 0)):
        assert markov.scores(history)[0].tolist() == pytest.approx([0.8, 0.8, 0.2, 0, 0])


def test_one_transition_outweighs_any_popularity(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([[1] * 50, [2, 3, 1, 1]], items=3)
    scores = Markov(dataset, leave_one_out(dataset)).scores(after(2))[0]
    assert int(scores.argmax()) == 2
    assert torch.isfinite(scores).all()
