"""Which numbers items get: distinct, within the radices, and shared rows where items were near to each other."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsan.config import ComposedTableConfig, FullTableConfig, HashedTableConfig, TableConfig
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.models.item_tables.composed import complete_radices, modulo_digits
from lsan.models.numbering import cooccurrence_numbers, item_numbers

MakeDataset = Callable[..., Dataset]


def test_numbers_by_hand() -> None:
    """Items 1 and 2 are the popular half, 3 and 4 the rare one; 3 follows 2 and 4 follows 1."""
    users = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    events = np.array([1, 1, 1, 4, 2, 2, 2, 3, 1])
    # popularity 4, 3, 1, 1: columns 0 (item 1) and 1 (item 2); number = column * 2 + stratum
    assert cooccurrence_numbers(users, events, 4, 2).tolist() == [0, 2, 3, 1]


def test_nearness_falls_with_distance_and_stops_at_users() -> None:
    users = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    # item 3 is one step from 1 and two steps from 2; item 4 is near 2 only across users
    events = np.array([2, 1, 3, 1, 2, 4, 1, 1, 2, 2])
    assert cooccurrence_numbers(users, events, 4, 2).tolist() == [0, 2, 1, 3]


def test_without_any_pair_the_columns_go_by_popularity() -> None:
    events = np.array([5, 5, 5, 5, 5, 3, 3, 3, 3, 1, 1, 1, 2, 2, 4])
    users = np.arange(len(events))
    # ranks: 5, 3, 1 | 2, 4, 6
    assert cooccurrence_numbers(users, events, 6, 2).tolist() == [4, 1, 2, 3, 0, 5]


@settings(max_examples=80)
@given(
    items=st.integers(1, 200), radices=st.lists(st.integers(2, 9), min_size=1, max_size=3), events=st.integers(0, 300),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_codes_are_distinct_whatever_the_log(items: int, radices: list[int], events: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    users = np.sort(random.integers(0, 20, events))
    log = np.minimum(random.geometric(0.05, events), items)
    complete = complete_radices(radices, items)
    numbers = cooccurrence_numbers(users, log, items, complete[0])
    assert len(np.unique(numbers)) == items
    assert numbers.min() >= 0
    assert numbers.max() < math.prod(complete)
    assert len(modulo_digits(torch.from_numpy(numbers), complete).unique(dim=0)) == items


@pytest.mark.parametrize("radices", [(2,), (3, 4)])
def test_held_out_events_do_not_reach_the_codes(make_dataset: MakeDataset, radices: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    histories = [random.integers(1, 31, 8).tolist() for _ in range(40)]
    other = [[*history[:-2], *random.integers(1, 31, 2).tolist()] for history in histories]
    config = ComposedTableConfig(radices=radices)
    numbers = [
        item_numbers(dataset, leave_one_out(dataset), config)
        for dataset in (make_dataset(histories, items=30), make_dataset(other, items=30))
    ]
    assert numbers[0].tolist() == numbers[1].tolist()


def test_the_index_itself_is_the_paper(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([[1, 2, 3, 4]])
    config = ComposedTableConfig(digits_of="index")
    assert item_numbers(dataset, leave_one_out(dataset), config).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("config", [FullTableConfig(), HashedTableConfig()])
def test_tables_without_digits_need_no_search(make_dataset: MakeDataset, config: TableConfig) -> None:
    """The numbers of a large catalogue: nothing quadratic in V."""
    dataset = make_dataset([[1, 2, 3, 100_000]])
    numbers = item_numbers(dataset, leave_one_out(dataset), config)
    assert len(np.unique(numbers)) == 100_000
