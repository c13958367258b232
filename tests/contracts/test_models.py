"""What every model must satisfy: every item table with every encoder in each of its regimes, and the baselines."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from lsan.config import (
    REGIMES,
    Bert4RecConfig,
    BsaRecConfig,
    CaserConfig,
    FpmcConfig,
    LightSansConfig,
    ModelConfig,
    TableConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.data.windows import HistoryReader
from lsan.evaluation.ranking import Scorer
from lsan.models.baselines import BASELINES, RecentPopularity
from lsan.models.events import training_popularity
from lsan.models.histories import Histories
from lsan.models.network import Network
from lsan.recommender import Recommender
from lsan.training.losses import full_cross_entropy
from small_networks import (
    ASKED,
    CATALOGUE,
    CATEGORIES,
    HOUR,
    ITEMS,
    LONGEST,
    NETWORKS,
    PERSONAL,
    ROWS,
    TABLES,
    USERS,
    WHO,
    histories_of,
    name_of,
    network_of,
    run_of,
    shared_network,
    times_of,
)

MakeDataset = Callable[..., Dataset]

every_network = pytest.mark.parametrize("config", NETWORKS, ids=name_of)

#: Encoders that read only so many of the latest events. The others read the whole history.
READS: dict[type, int] = {FpmcConfig: 1, CaserConfig: 3}

#: Encoders whose vectors know later events, outside the causal regime. Those of the others never do.
BOTH_WAYS: set[type] = {TwinAttentionConfig, TwinTransformerConfig, Bert4RecConfig, LightSansConfig, BsaRecConfig}


@pytest.fixture(scope="module")
def walks(make_dataset: MakeDataset) -> Dataset:
    """Thirteen users who walk through the items, some of them again and again."""
    random = np.random.default_rng(5)
    histories = [random.integers(1, ITEMS + 1, length).tolist() for length in range(3, 15)]
    return make_dataset(
        [*histories, [4, 4, 4, 4, 9]], items=ITEMS, times=list(range(0, 107 * 10**7, 10**7)), categories=CATEGORIES
    )


@pytest.fixture(params=[*NETWORKS, *BASELINES], ids=lambda p: p if isinstance(p, str) else name_of(p))
def model(request: pytest.FixtureRequest, walks: Dataset) -> Scorer:
    if isinstance(request.param, ModelConfig):
        return shared_network(request.param)
    return BASELINES[request.param](walks, leave_one_out(walks))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether they differ by no more than rounding; a difference between that and 1e-3 is neither."""
    distance = float((one - other).abs().max())
    assert not 1e-4 < distance < 1e-3, distance
    return distance <= 1e-4


def test_the_networks_here_are_all_that_there_are() -> None:
    pairs = {(type(config.table), type(config.encoder), config.regime) for config in NETWORKS}
    assert pairs == {
        (type(table), kind, regime) for table in TABLES for kind, regimes in REGIMES.items() for regime in regimes
    }
    assert {type(table) for table in TABLES} == set(get_args(TableConfig))
    assert len(set(map(name_of, NETWORKS))) == len(NETWORKS)


class TestEveryModel:
    def test_scores_every_item_once_a_history(self, model: Scorer) -> None:
        scores = model.scores(histories_of(*ROWS, users=WHO))
        assert scores.shape == (len(ROWS), ITEMS)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()

    def test_batch_equals_single(self, model: Scorer) -> None:
        together = model.scores(histories_of(*ROWS, users=WHO))
        single = [model.scores(histories_of(row, users=[user])) for row, user in zip(ROWS, WHO, strict=True)]
        close(together, torch.cat(single))
        close(together.flip(0), model.scores(histories_of(*ROWS[::-1], users=WHO[::-1])))

    def test_left_padding_changes_nothing(self, model: Scorer) -> None:
        for row in ROWS:
            scores = model.scores(histories_of(row))
            for left in (1, 3, 11):
                close(scores, model.scores(histories_of(row, left=left)))

    def test_the_future_never_reaches_a_history(self, model: Scorer, walks: Dataset) -> None:
        """Cases of a dataset are answered alike whatever comes after them, the held-out event included; but for the
        time of the held-out event, when the recommendation is asked for: models with time signals read that."""
        cases = leave_one_out(walks).validation
        later = np.ones(walks.events, dtype=np.bool_)
        for start, stop in zip(cases.start, cases.stop, strict=True):
            later[start:stop] = False
        items = np.where(later, 1 + (walks.items + 10) % ITEMS, walks.items)

        def scores(items: np.ndarray, times: np.ndarray) -> Tensor:
            log = Dataset(
                path=walks.path, offsets=walks.offsets, items=items, timestamps=times, summary={}, content_hash=""
            )
            reader = HistoryReader(log, LONGEST, timed=True, known_items=None)
            return model.scores(Histories.of(reader.read(cases.start, cases.stop), cases.users + 1))

        before = np.asarray(walks.timestamps)
        after = before + later * 50 * HOUR
        asked_alike = after.copy()
        asked_alike[cases.stop] = before[cases.stop]
        expected = scores(walks.items, before)
        assert torch.equal(expected, scores(items, asked_alike))
        reads_the_query = isinstance(model, Network) and model.time is not None
        assert torch.equal(expected, scores(items, after)) != reads_the_query

    def test_an_empty_history_is_answered_by_popularity(self, model: Scorer, walks: Dataset) -> None:
        scores = model.scores(histories_of([0, 0, 0], [0, 0, 0], users=[0, 3]))
        close(scores, model.scores(histories_of([0], [0], users=[0, 3])))
        popularity = training_popularity(walks, leave_one_out(walks))
        if isinstance(model, Network | RecentPopularity):
            popularity = model.popularity
        for row in scores:
            # as many items are better as are more popular: the same order, ties included
            assert torch.equal((row[None] > row[:, None]).sum(1), (popularity[None] > popularity[:, None]).sum(1))

    def test_the_caller_may_write_into_the_scores(self, model: Scorer) -> None:
        histories = histories_of(*ROWS)
        before = model.scores(histories).clone()
        model.scores(histories).fill_(-torch.inf)
        assert torch.equal(before, model.scores(histories))


class TestEveryNetwork:
    @every_network
    def test_only_the_latest_events_are_read(self, config: ModelConfig) -> None:
        network = shared_network(config)
        # In the causal regime too, as no event before the window is known to have happened.
        close(
            network.scores(histories_of([*range(1, 20), 7, 3, 9, 1, 4, 6])),
            network.scores(histories_of([7, 3, 9, 1, 4, 6])),
        )

    @every_network
    def test_the_last_position_alone_equals_the_last_of_all(self, config: ModelConfig) -> None:
        network = shared_network(config)
        histories = histories_of(*ROWS, users=WHO)
        close(network.last_hidden(histories), network.hidden(histories)[:, -1])

    @every_network
    def test_causal_vectors_do_not_know_the_future(self, config: ModelConfig) -> None:
        network = shared_network(config)
        row = [3, 9, 1, 9, 22, 6]
        hidden = network.hidden(histories_of(row, users=[2]))
        for length in range(1, len(row)):
            asked = int(times_of(torch.tensor(row[length])))  # what time signals may know of the event after
            if config.regime == "causal":
                alone = network.hidden(histories_of(row[:length], users=[2], asked=asked))
                close(hidden[:, :length], alone)
            other = histories_of([*row[:length], *[item + 1 for item in row[length:]]], users=[2])
            other.times[:, length] = asked
            blind = config.regime == "causal" or type(config.encoder) not in BOTH_WAYS
            # not blind: the encoder looks both ways, so the test is not true for want of a difference
            assert alike(hidden[:, :length], network.hidden(other)[:, :length]) == blind

    @pytest.mark.parametrize("config", [config for config in NETWORKS if config.regime == "cloze"], ids=name_of)
    def test_cloze_predicts_as_it_is_trained(self, config: ModelConfig) -> None:
        """By filling in a masked event at the end, for which the oldest one makes room (of which only a context or time
        signals of the event after it tell then)."""
        network = shared_network(config)
        rows = [[3, 9], [3, 9, 1, 9, 22]]
        rows += [[5, 3, 9, 1, 9, 22]] * (config.context is None and config.time is None)
        for row in rows:
            known = row[-(LONGEST - 1) :]
            asked = histories_of([*known, 17])
            asked.times[:, -1] = ASKED
            masked = torch.arange(len(known) + 1)[None] == len(known)
            close(network.last_hidden(histories_of(row)), network.cloze(asked, masked)[:, -1])

    @every_network
    def test_every_event_and_its_place_matters(self, config: ModelConfig) -> None:
        """Of those that the encoder reads, by what it is."""
        network = shared_network(config)
        reads = READS.get(type(config.encoder), LONGEST)
        if config.context is not None:  # an event's vector holds the category of the one before
            reads += 1
        row = [3, 9, 1, 14]
        scores = network.scores(histories_of(row, users=[4]))
        others = [[*row[:place], 5, *row[place + 1 :]] for place in range(4)]
        others += [[9, 3, 1, 14], [3, 1, 9, 14], [3, 9, 14, 1], [9, 1, 14], [3, 9, 1, 14, 14]]
        for other in others:
            same = row[-reads:] == other[-reads:]
            assert alike(scores, network.scores(histories_of(other, users=[4]))) == same, other

    @every_network
    def test_known_users_and_unknown_ones_are_answered(self, config: ModelConfig) -> None:
        """Each by vectors of their own where the encoder has any, else all alike."""
        network = shared_network(config)
        users = [0, 1, 2, USERS]
        scores = network.scores(histories_of(*[[3, 9, 1]] * len(users), users=users))
        assert scores.isfinite().all()
        for one, other in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
            assert alike(scores[one], scores[other]) == (type(config.encoder) not in PERSONAL)

    @every_network
    def test_hours_and_categories_matter_to_a_context_and_may_be_absent(self, config: ModelConfig) -> None:
        network = network_of(config)
        histories = histories_of(*ROWS)
        scores = network.scores(histories)
        absent = network.scores(Histories.of_items(histories.items))
        assert absent.isfinite().all()
        assert alike(scores, absent) == (config.context is None and config.time is None)
        if network.context is not None:
            network.context.category_of_item.zero_()
            without = network.scores(histories)
            assert without.isfinite().all()
            assert not alike(scores, without)

    @every_network
    def test_gradients_are_finite_and_reach_every_part(self, config: ModelConfig) -> None:
        network = network_of(config).train()
        histories = histories_of(*ROWS, [0], users=[*WHO, 3]).latest(LONGEST)  # one is empty
        with torch.enable_grad():
            if config.regime == "cloze":
                chosen = histories.present & (torch.arange(LONGEST) % 2 == 1)
                hidden = network.cloze(histories, chosen)
            else:
                chosen = histories.present
                hidden = network.hidden(histories)
            targets = torch.arange(int(chosen.sum())) % ITEMS + 1
            full_cross_entropy(hidden[chosen], network.output(), targets).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    @every_network
    def test_an_empty_batch_is_fine(self, config: ModelConfig) -> None:
        """One of several processes that train together may get nothing of a small batch."""
        network = network_of(config).train()
        none = Histories.of_items(torch.zeros(0, 1, dtype=torch.int64))
        assert network.scores(none).shape == (0, ITEMS)
        with torch.enable_grad():
            hidden = network.cloze(none, none.present) if config.regime == "cloze" else network.hidden(none)
            assert hidden.shape == (0, 1, config.item_width or network.encoder.output_width)
            hidden.sum().backward()
        assert not any(parameter.grad.any() for parameter in network.parameters() if parameter.grad is not None)


class TestEveryRecommender:
    @every_network
    def test_k_larger_than_the_catalogue_gives_all_of_it(self, config: ModelConfig) -> None:
        answer = Recommender(run_of(config)).recommend(["id-3"], k=10 * ITEMS, exclude_seen=False)
        assert sorted(item.id for item in answer) == sorted(CATALOGUE.ids)
        scores = [item.score for item in answer]
        assert scores == sorted(scores, reverse=True)

    @every_network
    def test_items_of_the_history_are_left_out(self, config: ModelConfig) -> None:
        recommender = Recommender(run_of(config))
        history = [f"id-{index}" for index in range(1, 14)]  # longer than the model reads
        answer = recommender.recommend([*history, *history[:2]], k=ITEMS)
        assert sorted(item.id for item in answer) == sorted(set(CATALOGUE.ids) - set(history))
        everything = recommender.recommend([*history, *history[:2]], k=ITEMS, exclude_seen=False)
        assert [item.id for item in everything if item.id not in history] == [item.id for item in answer]

    @every_network
    def test_unknown_items_are_skipped(self, config: ModelConfig) -> None:
        recommender = Recommender(run_of(config))
        answer = recommender.recommend(["?", "id-4", "id-99", "id-2", 17], k=5, at=1e9)
        assert answer.unknown_ids == ("?", "id-99", 17)
        assert not answer.by_popularity
        alone = recommender.recommend(["id-4", "id-2"], k=5, at=1e9)
        assert [item.id for item in answer] == [item.id for item in alone]
        assert [item.score for item in answer] == pytest.approx([item.score for item in alone], abs=1e-4)

    @every_network
    def test_many_equals_one_by_one(self, config: ModelConfig) -> None:
        recommender = Recommender(run_of(config))
        histories = [[f"id-{index}" for index in row] for row in [*ROWS, []]]
        times = [[float(3600 * index) for index in row] for row in [*ROWS, []]]
        for many in (
            recommender.recommend_many(histories, 4, times=times),
            recommender.recommend_many(histories, 4, times=times, batch_size=2),
        ):
            for answer, history, moments in zip(many, histories, times, strict=True):
                alone = recommender.recommend(history, 4, times=moments)
                assert [item.id for item in answer] == [item.id for item in alone]
                assert [item.score for item in answer] == pytest.approx([item.score for item in alone], abs=1e-4)

    @every_network
    def test_saved_and_loaded_it_recommends_the_same(self, config: ModelConfig, tmp_path: Path) -> None:
        recommender = Recommender(run_of(config))
        recommender.save(tmp_path / "run")
        loaded = Recommender.load(tmp_path / "run", device="cpu")
        histories = [[f"id-{index}" for index in row] for row in [*ROWS, []]]
        assert loaded.recommend_many(histories, at=1e9) == recommender.recommend_many(histories, at=1e9)
