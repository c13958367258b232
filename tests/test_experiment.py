"""Training and evaluation wired together, on both splits, for networks and baselines."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from lsan.config import ContextConfig, ModelConfig, Recipe, SplitConfig, TimeConfig, TrainingConfig, TwinAttentionConfig
from lsan.data.dataset import Dataset
from lsan.data.splits import Cases
from lsan.errors import ConfigError, DataError
from lsan.evaluation.ranking import Rankings, rank_cases
from lsan.experiment import (
    Observer,
    choose_device,
    evaluate,
    load_for_evaluation,
    make_split,
    report_json,
    resume_run,
    start_run,
)
from lsan.models.baselines import Markov, Popularity
from lsan.models.events import training_popularity

CPU = torch.device("cpu")
MakeDataset = Callable[..., Dataset]
TEMPORAL = Recipe(
    split=SplitConfig(method="temporal"),
    model=ModelConfig(width=8, history=12, encoder=TwinAttentionConfig(), context=ContextConfig()),
    training=TrainingConfig(epochs=1, batch_size=32),
)


def test_every_model_on_a_temporal_split(small_shop: Dataset, tmp_path: Path) -> None:
    start_run(small_shop, TEMPORAL, tmp_path / "run", device=CPU, observer=Observer())
    run, dataset, split = load_for_evaluation(tmp_path / "run", None, device=CPU)
    assert split.known_items is not None
    asked = dataset.items[split.test.stop]
    unknown = ~split.known_items[asked]
    popularity = Popularity(dataset, split)
    for scorer in (run.network, popularity, Markov(dataset, split)):
        for part in ("test", "validation"):
            report = evaluate(
                scorer, dataset, split, run.header, "test" if part == "test" else "validation", device=CPU
            )
            figures = json.loads(json.dumps(report_json(report, run.header, "test"), allow_nan=False))
            assert 0 < figures["all items"]["HR@20"][0] < 1
            assert 0 < figures["unseen items"]["HR@20"][0] < 1
        ranks = evaluate(scorer, dataset, split, run.header, "test", device=CPU).all_items.ranks
        assert np.isinf(ranks[unknown]).all()
        assert np.isfinite(ranks[~unknown]).all()


def test_what_was_held_out_does_not_reach_the_model(small_shop: Dataset) -> None:
    """Popularity and codes come from training events: an item that is only held out counts for nothing."""
    split = make_split(small_shop, SplitConfig())
    counted = int(training_popularity(small_shop, split).sum())
    assert counted == small_shop.events - 2 * small_shop.users


def test_the_folder_must_be_new(small_shop: Dataset, small_run: Path) -> None:
    with pytest.raises(DataError, match="already exists"):
        start_run(small_shop, Recipe(), small_run, device=CPU, observer=Observer())


def test_resuming_a_finished_run_needs_no_dataset(small_run: Path) -> None:
    before = (small_run / "run.json").read_bytes()
    resume_run(small_run, None, device=CPU, observer=Observer())
    assert (small_run / "run.json").read_bytes() == before


def test_training_selects_under_the_recipes_policy(small_shop: Dataset, tmp_path: Path) -> None:
    """The validation figure in metrics.jsonl is that of the policy which the recipe names."""
    figures = {}
    for exclude_seen in (True, False):
        recipe = msgspec.structs.replace(TEMPORAL, split=SplitConfig(), exclude_seen=exclude_seen)
        folder = tmp_path / str(exclude_seen)
        start_run(small_shop, recipe, folder, device=CPU, observer=Observer())
        run, dataset, split = load_for_evaluation(folder, None, device=CPU)
        report = evaluate(run.network, dataset, split, run.header, "validation", device=CPU)
        policy = report.unseen_items if exclude_seen else report.all_items
        figures[exclude_seen] = run.header.progress["validation nDCG@10"]
        assert figures[exclude_seen] == pytest.approx(policy.accuracy["nDCG@10"].mean)
    assert figures[True] != figures[False]


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        assert choose_device("auto") == CPU
        with pytest.raises(ConfigError, match="CUDA"):
            choose_device("cuda")
    with pytest.raises(ConfigError, match="device 'tpu': expected one of auto, cpu, cuda"):
        choose_device("tpu")  # type: ignore[arg-type]


def test_nothing_to_learn_from(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """A run that cannot begin leaves no folder behind."""
    with pytest.raises(DataError, match="nothing to learn from"):
        start_run(make_dataset([[1, 2, 3], [3, 2, 1]]), Recipe(), tmp_path / "run", device=CPU, observer=Observer())
    with pytest.raises(DataError, match="one item only"):
        start_run(make_dataset([[1, 1, 1, 1]]), Recipe(), tmp_path / "run", device=CPU, observer=Observer())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("times", [None, [86_400_000 * day for day in range(10)]], ids=["no times", "days"])
def test_time_signals_need_times_of_day(make_dataset: MakeDataset, times: list[int] | None, tmp_path: Path) -> None:
    dataset = make_dataset([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], times=times)
    recipe = Recipe(model=ModelConfig(width=8, time=TimeConfig()), training=TrainingConfig(epochs=1))
    with pytest.raises(DataError, match=r"\[model\.time\] needs times of day"):
        start_run(dataset, recipe, tmp_path / "run", device=CPU, observer=Observer())
    assert not (tmp_path / "run").exists()
    # a context does without
    recipe = msgspec.structs.replace(recipe, model=ModelConfig(width=8, context=ContextConfig()))
    start_run(dataset, recipe, tmp_path / "run", device=CPU, observer=Observer())


def test_a_sample_of_the_validation_cases(small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = list[int]()

    def count(network: object, dataset: Dataset, cases: Cases, *rest: object, **options: object) -> Rankings:
        ranked.append(len(cases))
        return rank_cases(network, dataset, cases, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("lsan.experiment.rank_cases", count)
    for most in (None, 7):
        recipe = msgspec.structs.replace(
            TEMPORAL, split=SplitConfig(), training=TrainingConfig(epochs=1, batch_size=32, validation_cases=most)
        )
        start_run(small_shop, recipe, tmp_path / str(most), device=CPU, observer=Observer())
    assert ranked == [len(make_split(small_shop, SplitConfig()).validation), 7]
