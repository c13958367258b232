"""The input of every model, against values worked out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lsan.data.dataset import Dataset
from lsan.data.windows import HistoryReader
from lsan.models.histories import Histories

MakeDataset = Callable[..., Dataset]
HOUR = 3_600_000


@pytest.fixture(scope="module")
def dataset(make_dataset: MakeDataset) -> Dataset:
    """Two users, an event an hour from 1970-01-01 22:30 on."""
    times = [HOUR * hour + HOUR // 2 for hour in range(22, 29)]
    return make_dataset([[1, 2, 3, 4], [2, 5, 1]], times=times)


def histories(dataset: Dataset, *, timed: bool = True, known: list[int] | None = None) -> Histories:
    """Of the first user's three events and the second user's one, before the event that is asked for."""
    known_items = None
    if known is not None:
        known_items = np.zeros(6, dtype=np.bool_)
        known_items[known] = True
    reader = HistoryReader(dataset, 2, timed=timed, known_items=known_items)
    return Histories.of(reader.read(np.array([0, 4]), np.array([3, 5])), np.array([1, 2]))


def test_items_hours_and_the_time_of_asking_by_hand(dataset: Dataset) -> None:
    both = histories(dataset)
    assert both.items.tolist() == [[2, 3], [0, 2]]
    assert both.present.tolist() == [[True, True], [False, True]]
    assert (both.times // HOUR).tolist() == [[23, 24], [-1, 26]]
    assert both.hours.tolist() == [[24, 1], [0, 3]]  # slots 1..24, 0 = padding
    assert (both.asked // HOUR).tolist() == [25, 27]  # the time of the event after
    assert both.users.tolist() == [1, 2]


def test_without_times(dataset: Dataset, make_dataset: MakeDataset) -> None:
    for both in (histories(dataset, timed=False), histories(make_dataset([[1, 2, 3, 4], [2, 5, 1]]))):
        assert both.items.tolist() == [[2, 3], [0, 2]]
        assert both.times.tolist() == [[-1, -1], [-1, -1]]
        assert both.hours.tolist() == [[0, 0], [0, 0]]
        assert both.asked.tolist() == [-1, -1]


def test_unknown_items_take_their_times_with_them(dataset: Dataset) -> None:
    both = histories(dataset, known=[1, 2, 4])
    assert both.items.tolist() == [[1, 2], [0, 2]]
    assert (both.times // HOUR).tolist() == [[22, 23], [-1, 26]]
    assert (both.asked // HOUR).tolist() == [25, 27]


def test_midnight_of_1970_is_a_time() -> None:
    items = torch.tensor([[1, 2]])
    times = torch.tensor([[0, HOUR - 1]])
    first = Histories(items=items, times=times, asked=torch.tensor([0]), users=torch.tensor([0]))
    assert first.hours.tolist() == [[1, 1]]


def test_the_latest_events(dataset: Dataset) -> None:
    both = histories(dataset)
    last = both.latest(1)
    assert last.items.tolist() == [[3], [2]]
    assert torch.equal(last.times, both.times[:, 1:])
    assert torch.equal(last.asked, both.asked)
    assert torch.equal(last.users, both.users)
    assert torch.equal(both.latest(9).items, both.items)


def test_items_alone_are_of_unknown_users_at_unknown_times() -> None:
    alone = Histories.of_items(torch.tensor([[0, 3], [1, 2]]))
    assert alone.present.tolist() == [[False, True], [True, True]]
    assert not alone.hours.any()
    assert alone.asked.tolist() == [-1, -1]
    assert alone.users.tolist() == [0, 0]


def test_all_of_it_moves_to_a_device(dataset: Dataset) -> None:
    moved = histories(dataset).to(torch.device("meta"))
    assert {part.device.type for part in (moved.items, moved.times, moved.asked, moved.users)} == {"meta"}
