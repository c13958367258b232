"""The search finds better recipes, goes on after a kill as if there had been none, and stops weak trials early."""

import math
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
import torch

from lsan.config import ModelConfig, Recipe, TrainingConfig, load_recipe
from lsan.data.dataset import Dataset
from lsan.errors import DataError, MissingExtraError
from lsan.experiment import Observer, start_run
from lsan.runs import MODEL, RunHeader, load_run
from lsan.tuning.records import Search, Trial, best_trial, read_trials, run_folder
from lsan.tuning.search import SearchObserver, resume_search, start_search
from lsan.tuning.space import Space, with_values

CPU = torch.device("cpu")
#: Learns nothing at this learning rate.
BAD = Recipe(
    description="too slow",
    seed=1,
    model=ModelConfig(width=8, history=6),
    training=TrainingConfig(batch_size=64, learning_rate=1e-6, epochs=4, averaging=0.0),
)
SPACE: Space = {"training.learning_rate": [1e-6, 1e-1, "log"], "model.width": [8, 16]}
TRIALS = 6


def without_seconds(trials: list[Trial]) -> list[Trial]:
    return [msgspec.structs.replace(trial, seconds=0.0) for trial in trials]


def search(dataset: Dataset, folder: Path, space: Space, *, trials: int, epochs: int = 4) -> list[Trial]:
    recipe = with_values(BAD, {"training.epochs": epochs}, where="test")
    return start_search(dataset, recipe, space, folder, trials=trials, device=CPU, observer=SearchObserver())


@pytest.fixture(scope="module")
def searched(small_shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that ran to its end. Not to be changed."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    search(small_shop, folder, SPACE, trials=TRIALS)
    return folder


def test_it_finds_a_better_learning_rate(searched: Path) -> None:
    trials = read_trials(searched)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    first, best = trials[0], best_trial(trials)
    assert first.values == {"training.learning_rate": 1e-6, "model.width": 8}  # the recipe itself
    assert best is not None
    assert best.figure > 1.5 * first.figure
    assert best.values["training.learning_rate"] > 1e-3
    header = RunHeader.read(run_folder(searched, best.number))
    assert header.progress["validation nDCG@10"] == best.figure


def test_weak_trials_are_pruned(searched: Path, tmp_path: Path) -> None:
    """Once five were finished, after the third epoch."""
    (tmp_path / "trials").mkdir()
    (tmp_path / "search.json").write_bytes((searched / "search.json").read_bytes())
    values = read_trials(searched)[0].values
    good = [
        Trial(number=number, outcome="finished", figures=[0.9] * 4, seconds=1.0, values=values) for number in range(4)
    ]
    (tmp_path / "trials.jsonl").write_bytes(b"".join(msgspec.json.encode(trial) + b"\n" for trial in good))
    trials = resume_search(tmp_path, None, trials=6, device=CPU, observer=SearchObserver())
    assert [trial.outcome for trial in trials[4:]] == ["finished", "pruned"]
    assert len(trials[5].figures) == 3
    assert not (run_folder(tmp_path, 5) / MODEL).exists()


def test_the_best_recipe_is_one_to_train_with(searched: Path) -> None:
    best = best_trial(read_trials(searched))
    assert best is not None
    recipe = load_recipe(searched / "best.toml")
    assert recipe.description == f"too slow; best of {TRIALS} trials"
    tried = RunHeader.read(run_folder(searched, best.number)).recipe
    assert recipe == msgspec.structs.replace(tried, description=recipe.description)
    assert tried.training.learning_rate == best.values["training.learning_rate"]
    assert "context" not in tomllib.loads((searched / "best.toml").read_text())["model"]


def test_only_the_best_weights_are_kept(searched: Path) -> None:
    best = best_trial(read_trials(searched))
    assert best is not None
    for trial in read_trials(searched):
        folder = run_folder(searched, trial.number)
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(trial.figures)
        assert (folder / MODEL).exists() == (trial.number == best.number)
        assert not (folder / "checkpoint.safetensors").exists()
    load_run(run_folder(searched, best.number), device=CPU)
    assert (searched / "trials.png").read_bytes().startswith(b"\x89PNG")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from lsan.data.dataset import Dataset
from lsan.experiment import Observer
from lsan.tuning.records import Search
from lsan.tuning.search import SearchObserver, start_search

def begin(number, recipe):
    def epoch(record):
        if (number, record["epoch"]) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)
    return Observer(epoch=epoch)

given = Search.read(Path(sys.argv[1]))
start_search(
    Dataset.open(Path(given.dataset["path"])), given.recipe, given.space, Path(sys.argv[2]),
    trials=4, device=torch.device("cpu"), observer=SearchObserver(begin=begin),
)
"""


def test_a_killed_search_goes_on_as_if_it_had_not_been(searched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    done = subprocess.run([sys.executable, "-c", KILLED, str(searched), str(folder)], timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_trials(folder)) == 2
    assert (run_folder(folder, 2) / "metrics.jsonl").exists()
    (folder / "trials" / ".002.left").mkdir()  # as a kill in the middle of making a folder leaves it
    assert load_recipe(folder / "best.toml").description == "too slow; best of 2 trials"
    numbers: list[int] = []

    def begin(number: int, recipe: Recipe) -> Observer:
        numbers.append(number)
        return Observer()

    for trials in (4, TRIALS):
        resume_search(folder, None, trials=trials, device=CPU, observer=SearchObserver(begin=begin))
    assert numbers == list(range(2, TRIALS))
    assert without_seconds(read_trials(folder)) == without_seconds(read_trials(searched))
    assert (folder / "best.toml").read_text() == (searched / "best.toml").read_text()
    assert sorted(path.name for path in (folder / "trials").iterdir()) == [f"{number:03}" for number in range(TRIALS)]


def test_trials_that_fail_are_left_behind(small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that do not go together, and a loss that becomes infinite."""
    import lsan.training.loop

    update = lsan.training.loop._update

    def diverging(network: torch.nn.Module, optimizer: torch.optim.Optimizer, *rest: object) -> tuple[float, int]:
        loss, count = update(network, optimizer, *rest)  # type: ignore[arg-type]
        return (math.inf if optimizer.param_groups[0]["lr"] == 2.0 else loss), count

    monkeypatch.setattr("lsan.training.loop._update", diverging)
    # Each choice is fine with the recipe's own value of the other key.
    space: Space = {"model.encoder.heads": [1, 8], "model.width": [8, 12, 20], "training.learning_rate": [1e-3, 2.0]}
    trials = search(small_shop, tmp_path / "search", space, trials=6, epochs=1)
    failed = {trial.reason for trial in trials if trial.outcome == "failed"}
    assert any("is not a multiple of heads 8" in reason for reason in failed)
    assert any("loss became inf" in reason for reason in failed)
    assert best_trial(trials) is not None
    resume_search(tmp_path / "search", small_shop, trials=7, device=CPU, observer=SearchObserver())


def test_the_first_trial_is_the_recipe_where_choices_are_tables(small_shop: Dataset, tmp_path: Path) -> None:
    losses = [{"kind": "bpr"}, {"kind": "bce"}, {"kind": "gbce", "negatives": 5}, {"kind": "cross-entropy"}]
    trials = search(small_shop, tmp_path / "search", {"training.loss": losses}, trials=1, epochs=1)
    assert [trial.values for trial in trials] == [{"training.loss": {"kind": "cross-entropy"}}]


def test_a_trial_for_which_memory_does_not_suffice_is_left_behind(
    small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(dataset: Dataset, recipe: Recipe, *rest: object, **names: object) -> None:
        torch.empty(2**50 if recipe.model.width == 8 else 1, dtype=torch.uint8)
        start_run(dataset, recipe, *rest, **names)  # type: ignore[arg-type]

    monkeypatch.setattr("lsan.tuning.search.start_run", large)
    trials = search(small_shop, tmp_path / "search", {"model.width": [8, 16]}, trials=4, epochs=1)
    assert {(trial.values["model.width"], trial.outcome) for trial in trials} == {(8, "failed"), (16, "finished")}
    assert trials[0].reason.startswith("memory does not suffice: ")
    (tmp_path / "search" / "trials" / ".DS_Store").write_bytes(b"what a file manager leaves")
    resume_search(tmp_path / "search", small_shop, trials=5, device=CPU, observer=SearchObserver())


def test_no_trial_begins_after_the_time_is_up(small_shop: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    assert start_search(
        small_shop, BAD, SPACE, folder, trials=9, device=CPU, minutes=0.0, observer=SearchObserver()
    ) == []  # fmt: skip
    assert Search.read(folder).trials == 9
    assert not (folder / "best.toml").exists()


def test_folders_that_are_not_of_a_search(small_shop: Dataset, tmp_path: Path, searched: Path) -> None:
    with pytest.raises(DataError, match="already exists"):
        search(small_shop, searched, SPACE, trials=1)
    with pytest.raises(DataError, match=r"search\.json: cannot be read"):
        Search.read(tmp_path)
    (tmp_path / "search.json").write_text(
        (searched / "search.json").read_text().replace('"version": 1', '"version": 2')
    )
    with pytest.raises(DataError, match="of another version"):
        Search.read(tmp_path)
    (tmp_path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"trials\.jsonl: damaged"):
        read_trials(tmp_path)


def test_a_missing_package_is_named(small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lsan\[tune\]"'):
        search(small_shop, tmp_path / "search", SPACE, trials=1)
    assert not list(tmp_path.iterdir())
