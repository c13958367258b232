"""On a shop whose true process is known: chance < popularity < Markov chain < LSAN < the oracle."""

from pathlib import Path

import numpy as np
import torch

from lsan.config import ContextConfig, ModelConfig, Recipe, TrainingConfig, TwinAttentionConfig
from lsan.data.prepare import prepare_dataset
from lsan.data.simulate import ShopConfig, oracle_probabilities, simulate_shop
from lsan.data.splits import leave_one_out
from lsan.evaluation.metrics import ndcg
from lsan.evaluation.ranking import Scorer, expected_ranks
from lsan.evaluation.significance import bootstrap_interval
from lsan.experiment import Observer, evaluate, start_run
from lsan.models.baselines import Markov, Popularity
from lsan.runs import load_run

CPU = torch.device("cpu")
RECIPE = Recipe(
    model=ModelConfig(
        regime="causal", width=48, history=40, dropout=0.2, encoder=TwinAttentionConfig(), context=ContextConfig()
    ),
    training=TrainingConfig(batch_size=32, learning_rate=4e-3, weight_decay=1e-5, epochs=18),
)


def test_the_oracle_beats_lsan_and_lsan_beats_the_baselines(tmp_path: Path) -> None:
    simulation = simulate_shop(ShopConfig(users=1200, items=250))
    dataset = prepare_dataset(simulation.interactions, tmp_path / "dataset", items=simulation.items)
    start_run(dataset, RECIPE, tmp_path / "run", device=CPU, observer=Observer())
    run = load_run(tmp_path / "run", device=CPU)
    split = leave_one_out(dataset)
    assert len(split.test) == 1200

    # the oracle's columns are the shop's item numbers, its rows the shop's users
    number = {raw: number for number, raw in enumerate(simulation.items["item"])}
    users = np.array([int(str(raw).removeprefix("shopper-")) - 1 for raw in dataset.user_ids()])
    truth = oracle_probabilities(simulation, users)[:, [number[raw] for raw in dataset.catalogue.ids]]
    answers = torch.from_numpy(dataset.items[split.test.stop].astype(np.int64) - 1)[:, None]
    scores = torch.from_numpy(truth)
    oracle = ndcg(expected_ranks(scores, scores.gather(1, answers)).numpy(), 10)

    def accuracy(scorer: Scorer) -> np.ndarray:
        report = evaluate(scorer, dataset, split, run.header, "test", device=CPU)
        return ndcg(report.unseen_items.ranks, 10)

    lsan = accuracy(run.network)
    markov = accuracy(Markov(dataset, split))
    popularity = accuracy(Popularity(dataset, split))
    figures = {name: round(float(values.mean()), 4) for name, values in
               {"oracle": oracle, "LSAN": lsan, "Markov": markov, "popularity": popularity}.items()}  # fmt: skip

    def surely_better(one: np.ndarray, other: np.ndarray) -> float:
        """Lower end of the 95% interval of the difference, user by user."""
        low, _ = bootstrap_interval((one - other)[:, None], np.arange(len(one)))
        return float(low[0])

    assert surely_better(oracle, lsan) > 0.15, figures
    assert surely_better(lsan, markov) > 0.01, figures
    assert surely_better(lsan, popularity) > 0.1, figures
    assert surely_better(markov, popularity) > 0.1, figures
    assert popularity.mean() > 1.5 * ndcg(np.arange(1.0, 251.0), 10).mean(), figures  # than a random order
