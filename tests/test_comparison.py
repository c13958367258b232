"""Comparing models: what is compared, training and evaluating it once, and the rows that come out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from lsan.comparison import outcomes as outcomes_module
from lsan.comparison.entries import Entry, find_entries
from lsan.comparison.outcomes import Costs, Outcome, check_runs, find_outcome
from lsan.comparison.report import COLUMNS, table_rows, write_comparison
from lsan.comparison.rows import compare
from lsan.config import ModelConfig, Recipe, SplitConfig, TrainingConfig
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError
from lsan.evaluation.metrics import ndcg
from lsan.evaluation.significance import bootstrap_interval, paired_bootstrap
from lsan.experiment import Observer, evaluate, load_for_evaluation, start_run
from lsan.models.baselines import BASELINES
from lsan.pictures import Point, accuracy_picture
from lsan.presets import preset_names
from lsan.runs import CHECKPOINT, MODEL

CPU = torch.device("cpu")
TINY = Recipe(model=ModelConfig(width=4, history=6), training=TrainingConfig(epochs=2, batch_size=64))
PNG = b"\x89PNG"


def entry(name: str = "tiny", seed: int = 0, recipe: Recipe = TINY) -> Entry:
    return Entry(name=name, recipe=recipe.with_seed(seed), baseline=name in BASELINES)


def recipe_file(folder: Path, name: str, text: str = "") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


class TestEntries:
    def test_baselines_come_first_and_every_network_before_the_next_seed(self, tmp_path: Path) -> None:
        mine = recipe_file(tmp_path, "mine.v2.toml", "seed = 7\n[model]\nwidth = 32\n")
        entries = find_entries(["sasrec", "popularity", mine, "markov"], seeds=2)
        assert [entry.label for entry in entries] == [
            "popularity", "markov", "sasrec-0", "mine.v2-0", "sasrec-1", "mine.v2-1",
        ]  # fmt: skip
        assert [entry.baseline for entry in entries] == [True, True, False, False, False, False]
        assert entries[3].recipe.model.width == 32
        assert {entry.policy for entry in entries} == {"unseen items"}

    def test_every_name_is_known(self) -> None:
        for name in (*BASELINES, *preset_names()):
            assert find_entries([name], seeds=1)[0].name == name

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match="no model 'SASRec'") as caught:
            find_entries(["popularity", "SASRec"], seeds=1)
        assert all(name in str(caught.value) for name in (*BASELINES, *preset_names(), "NAME.toml"))

    def test_names_must_differ(self, tmp_path: Path) -> None:
        for models in (["markov", "markov"], ["sasrec", recipe_file(tmp_path, "sasrec.toml")]):
            with pytest.raises(ConfigError, match="two models would be called"):
                find_entries(models, seeds=1)
        with pytest.raises(ConfigError, match="two models would be called 'markov'"):
            find_entries([recipe_file(tmp_path, "markov.toml")], seeds=1)

    def test_a_recipe_file_must_be_there_and_seeds_at_least_one(self) -> None:
        with pytest.raises(ConfigError, match=r"cannot read the recipe absent\.toml"):
            find_entries(["absent.toml"], seeds=1)
        with pytest.raises(ConfigError, match="--seeds 0"):
            find_entries(["markov"], seeds=0)

    def test_all_are_held_to_the_same_terms(self, tmp_path: Path) -> None:
        shares = '[split]\nmethod = "temporal"\ntest_share = 0.2\n'
        mine = recipe_file(tmp_path, "mine.toml", f"exclude_seen = false\n{shares}")
        [baseline, network] = find_entries(["markov", mine], seeds=1)
        assert baseline.recipe.split == network.recipe.split == SplitConfig(method="temporal", test_share=0.2)
        assert baseline.policy == network.policy == "all items"
        with pytest.raises(ConfigError, match="mine and sasrec hold out different events"):
            find_entries([mine, "sasrec"], seeds=1)
        with pytest.raises(ConfigError, match="differ in exclude_seen"):
            find_entries([mine, "sasrec"], seeds=1, split="leave-one-out")
        entries = find_entries([mine, "sasrec", "popularity"], seeds=1, split="leave-one-out", include_seen=True)
        assert {entry.recipe.split.method for entry in entries} == {"leave-one-out"}
        assert {entry.policy for entry in entries} == {"all items"}
        # its own cut-offs stay where it names that method already
        assert find_entries([mine], seeds=1, split="temporal")[0].recipe.split.test_share == 0.2
        assert find_entries(["markov"], seeds=1, split="temporal", include_seen=True)[0].recipe == Recipe(
            split=SplitConfig(method="temporal"), exclude_seen=False
        )


def outcome_of(entry: Entry, dataset: Dataset, folder: Path, observer: Observer | None = None) -> Outcome:
    return find_outcome(entry, dataset, "test", folder, device=CPU, observer=observer or Observer())


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each evaluation."""
    calls: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(outcomes_module, "evaluate", counted)
    return calls


class TestOutcomes:
    def test_a_network_is_trained_and_evaluated_once(
        self, small_shop: Dataset, tmp_path: Path, evaluations: list[Any]
    ) -> None:
        first = outcome_of(entry(), small_shop, tmp_path)
        run, dataset, split = load_for_evaluation(tmp_path / "runs" / "tiny-0", None, device=CPU)
        report = evaluate(run.network, dataset, split, run.header, "test", device=CPU)
        assert first.users.tolist() == report.users.tolist()
        assert first.ranks["unseen items"].tolist() == report.unseen_items.ranks.tolist()
        assert first.ranks["all items"].tolist() == report.all_items.ranks.tolist()
        assert first.figures == json.loads(json.dumps(report.to_json()))
        assert first.costs.parameters == sum(parameter.numel() for parameter in run.network.parameters())
        assert first.costs.bytes == (tmp_path / "runs" / "tiny-0" / MODEL).stat().st_size
        assert first.costs.training_seconds == run.header.progress["seconds"]
        assert first.costs.recommendation_microseconds > 0
        assert (run.header.recipe, run.header.progress["finished"]) == (TINY, True)
        again = outcome_of(entry(), small_shop, tmp_path)
        assert len(evaluations) == 1
        assert (again.costs, again.figures) == (first.costs, first.figures)
        assert again.users.tolist() == first.users.tolist()
        assert again.ranks["all items"].tolist() == first.ranks["all items"].tolist()

    def test_a_baseline_is_counted_and_evaluated_once(
        self, small_shop: Dataset, tmp_path: Path, evaluations: list[Any]
    ) -> None:
        for _ in range(2):
            outcome = outcome_of(entry("markov"), small_shop, tmp_path)
        assert len(evaluations) == 1
        assert outcome.costs.parameters is outcome.costs.bytes is None
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
            "markov.test.json", "markov.test.parquet",
        ]  # fmt: skip

    def test_it_is_evaluated_again_when_anything_has_changed(
        self, small_shop: Dataset, tmp_path: Path, evaluations: list[Any]
    ) -> None:
        outcome_of(entry("markov"), small_shop, tmp_path)
        (tmp_path / "runs" / "markov.test.json").write_text("damaged")
        outcome_of(entry("markov"), small_shop, tmp_path)
        (tmp_path / "runs" / "markov.test.parquet").unlink()
        outcome_of(entry("markov"), small_shop, tmp_path)
        assert len(evaluations) == 3
        outcome_of(entry("markov"), dataclasses.replace(small_shop, content_hash="other"), tmp_path)
        temporal = msgspec.structs.replace(TINY, split=SplitConfig(method="temporal"))
        outcome_of(entry("markov", recipe=temporal), small_shop, tmp_path)
        assert len(evaluations) == 5
        find_outcome(entry("markov"), small_shop, "validation", tmp_path, device=CPU, observer=Observer())
        assert len(evaluations) == 6

    def test_an_interrupted_training_is_resumed(self, small_shop: Dataset, tmp_path: Path) -> None:
        def interrupt(epoch: int, step: int, steps: int) -> None:
            if (epoch, step) == (1, 1):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            outcome_of(entry(), small_shop, tmp_path / "one", Observer(step=interrupt))
        assert (tmp_path / "one" / "runs" / "tiny-0" / CHECKPOINT).exists()
        epochs: list[float] = []
        resumed = outcome_of(
            entry(), small_shop, tmp_path / "one", Observer(epoch=lambda record: epochs.append(record["epoch"]))
        )
        assert epochs == [2]
        whole = outcome_of(entry(), small_shop, tmp_path / "other")
        assert resumed.ranks["all items"].tolist() == whole.ranks["all items"].tolist()

    def test_another_run_in_the_folder_is_an_error(self, small_shop: Dataset, tmp_path: Path) -> None:
        run = tmp_path / "runs" / "tiny-0"
        check_runs([entry(), entry("markov")], small_shop, tmp_path)
        start_run(small_shop, TINY, run, device=CPU, observer=Observer())
        check_runs([entry(), entry(seed=1), entry("markov")], small_shop, tmp_path)
        check_runs([entry(recipe=msgspec.structs.replace(TINY, description="words"))], small_shop, tmp_path)
        other = msgspec.structs.replace(TINY, exclude_seen=False, model=ModelConfig(width=8, history=6))
        with pytest.raises(DataError, match=r"another recipe") as caught:
            check_runs([entry(), entry(recipe=other)], small_shop, tmp_path)
        message = str(caught.value)
        assert str(run) in message
        assert "exclude_seen is true, asked for is false; model.width is 4, asked for is 8" in message
        assert "--out" in message
        with pytest.raises(DataError, match="trained on other data"):
            check_runs([entry()], dataclasses.replace(small_shop, content_hash="other"), tmp_path)
        (run / "run.json").write_text("{}")
        with pytest.raises(DataError, match=r"run\.json"):
            check_runs([entry()], small_shop, tmp_path)


def made_outcome(entry: Entry, ranks: np.ndarray, users: np.ndarray, *, seconds: float = 1.0) -> Outcome:
    costs = Costs(
        parameters=None if entry.baseline else 100,
        bytes=None if entry.baseline else 400,
        training_seconds=seconds,
        recommendation_microseconds=50,
    )
    seen = np.where(np.arange(len(ranks)) % 3 == 0, np.inf, ranks)
    return Outcome(
        entry=entry,
        costs=costs,
        figures={},
        users=users,
        ranks={"unseen items": ranks.astype(float), "all items": seen},
    )


USERS = np.repeat(np.arange(40), 3)


@pytest.fixture
def made() -> list[Outcome]:
    """Two seeds of a good network, one of a bad one, a baseline; users of three cases each."""
    random = np.random.default_rng(0)
    return [
        made_outcome(entry("popularity"), random.integers(1, 60, 120), USERS, seconds=0.01),
        made_outcome(entry("good", 0), random.integers(1, 12, 120), USERS, seconds=10),
        made_outcome(entry("bad", 0), random.integers(1, 100, 120), USERS, seconds=200),
        made_outcome(entry("good", 1), random.integers(1, 12, 120), USERS, seconds=30),
    ]


class TestRows:
    def test_seeds_are_averaged_case_by_case(self, made: list[Outcome], small_shop: Dataset) -> None:
        comparison = compare(made, small_shop, "test")
        good, *others = comparison.rows
        assert (good.name, good.seeds) == ("good", (0, 1))
        assert {row.name: row.seeds for row in others} == {"popularity": (), "bad": (0,)}
        assert (comparison.cases, comparison.users, comparison.policy) == (120, 40, "unseen items")
        by_seed = [ndcg(run.ranks["unseen items"], 10) for run in made if run.entry.name == "good"]
        values = np.mean(by_seed, axis=0)
        figure = good.accuracy["unseen items"]["nDCG@10"]
        low, high = bootstrap_interval(values[:, None], USERS)
        assert (figure.mean, figure.low, figure.high) == pytest.approx((values.mean(), low[0], high[0]))
        assert figure.deviation == pytest.approx(np.std([seed.mean() for seed in by_seed], ddof=1))
        assert good.costs.training_seconds == 20
        assert others[0].accuracy["unseen items"]["nDCG@10"].deviation is None

    def test_differences_are_paired_with_the_best(self, made: list[Outcome], small_shop: Dataset) -> None:
        rows = {row.name: row for row in compare(made, small_shop, "test").rows}
        best = np.mean([run.ranks["unseen items"] <= 10 for run in made if run.entry.name == "good"], axis=0)
        bad = (made[2].ranks["unseen items"] <= 10).astype(float)
        expected = paired_bootstrap(bad[:, None], best[:, None], USERS)
        found = rows["bad"].accuracy["unseen items"]["HR@10"].difference
        assert (found.mean, found.low, found.high, found.share) == pytest.approx(
            (expected.mean[0], expected.low[0], expected.high[0], expected.share[0])
        )
        itself = rows["good"].accuracy["all items"]["nDCG@10"].difference
        assert (itself.mean, itself.low, itself.high, itself.share) == (0, 0, 0, 0.5)

    def test_the_recipes_policy_says_who_is_the_best(self, small_shop: Dataset) -> None:
        recipe = msgspec.structs.replace(TINY, exclude_seen=False)
        ranks = np.where(np.arange(120) % 3 == 0, 1, 50)
        seen_only = made_outcome(entry("one", recipe=recipe), ranks, USERS)
        other = made_outcome(entry("two", recipe=recipe), np.full(120, 10), USERS)
        comparison = compare([seen_only, other], small_shop, "test")
        assert comparison.policy == "all items"
        assert [row.name for row in comparison.rows] == ["two", "one"]

    def test_other_cases_are_a_mistake_of_the_caller(self, made: list[Outcome], small_shop: Dataset) -> None:
        with pytest.raises(ValueError, match="other cases"):
            compare([made[0], dataclasses.replace(made[1], users=USERS[::-1])], small_shop, "test")


class TestReport:
    def test_files(self, made: list[Outcome], small_shop: Dataset, tmp_path: Path) -> None:
        comparison = compare(made, small_shop, "validation")
        write_comparison(comparison, tmp_path)
        content = json.loads((tmp_path / "comparison.json").read_text())
        assert content["content_hash"] == small_shop.content_hash
        assert content["part"] == "validation"
        assert [row["name"] for row in content["rows"]] == ["good", "popularity", "bad"]
        assert content["rows"][0]["recipe"]["model"]["width"] == 4
        assert "seed" not in content["rows"][0]["recipe"]
        assert content["rows"][1]["recipe"] is None
        assert set(content["rows"][0]["accuracy"]) == {"unseen items", "all items"}
        page = (tmp_path / "comparison.md").read_text()
        assert "120 validation cases of 40 users" in page
        assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")] == [
            "| model", "| ---", "| good", "| popularity", "| bad",
        ]  # fmt: skip
        for picture in ("accuracy-bytes.png", "accuracy-seconds.png"):
            assert f"]({picture})" in page
            assert (tmp_path / picture).read_bytes().startswith(PNG)

    def test_texts_of_a_row(self, made: list[Outcome], small_shop: Dataset) -> None:
        good, popularity, _ = (
            dict(zip(COLUMNS, row, strict=True)) for row in table_rows(compare(made, small_shop, "test"))
        )
        assert [good[column] for column in ("model", "seeds", "parameters", "bytes", "train s", "recommend µs")] == [
            "good", "2", "100", "400", "20.0", "50",
        ]  # fmt: skip
        assert good["nDCG@10 against the best"] == "the best"
        assert popularity["bytes"] == popularity["seeds"] == "-"
        assert popularity["nDCG@10 against the best"].startswith("-0.")
        assert popularity["better in"] == "0.0%"

    def test_baselines_alone_have_no_picture_of_bytes(
        self, made: list[Outcome], small_shop: Dataset, tmp_path: Path
    ) -> None:
        write_comparison(compare(made, small_shop, "test"), tmp_path)
        write_comparison(compare(made[:1], small_shop, "test"), tmp_path)
        assert not (tmp_path / "accuracy-bytes.png").exists()
        assert (tmp_path / "accuracy-seconds.png").exists()
        assert "accuracy-bytes" not in (tmp_path / "comparison.md").read_text()

    def test_pictures_of_any_costs(self, tmp_path: Path) -> None:
        several: list[list[float | None]] = [[1.0, 1e6, 2.0, None, None], [0.0, 3.0], [5.0]]
        for number, costs in enumerate(several):
            points = [
                Point(
                    name=f"model {place}", x=x, y=0.1 * place, low=0.1 * place - 0.01, high=0.1 * place + 0.02,
                    series="some" if number == 0 and place < 2 else "",
                )
                for place, x in enumerate(costs)
            ]  # fmt: skip
            accuracy_picture(points, "bytes", "nDCG@10", tmp_path / f"{number}.png")
            assert (tmp_path / f"{number}.png").read_bytes().startswith(PNG)
