"""What every model must satisfy, networks and baselines alike."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lsan.config import ModelConfig, Recipe
from lsan.data.catalogue import Catalogue
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.data.windows import HistoryReader
from lsan.evaluation.ranking import Scorer
from lsan.models.baselines import Markov, Popularity, training_popularity
from lsan.models.histories import Histories
from lsan.models.recommender import Lsan
from lsan.recommender import Recommender
from lsan.runs import Run, RunHeader
from lsan.training.losses import full_cross_entropy

MakeDataset = Callable[..., Dataset]

ITEMS, LONGEST = 23, 6
CATEGORIES = [None if item % 5 == 0 else f"category {item % 3}" for item in range(ITEMS)]
CATALOGUE = Catalogue(
    ids=[f"id-{index}" for index in range(1, ITEMS + 1)], titles=[None] * ITEMS, categories=CATEGORIES
)

NETWORKS = [
    ModelConfig(
        regime="prefix" if prefix else "causal",
        blocks=blocks,
        radices=radices,
        residual=residual,
        untied_output=untied,
        history=LONGEST,
        width=8,
        window=3 if prefix else 4,
    )
    for prefix, blocks, radices, residual, untied in itertools.product(
        (True, False), (1, 2), ((), (2,), (3, 4)), (True, False), (False, True)
    )
]


def name_of(config: ModelConfig) -> str:
    parts = [config.regime, f"{config.blocks} blocks", "x".join(map(str, config.radices)) or "full"]
    parts += ["residual"] * config.residual + ["untied"] * config.untied_output
    return " ".join(parts)


every_network = pytest.mark.parametrize("config", NETWORKS, ids=name_of)


def network_of(config: ModelConfig) -> Lsan:
    """A network whose every parameter matters: nothing is left at the zero or one that training begins with."""
    generator = torch.Generator().manual_seed(7)
    popularity = torch.randint(0, 50, (ITEMS,), generator=generator)
    numbers = torch.randperm(ITEMS, generator=generator)
    torch.manual_seed(7)
    network = Lsan(config, torch.from_numpy(CATALOGUE.category_of_item.copy()), popularity, numbers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def run_of(config: ModelConfig) -> Run:
    header = RunHeader(
        recipe=Recipe(model=config),
        hours=True,
        dataset={"name": "d", "path": "/nowhere", "content_hash": "", "users": 1, "items": ITEMS, "events": 1},
        progress={"finished": True},
    )
    return Run(header=header, catalogue=CATALOGUE, network=network_of(config))


@pytest.fixture(scope="module")
def walks(make_dataset: MakeDataset) -> Dataset:
    """Twelve users who walk through the items, some of them again and again."""
    random = np.random.default_rng(5)
    histories = [random.integers(1, ITEMS + 1, length).tolist() for length in range(3, 15)]
    return make_dataset(
        [*histories, [4, 4, 4, 4, 9]], items=ITEMS, times=list(range(0, 107 * 10**7, 10**7)), categories=CATEGORIES
    )


def histories_of(*rows: list[int], left: int = 0) -> Histories:
    """Side by side, with `left` columns of padding more than needed. The hour of an event follows from the item."""
    time = max(map(len, rows)) + left
    items = torch.tensor([[0] * (time - len(row)) + row for row in rows])
    return Histories(items=items, hours=torch.where(items > 0, items * 7 % 24 + 1, 0))


#: Length 1, 2, T, more than T, and items that are repeated.
ROWS = [[5], [7, 3], [1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3, 2, 1], [11, 11, 11], [4, 20, 4, 20, 4, 23]]


@pytest.fixture(params=[*NETWORKS, "popularity", "Markov"], ids=lambda p: p if isinstance(p, str) else name_of(p))
def model(request: pytest.FixtureRequest, walks: Dataset) -> Scorer:
    if isinstance(request.param, ModelConfig):
        return network_of(request.param)
    split = leave_one_out(walks)
    return Popularity(training_popularity(walks, split)) if request.param == "popularity" else Markov(walks, split)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class TestEveryModel:
    def test_scores_every_item_once_a_history(self, model: Scorer) -> None:
        scores = model.scores(histories_of(*ROWS))
        assert scores.shape == (len(ROWS), ITEMS)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()

    def test_batch_equals_single(self, model: Scorer) -> None:
        together = model.scores(histories_of(*ROWS))
        close(together, torch.cat([model.scores(histories_of(row)) for row in ROWS]))
        close(together.flip(0), model.scores(histories_of(*ROWS[::-1])))

    def test_left_padding_changes_nothing(self, model: Scorer) -> None:
        for row in ROWS:
            scores = model.scores(histories_of(row))
            for left in (1, 3, 11):
                close(scores, model.scores(histories_of(row, left=left)))

    def test_the_future_never_reaches_a_history(self, model: Scorer, walks: Dataset) -> None:
        """Cases of a dataset are answered alike whatever comes after them, the held-out event included."""
        cases = leave_one_out(walks).validation
        items, times = walks.items.copy(), np.asarray(walks.timestamps).copy()
        reader = HistoryReader(walks, LONGEST, hours=True, known_items=None)
        before = model.scores(Histories.of(*reader.read(cases.start, cases.stop)))
        later = np.ones(len(items), dtype=np.bool_)
        for start, stop in zip(cases.start, cases.stop, strict=True):
            later[start:stop] = False
        items[later] = 1 + (items[later] + 10) % ITEMS
        times[later] += 5 * 3_600_000
        other = Dataset(
            path=walks.path, offsets=walks.offsets, items=items, timestamps=times, summary={}, content_hash=""
        )
        reader = HistoryReader(other, LONGEST, hours=True, known_items=None)
        assert torch.equal(before, model.scores(Histories.of(*reader.read(cases.start, cases.stop))))

    def test_an_empty_history_is_answered_by_popularity(self, model: Scorer, walks: Dataset) -> None:
        scores = model.scores(Histories.of(*np.zeros((2, 2, 3), dtype=np.int64)))
        close(scores, model.scores(Histories.of(*np.zeros((2, 2, 1), dtype=np.int64))))
        popularity = model.popularity if isinstance(model, Lsan) else training_popularity(walks, leave_one_out(walks))
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
        network = network_of(config)
        # In the causal regime too, as no event before the window is known to have happened.
        close(
            network.scores(histories_of([*range(1, 20), 7, 3, 9, 1, 4, 6])),
            network.scores(histories_of([7, 3, 9, 1, 4, 6])),
        )

    @every_network
    def test_the_last_position_alone_equals_the_last_of_all(self, config: ModelConfig) -> None:
        network = network_of(config)
        histories = histories_of(*ROWS)
        close(network.last_hidden(histories), network.hidden(histories)[:, -1])

    @every_network
    def test_causal_vectors_do_not_know_the_future(self, config: ModelConfig) -> None:
        network = network_of(config)
        row = [3, 9, 1, 9, 22, 6]
        hidden = network.hidden(histories_of(row))
        for length in range(1, len(row)):
            alone = network.hidden(histories_of(row[:length]))
            if config.regime == "causal":
                close(hidden[:, :length], alone)
            else:  # the encoder looks both ways, so the test above is not true for want of a difference
                assert not torch.allclose(hidden[:, length - 1], alone[:, -1], atol=1e-2)

    @every_network
    def test_every_event_and_its_place_matters(self, config: ModelConfig) -> None:
        network = network_of(config)
        scores = network.scores(histories_of([3, 9, 1, 14]))
        for other in ([5, 9, 1, 14], [3, 9, 1, 15], [9, 3, 1, 14], [9, 1, 14], [3, 9, 1, 14, 14]):
            assert not torch.allclose(scores, network.scores(histories_of(other)), atol=1e-3), other

    @every_network
    def test_hours_and_categories_matter_and_may_be_absent(self, config: ModelConfig) -> None:
        network = network_of(config)
        histories = histories_of(*ROWS)
        scores = network.scores(histories)
        absent = network.scores(Histories(items=histories.items, hours=torch.zeros_like(histories.hours)))
        assert absent.isfinite().all()
        assert not torch.allclose(scores, absent, atol=1e-3)
        network.context.category_of_item.zero_()
        without = network.scores(histories)
        assert without.isfinite().all()
        assert not torch.allclose(scores, without, atol=1e-3)

    @every_network
    def test_gradients_are_finite_and_reach_every_part(self, config: ModelConfig) -> None:
        network = network_of(config).train()
        histories = histories_of(*ROWS, [0])  # one is empty
        with torch.enable_grad():
            hidden = network.hidden(histories)
            chosen = histories.latest(LONGEST).present
            targets = torch.arange(int(chosen.sum())) % ITEMS + 1
            full_cross_entropy(hidden[chosen], network.output(), targets).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


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
