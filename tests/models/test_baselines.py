"""The baselines, counted by hand or by slower code."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch

from lsan.data.dataset import Dataset
from lsan.data.splits import Split, leave_one_out, temporal
from lsan.models.baselines import ItemKnn, Markov, Popularity, RecentPopularity, item_knn
from lsan.models.baselines.item_knn import ItemKnnSettings
from lsan.models.events import training_events
from lsan.models.histories import Histories

MakeDataset = Callable[..., Dataset]
DAY = 86_400_000


@pytest.fixture(scope="module")
def log(make_dataset: MakeDataset) -> Dataset:
    """Training parts: 1 2 1 2 | 2 3 | 1 2 (a user of two events is all training) | 1."""
    return make_dataset([[1, 2, 1, 2, 4, 4], [2, 3, 4, 4], [1, 2], [1, 4, 4]], items=5)


@pytest.fixture(scope="module")
def split(log: Dataset) -> Split:
    return leave_one_out(log)


def after(*items: int) -> Histories:
    return Histories.of_items(torch.tensor([items]))


class TestPopularity:
    def test_every_history_gets_the_counts(self, log: Dataset, split: Split) -> None:
        assert Popularity(log, split).scores(after(3)).tolist() == [[4, 4, 1, 0, 0]]


class TestRecentPopularity:
    def test_leave_one_out_counts_the_events_of_the_same_user(self, log: Dataset, split: Split) -> None:
        """Ages: 3 2 1 0 | 1 0 | 1 0 | 0."""
        model = RecentPopularity(log, split, half_life=1)
        assert model.scores(after(3))[0].tolist() == [1 / 8 + 1 / 2 + 1 / 2 + 1, 1 / 4 + 1 + 1 / 2 + 1, 1, 0, 0]
        assert model.scores(after(0)).tolist() == model.scores(after(1)).tolist()

    def test_a_temporal_split_counts_days(self, make_dataset: MakeDataset) -> None:
        """The last training event is that of the other user, on day 10; what is held out comes later."""
        days = [0, 6, 8, 11, 13, 10, 12, 14]
        log = make_dataset([[1, 2, 2, 3, 3], [3, 1, 1]], items=4, times=[day * DAY for day in days])
        split = temporal(log, validation_from=11 * DAY, test_from=13 * DAY)
        model = RecentPopularity(log, split, half_life=2)
        assert model.scores(after(3))[0].tolist() == pytest.approx([1 / 32, 1 / 4 + 1 / 2, 1, 0])
        assert RecentPopularity(log, split).scores(after(3)).tolist() == [
            pytest.approx([0.5 ** (10 / 7), 0.5 ** (4 / 7) + 0.5 ** (2 / 7), 1, 0])
        ]

    def test_what_is_long_past_stays_in_the_order_of_popularity(self, make_dataset: MakeDataset) -> None:
        log = make_dataset([[1, 1, 2, *[3] * 3000, 4, 4]], items=4)
        scores = RecentPopularity(log, leave_one_out(log)).scores(after(3))[0].tolist()
        assert scores[2] > scores[0] > scores[1] > scores[3] == 0


class TestMarkov:
    def test_transitions(self, log: Dataset, split: Split) -> None:
        markov = Markov(log, split)
        # after 1: 2 three times; after 2: 1 once, 3 once; nothing crosses from user to user; popularity / 5 below that
        assert markov.scores(after(3, 1))[0].tolist() == pytest.approx([0.8, 3.8, 0.2, 0, 0])
        assert markov.scores(after(1, 2))[0].tolist() == pytest.approx([1.8, 0.8, 1.2, 0, 0])

    def test_no_transition_or_no_history_leaves_popularity(self, log: Dataset, split: Split) -> None:
        markov = Markov(log, split)
        for history in (after(3), after(4), after(5), after(0), after(0, 0)):
            assert markov.scores(history)[0].tolist() == pytest.approx([0.8, 0.8, 0.2, 0, 0])

    def test_one_transition_outweighs_any_popularity(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset([[1] * 50, [2, 3, 1, 1]], items=3)
        scores = Markov(dataset, leave_one_out(dataset)).scores(after(2))[0]
        assert int(scores.argmax()) == 2
        assert torch.isfinite(scores).all()


class TestItemKnn:
    def test_by_hand(self, log: Dataset, split: Split) -> None:
        """With a window of 2, item 2 follows 1 next three times, 1 and 2 follow themselves at distance 2."""
        model = ItemKnn(log, split, ItemKnnSettings(window=2, shrinkage=1, decay=0.5))
        one, two = [0.5 / 5, 3 / 5, 0], [1 / 5, 0.5 / 5, 1 / (sqrt(4) + 1)]
        assert model.scores(after(1))[0, :2].tolist() == pytest.approx(one[:2])
        assert model.scores(after(2))[0, :3].tolist() == pytest.approx(two)
        both = [b + a / 2 for a, b in zip(one, two, strict=True)]
        assert model.scores(after(1, 2))[0, :3].tolist() == pytest.approx(both)

    def test_items_that_follow_nothing_are_last_and_by_popularity(self, log: Dataset, split: Split) -> None:
        scores = ItemKnn(log, split, ItemKnnSettings(events=60)).scores(after(2, *[5] * 59))[0]
        assert min(scores[:3]) > 0 == scores[3] == scores[4]
        nothing = ItemKnn(log, split).scores(after(5))[0]
        assert nothing[0] == nothing[1] > nothing[2] > nothing[3] == nothing[4] == 0

    @pytest.mark.parametrize("block", [1, 300, 1 << 22])
    @pytest.mark.parametrize("neighbours", [2, 100])
    def test_against_plain_loops(
        self, block: int, neighbours: int, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(item_knn, "_BLOCK", block)
        random = np.random.default_rng(0)
        dataset = make_dataset([random.integers(1, 16, length).tolist() for length in range(3, 40)], items=17)
        split, settings = leave_one_out(dataset), ItemKnnSettings(neighbours=neighbours, window=4, events=5)
        histories = [random.integers(1, 18, length).tolist() for length in (1, 2, 5, 9)]
        expected = [plain_scores(dataset, split, settings, history) for history in histories]
        model = ItemKnn(dataset, split, settings)
        for history, scores in zip(histories, expected, strict=True):
            found = model.scores(after(*history))[0].tolist()
            assert [score if wanted else 0 for score, wanted in zip(found, scores, strict=True)] == pytest.approx(
                scores
            )
            assert all(
                score < min(filter(None, scores)) for score, wanted in zip(found, scores, strict=True) if not wanted
            )

    def test_the_last_event_counts_most(self, log: Dataset, split: Split) -> None:
        settings = ItemKnnSettings()
        models = [ItemKnn(log, split, replace(settings, decay=decay)) for decay in (0.01, 0.99)]
        distances = [float((model.scores(after(2, 1)) - model.scores(after(1))).abs().max()) for model in models]
        assert distances[0] < distances[1] / 50


def plain_scores(dataset: Dataset, split: Split, settings: ItemKnnSettings, history: list[int]) -> list[float]:
    """What the docstring of `ItemKnn` says, in loops; no fallback to popularity."""
    users, items = (array.tolist() for array in training_events(dataset, split))
    popularity = Counter(items)
    pairs: dict[tuple[int, int], float] = defaultdict(float)
    for later in range(len(items)):
        for earlier in range(max(0, later - settings.window), later):
            if users[earlier] == users[later]:
                pairs[items[earlier], items[later]] += 1 / (later - earlier)
    scores = [0.0] * len(dataset.catalogue)
    for age, item in enumerate(reversed(history[-settings.events :])):
        similar = {
            other: weight / (sqrt(popularity[item] * popularity[other]) + settings.shrinkage)
            for (first, other), weight in sorted(pairs.items())
            if first == item
        }
        for other in sorted(similar, key=lambda other: -similar[other])[: settings.neighbours]:
            scores[other - 1] += settings.decay**age * similar[other]
    return scores
