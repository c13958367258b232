"""Splits: no future in training or in histories, nothing held out twice, and messages that say what to do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lsan.data import splits
from lsan.data.catalogue import Catalogue
from lsan.data.dataset import Dataset, write_dataset
from lsan.data.splits import Cases, Split, leave_one_out, temporal, temporal_quantiles
from lsan.errors import DataError

HOUR = 3_600_000
#: A busy machine is no failure.
unhurried = settings(deadline=None)
#: One user's events: (item, time).
History = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class MemoryDataset(Dataset):
    """A dataset whose catalogue is not read from a folder."""

    size: int

    @property
    def catalogue(self) -> Catalogue:
        absent = [None] * self.size
        return Catalogue(ids=list(range(self.size)), titles=absent, categories=absent)


def dataset_of(histories: list[History], *, with_times: bool = True, size: int = 12) -> Dataset:
    """A dataset in memory with these histories, as given: not sorted here."""
    events = [event for history in histories for event in history]
    return MemoryDataset(
        path=Path("shop"),
        offsets=np.cumsum([0, *map(len, histories)], dtype=np.int64),
        items=np.array([item for item, _ in events], dtype=np.int32),
        timestamps=np.array([time for _, time in events], dtype=np.int64) if with_times else None,
        summary={},
        content_hash="",
        size=size,
    )


def by_time(history: History) -> History:
    return sorted(history, key=lambda event: event[1])


#: Few distinct times, so that ties (within a user, between users, at a cut-off) are the rule. Users may be
#: empty and begin in any order.
histories = st.lists(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), max_size=8).map(by_time),
    min_size=1,
    max_size=8,
)


def rows(cases: Cases) -> list[tuple[int, int, int]]:
    return list(zip(cases.users.tolist(), cases.start.tolist(), cases.stop.tolist(), strict=True))


def training_events(split: Split) -> list[int]:
    ranges = zip(split.train_start.tolist(), split.train_stop.tolist(), strict=True)
    return [event for start, stop in ranges for event in range(start, stop)]


def check_no_leak(dataset: Dataset, split: Split) -> None:
    """What holds for every split."""
    offsets = dataset.offsets.tolist()
    assert len(split.train_start) == len(split.train_stop) == dataset.users
    for cases in (split.validation, split.test):
        assert len(cases.users) == len(cases.start) == len(cases.stop) == len(cases)
        assert rows(cases) == sorted(rows(cases))
        for user, start, stop in rows(cases):
            # The history is all that this user did before the answer, nothing of others, not the answer.
            assert start == offsets[user] <= stop < offsets[user + 1]
            # Training ends before the answer.
            assert split.train_stop[user] <= stop
            if dataset.timestamps is not None:
                answered_at = dataset.timestamps[stop]
                assert (dataset.timestamps[start:stop] <= answered_at).all()
                assert (dataset.timestamps[split.train_start[user] : split.train_stop[user]] <= answered_at).all()
    for user in range(dataset.users):
        assert offsets[user] == split.train_start[user] <= split.train_stop[user] <= offsets[user + 1]
    # The three parts share no event and leave none out.
    parts = [*training_events(split), *split.validation.stop.tolist(), *split.test.stop.tolist()]
    assert sorted(parts) == list(range(dataset.events))
    # Of each user, every validation answer comes before every test answer.
    first_test = {user: stop for user, _, stop in reversed(rows(split.test))}
    assert all(stop < first_test.get(user, dataset.events) for user, _, stop in rows(split.validation))


class TestLeaveOneOut:
    @unhurried
    @given(histories=histories, with_times=st.booleans())
    def test_no_leak(self, histories: list[History], with_times: bool) -> None:
        assume(any(len(history) >= 3 for history in histories))
        dataset = dataset_of(histories, with_times=with_times)
        split = leave_one_out(dataset)
        check_no_leak(dataset, split)
        for user, history in enumerate(histories):
            held_out = 1 if len(history) >= 3 else 0
            assert np.count_nonzero(split.validation.users == user) == held_out
            assert np.count_nonzero(split.test.users == user) == held_out
            assert split.train_stop[user] - split.train_start[user] == len(history) - 2 * held_out
        assert split.known_items is None

    def test_by_hand(self) -> None:
        # Users with 2, 3, 0 and 5 events; items in the order of the log.
        split = leave_one_out(
            dataset_of([[(1, 0), (2, 0)], [(3, 5), (4, 6), (5, 7)], [], [(6, 1), (6, 1), (1, 1), (2, 2), (3, 3)]])
        )
        assert split.train_start.tolist() == [0, 2, 5, 5]
        assert split.train_stop.tolist() == [2, 3, 5, 8]
        assert rows(split.validation) == [(1, 2, 3), (3, 5, 8)]
        assert rows(split.test) == [(1, 2, 4), (3, 5, 9)]

    def test_nobody_has_three_events(self) -> None:
        with pytest.raises(DataError, match="three events or more, the longest history has 2"):
            leave_one_out(dataset_of([[(1, 0), (2, 0)], []]))


class TestTemporal:
    @unhurried
    @given(histories=histories, validation_from=st.integers(0, 9), gap=st.integers(1, 5))
    def test_no_leak(self, histories: list[History], validation_from: int, gap: int) -> None:
        test_from = validation_from + gap
        times = [time for history in histories for _, time in history]
        assume(any(time < validation_from for time in times) and any(time >= test_from for time in times))
        assume(any(validation_from <= time < test_from for time in times))
        dataset = dataset_of(histories)
        assert dataset.timestamps is not None
        split = temporal(dataset, validation_from=validation_from, test_from=test_from)
        check_no_leak(dataset, split)
        # The cut-offs hold for everybody, and a tie with a cut-off falls after it.
        trained = training_events(split)
        assert (dataset.timestamps[trained] < validation_from).all()
        validated = dataset.timestamps[split.validation.stop]
        assert ((validated >= validation_from) & (validated < test_from)).all()
        assert (dataset.timestamps[split.test.stop] >= test_from).all()
        # Known are exactly the items of training.
        assert split.known_items is not None
        assert split.known_items.shape == (13,)
        assert set(np.flatnonzero(split.known_items)) == set(dataset.items[trained].tolist())

    @unhurried
    @given(histories=histories, validation_from=st.integers(1, 8), data=st.data())
    def test_the_future_changes_nothing(
        self, histories: list[History], validation_from: int, data: st.DataObject
    ) -> None:
        """Other items after the cut-off, or no such events: training and known items stay as they are."""

        def parts(split: Split, dataset: Dataset) -> tuple[list[list[int]], npt.NDArray[np.bool_] | None]:
            ranges = zip(split.train_start, split.train_stop, strict=True)
            return [dataset.items[start:stop].tolist() for start, stop in ranges], split.known_items

        past = [[event for event in history if event[1] < validation_from] for history in histories]
        assume(any(past))
        # A user of their own makes sure that no part is empty.
        ends: History = [(1, validation_from), (2, 9)]
        later = st.lists(st.tuples(st.integers(1, 12), st.integers(validation_from, 9)), max_size=3)
        other = [by_time([*history, *data.draw(later)]) for history in past]
        seen = []
        for variant in (histories, past, other):
            dataset = dataset_of([*variant, ends])
            seen.append(parts(temporal(dataset, validation_from=validation_from, test_from=9), dataset))
        assert seen[0][0] == seen[1][0] == seen[2][0]
        np.testing.assert_array_equal(seen[0][1], seen[1][1])
        np.testing.assert_array_equal(seen[0][1], seen[2][1])

    def test_by_hand(self) -> None:
        dataset = dataset_of(
            [
                [(1, 10), (2, 20), (3, 30)],  # before, at the first cut-off, at the second
                [(4, 31), (1, 31)],  # begins after both, one basket
                [(5, 19)],  # leaves before
                [],
                [(2, 19), (6, 29), (2, 29), (1, 40)],
            ]
        )
        split = temporal(dataset, validation_from=20, test_from=30)
        assert split.train_start.tolist() == [0, 3, 5, 6, 6]
        assert split.train_stop.tolist() == [1, 3, 6, 6, 7]
        assert rows(split.validation) == [(0, 0, 1), (4, 6, 7), (4, 6, 8)]
        # The history of user 1's first case is empty; their second holds the first, of the same time.
        assert rows(split.test) == [(0, 0, 2), (1, 3, 3), (1, 3, 4), (4, 6, 9)]
        assert split.known_items is not None
        assert np.flatnonzero(split.known_items).tolist() == [1, 2, 5]

    def test_cut_offs_between_events_that_are_far_apart(self) -> None:
        dataset = dataset_of([[(1, -5 * HOUR), (2, 0), (3, 1_700_000_000_000)]])
        split = temporal(dataset, validation_from=-1, test_from=1_699_999_999_999)
        assert (training_events(split), rows(split.validation), rows(split.test)) == (
            [0],
            [(0, 0, 1)],
            [(0, 0, 2)],
        )

    @pytest.mark.parametrize(
        ("validation_from", "test_from", "message"),
        [
            (20, 20, "must lie before the test cut-off"),
            (30, 20, "must lie before the test cut-off"),
            (0, 20, "no training events; the log spans 1970-01-01T00:00:00.010000"),
            (21, 29, "no validation events"),
            (20, 31, "no test events"),
            (20, 10**18, "1000000000000000000 ms, out of range"),
        ],
    )
    def test_bad_cut_offs(self, validation_from: int, test_from: int, message: str) -> None:
        with pytest.raises(DataError, match=message):
            temporal(
                dataset_of([[(1, 10), (2, 20), (3, 30)]]),
                validation_from=validation_from,
                test_from=test_from,
            )

    def test_no_times(self) -> None:
        dataset = dataset_of([[(1, 10), (2, 20), (3, 30)]], with_times=False)
        with pytest.raises(DataError, match="this log had none; use leave-one-out"):
            temporal(dataset, validation_from=20, test_from=30)
        with pytest.raises(DataError, match="this log had none; use leave-one-out"):
            temporal_quantiles(dataset, validation=0.1, test=0.1)


class TestTemporalQuantiles:
    @unhurried
    @given(
        times=st.lists(st.integers(-(10**13), 10**13), min_size=3, max_size=60, unique=True),
        validation=st.floats(0.01, 0.5),
        test=st.floats(0.01, 0.5),
    )
    def test_shares(self, times: list[int], validation: float, test: float) -> None:
        """Without ties, the parts have the rounded sizes."""
        held_out, last = max(1, round(validation * len(times))), max(1, round(test * len(times)))
        assume(validation + test < 1 and held_out + last < len(times))
        half = len(times) // 2
        dataset = dataset_of([by_time([(1, time) for time in part]) for part in (times[:half], times[half:])])
        split = temporal_quantiles(dataset, validation=validation, test=test)
        check_no_leak(dataset, split)
        assert (len(split.validation), len(split.test)) == (held_out, last)

    def test_ties_all_fall_after_the_cut_off(self) -> None:
        dataset = dataset_of([[(1, time)] for time in (1, 1, 1, 2, 2, 2, 2, 3, 3, 3)])
        split = temporal_quantiles(dataset, validation=0.4, test=0.1)
        assert (len(training_events(split)), len(split.validation), len(split.test)) == (3, 4, 3)

    @pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.1, 0.0), (0.5, 0.5), (float("nan"), 0.1)])
    def test_bad_shares(self, validation: float, test: float) -> None:
        with pytest.raises(DataError, match="shares must be positive"):
            temporal_quantiles(dataset_of([[(1, 10), (2, 20), (3, 30)]]), validation=validation, test=test)

    def test_too_few_events(self) -> None:
        with pytest.raises(DataError, match="2 events are too few"):
            temporal_quantiles(dataset_of([[(1, 10), (2, 20)]]), validation=0.2, test=0.2)

    def test_one_time_for_most_events(self) -> None:
        with pytest.raises(DataError, match="both cut-offs fall on"):
            temporal_quantiles(dataset_of([[(1, 10), *[(2, 20)] * 9]]), validation=0.2, test=0.2)


@unhurried
@given(histories=histories, size=st.integers(1, 3))
def test_blocks_change_nothing(histories: list[History], size: int) -> None:
    """Streaming in blocks of a few events gives what one block gives."""
    dataset = dataset_of([*histories, [(1, 0), (2, 5), (3, 9)]])
    with pytest.MonkeyPatch.context() as patch:
        expected = temporal(dataset, validation_from=3, test_from=7)
        patch.setattr(splits, "BLOCK", size)
        found = temporal(dataset, validation_from=3, test_from=7)
    assert rows(found.validation) == rows(expected.validation)
    assert rows(found.test) == rows(expected.test)
    assert training_events(found) == training_events(expected)
    np.testing.assert_array_equal(found.known_items, expected.known_items)


@unhurried
@given(times=st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=40), data=st.data())
def test_nth_smallest(times: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(times) - 1))
    assert splits._nth_smallest(np.array(times, dtype=np.int64), rank) == sorted(times)[rank]


@pytest.mark.parametrize("block", [1, 2, 1 << 22])
def test_times_that_go_backwards_are_refused(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would put a later event into the history of an earlier one."""
    monkeypatch.setattr(splits, "BLOCK", block)
    good: History = [(1, 50), (2, 60), (3, 70)]
    dataset = dataset_of([good, [], [(1, 10), (2, 30), (3, 20), (4, 40)]])
    for split in (leave_one_out, lambda data: temporal(data, validation_from=20, test_from=30)):
        with pytest.raises(DataError, match="event 5 of user index 2 is earlier than the event before it"):
            split(dataset)
    # Between users, time may go back: each begins when they like.
    leave_one_out(dataset_of([good, [], [(1, 10), (2, 20), (3, 30)]]))


def test_a_dataset_from_its_folder(tmp_path: Path) -> None:
    """The memory-mapped arrays of a written dataset serve as those in memory do."""
    made = dataset_of([[(1, 10), (2, 20), (3, 30)], [(2, 15), (4, 35)]])
    write_dataset(
        tmp_path / "shop",
        offsets=made.offsets,
        items=made.items,
        timestamps=made.timestamps,
        catalogue=pl.DataFrame(
            {"id": [1, 2, 3, 4], "title": [None] * 4, "category": [None] * 4},
            schema={"id": pl.Int64, "title": pl.String, "category": pl.String},
        ),
        users=pl.DataFrame({"id": ["ada", "bo"]}),
        summary={},
    )
    dataset = Dataset.open(tmp_path / "shop")
    split = temporal(dataset, validation_from=20, test_from=30)
    check_no_leak(dataset, split)
    assert rows(split.test) == [(0, 0, 2), (1, 3, 4)]
    assert split.known_items is not None
    assert split.known_items.tolist() == [False, True, True, False, False]
    assert rows(leave_one_out(dataset).test) == [(0, 0, 2)]


@pytest.mark.parametrize(
    ("cases", "most", "kept"), [(5, 3, [0, 2, 4]), (5, 5, [0, 1, 2, 3, 4]), (2, 9, [0, 1]), (3, 1, [0])]
)
def test_spread_cases(cases: int, most: int, kept: list[int]) -> None:
    numbers = np.arange(cases)
    spread = Cases(users=numbers, start=numbers + 10, stop=numbers + 20).spread(most)
    assert spread.users.tolist() == kept
    assert (spread.start - 10).tolist() == kept
    assert (spread.stop - 20).tolist() == kept
