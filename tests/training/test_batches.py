"""Which examples there are, and how an epoch goes through them."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsan.config import Regime
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out, temporal_quantiles
from lsan.data.windows import HistoryReader
from lsan.training.batches import GROUP, epoch_batches, in_pieces, read_batch, training_examples

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="module")
def log(make_dataset: MakeDataset) -> Dataset:
    """Training parts: 1 2 3 4 5 6 7 (flat 0..6), nothing to learn from (9..), 8 9 (12, 13), 5 (14)."""
    return make_dataset([[1, 2, 3, 4, 5, 6, 7, 9, 9], [8, 1, 1], [8, 9], [5]])


def test_prefix_examples_are_all_prefixes(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "prefix", 3)
    found = sorted(zip(examples.start.tolist(), examples.stop.tolist(), examples.user.tolist(), strict=True))
    assert found == [(0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1), (0, 6, 1), (12, 13, 3)]


def test_causal_examples_hold_every_target_once(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "causal", 4)
    # six targets 2..7, cut from the end: inputs 3..6 for 4..7, and 1, 2 for 2, 3
    assert list(zip(examples.start.tolist(), examples.stop.tolist(), strict=True)) == [(2, 6), (0, 2), (12, 13)]


def test_cloze_examples_hold_the_events_themselves(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "cloze", 4)
    # seven events, cut from the end in pieces of four
    assert list(zip(examples.start.tolist(), examples.stop.tolist(), strict=True)) == [(3, 7), (0, 3), (12, 14)]
    assert examples.user.tolist() == [1, 1, 3]


@pytest.mark.parametrize("regime", ["prefix", "causal", "cloze"])
@pytest.mark.parametrize("history", [1, 2, 3, 50])
def test_every_training_event_but_the_first_is_a_target_once(small_shop: Dataset, regime: Regime, history: int) -> None:
    """In the cloze regime: once it may become one; the first event of a history may, too."""
    for split in (leave_one_out(small_shop), temporal_quantiles(small_shop, validation=0.1, test=0.1)):
        examples = training_examples(split, regime, history)
        first = examples.stop - 1 if regime == "prefix" else examples.start
        after = 0 if regime == "cloze" else 1
        targets = [t + after for a, b in zip(first, examples.stop, strict=True) for t in range(a, b)]
        expected = [
            t for a, b in zip(split.train_start, split.train_stop, strict=True) for t in range(int(a) + 1, int(b))
        ]
        assert len(targets) == len(set(targets))
        firsts = set(split.train_start.tolist()) if regime == "cloze" else set()
        assert sorted(set(targets) - firsts) == expected
        lengths = examples.stop - examples.start
        assert lengths.min() >= 1
        assert regime == "prefix" or lengths.max() <= history
        # every example is of the user whose events it reads
        assert (split.train_start[examples.user - 1] <= examples.start).all()
        assert (examples.stop <= split.train_stop[examples.user - 1]).all()


def test_a_batch_of_prefixes(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "prefix", 3)
    reader = HistoryReader(log, 3, timed=False, known_items=None)
    batch = np.flatnonzero(np.isin(examples.stop, [1, 5]))
    histories, targets = read_batch(reader, log.items, examples, batch, "prefix")
    rows = dict(zip(targets.tolist(), histories.items.tolist(), strict=True))
    assert rows == {2: [0, 0, 1], 6: [3, 4, 5]}
    assert histories.users.tolist() == [1, 1]


def test_a_batch_of_causal_histories(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "causal", 4)
    reader = HistoryReader(log, 4, timed=False, known_items=None)
    histories, targets = read_batch(reader, log.items, examples, np.array([0, 1, 2]), "causal")
    assert histories.items.tolist() == [[3, 4, 5, 6], [0, 0, 1, 2], [0, 0, 0, 8]]
    assert targets.tolist() == [[4, 5, 6, 7], [0, 0, 2, 3], [0, 0, 0, 9]]
    assert histories.users.tolist() == [1, 1, 3]


def test_a_batch_of_cloze_histories(log: Dataset) -> None:
    examples = training_examples(leave_one_out(log), "cloze", 4)
    reader = HistoryReader(log, 4, timed=False, known_items=None)
    histories, targets = read_batch(reader, log.items, examples, np.array([2, 0, 1]), "cloze")
    assert histories.items.tolist() == [[0, 0, 8, 9], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert targets.tolist() == histories.items.tolist()
    assert histories.users.tolist() == [3, 1, 1]


@pytest.mark.parametrize("regime", ["prefix", "causal", "cloze"])
def test_the_time_of_asking_is_that_of_the_last_target(small_shop: Dataset, regime: Regime) -> None:
    """Never that of an event which is held out."""
    assert small_shop.timestamps is not None
    split = leave_one_out(small_shop)
    examples = training_examples(split, regime, 5)
    reader = HistoryReader(small_shop, 5, timed=True, known_items=None)
    batch = np.arange(len(examples))
    histories, _ = read_batch(reader, small_shop.items, examples, batch, regime)
    if regime == "cloze":
        assert set(histories.asked.tolist()) == {-1}
    else:
        assert (examples.stop < split.train_stop[examples.user - 1]).all()
        assert histories.asked.tolist() == small_shop.timestamps[examples.stop].tolist()
    assert (histories.times[:, -1] >= 0).all()


@pytest.mark.parametrize("regime", ["prefix", "causal", "cloze"])
def test_an_empty_batch(log: Dataset, regime: Regime) -> None:
    """What a process gets of a batch that is smaller than the number of processes."""
    examples = training_examples(leave_one_out(log), regime, 4)
    reader = HistoryReader(log, 4, timed=False, known_items=None)
    histories, targets = read_batch(reader, log.items, examples, np.array([], dtype=np.int64), regime)
    assert histories.items.shape == (0, 1)
    assert targets.numel() == 0


@settings(max_examples=50)
@given(st.lists(st.integers(1, 50), max_size=400), st.integers(1, 40), st.integers(0, 999))
def test_every_example_exactly_once_an_epoch(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = epoch_batches(np.array(lengths, dtype=np.int64), batch_size, np.random.default_rng(seed))
    assert sorted(example for batch in batches for example in batch.tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_epochs_differ_and_follow_from_their_stream() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    one, same, other = (
        [batch.tolist() for batch in epoch_batches(lengths, 32, np.random.default_rng(seed))] for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    assert {frozenset(batch) for batch in one}.isdisjoint({frozenset(batch) for batch in other})


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the positions of all batches that are padding."""
    computed = sum(int(lengths[batch].max(initial=0)) * len(batch) for batch in batches)
    return 1 - int(lengths.sum()) / computed


def test_little_is_computed_on_padding() -> None:
    random = np.random.default_rng(0)
    lengths = np.minimum(random.geometric(0.08, 30_000), 50)
    batches = epoch_batches(lengths, 256, random)
    assert padding_share(lengths, batches) < 0.05
    shuffled = list(random.permutation(len(lengths)).reshape(-1, 250))
    assert padding_share(lengths, shuffled) > 0.65


EPOCHS, BATCH = 400, 4


@pytest.fixture(scope="module")
def places() -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the examples, and the batch of each in each of many epochs; more than one group."""
    random = np.random.default_rng(11)
    lengths = random.integers(1, 4, GROUP * BATCH + 60)
    place = np.empty((EPOCHS, len(lengths)), dtype=np.int64)
    for epoch in range(EPOCHS):
        for number, batch in enumerate(epoch_batches(lengths, BATCH, random)):
            place[epoch, batch] = number
    return lengths, place


def test_every_example_comes_at_any_time_of_an_epoch(places: tuple[np.ndarray, np.ndarray]) -> None:
    _, place = places
    batches = int(place.max()) + 1
    middle, spread = (batches - 1) / 2, np.sqrt((batches**2 - 1) / 12)
    deviation = (place.mean(axis=0) - middle) / (spread / np.sqrt(EPOCHS))
    assert np.abs(deviation).max() < 4.5  # 316 examples of a standard normal
    assert 0.8 < deviation.std() < 1.2


def test_examples_of_one_length_meet_at_the_uniform_rate(places: tuple[np.ndarray, np.ndarray]) -> None:
    lengths, place = places
    for length in (1, 2, 3):
        same = np.flatnonzero(lengths == length)
        meetings = (place[:, same, None] == place[:, None, same]).sum(axis=0)[np.triu_indices(len(same), 1)]
        # uniform batches of this length alone would bring two of them together this often
        rate = (BATCH - 1) / (len(same) - 1)
        assert 0.9 * rate < meetings.mean() / EPOCHS < 1.02 * rate
        # no two are kept together or apart: the counts scatter as independent draws do
        assert 0.9 < meetings.var() / (meetings.mean() * (1 - rate)) < 1.1
        assert meetings.max() < EPOCHS * rate + 6 * np.sqrt(EPOCHS * rate)


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(1, 2000))
def test_pieces_of_a_batch(lengths: list[int], positions: int) -> None:
    """All of it in order, each piece small enough or a single example, and no more pieces than that takes."""
    batch, found = np.arange(len(lengths))[::-1], np.array(lengths, dtype=np.int64)
    pieces = in_pieces(batch, found, positions)
    assert np.array_equal(np.concatenate(pieces), batch)
    assert all(len(piece) <= 1 or len(piece) * found[piece].max() <= positions for piece in pieces)
    most = max(1, positions // max(lengths, default=1))
    assert len(pieces) == max(1, -(-len(batch) // most))
