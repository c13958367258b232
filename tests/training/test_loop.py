"""The training loop: it learns, stops early, starts alike from one seed, and goes on as if never interrupted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lsan.config import (
    Bert4RecConfig,
    ContextConfig,
    ModelConfig,
    Recipe,
    Regime,
    TrainingConfig,
    TwinAttentionConfig,
    recipe_from,
    recipe_to,
)
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.data.windows import HistoryReader
from lsan.errors import DataError
from lsan.experiment import Observer, resume_run, start_run
from lsan.models.histories import Histories
from lsan.models.network import Network
from lsan.runs import CHECKPOINT, METRICS, MODEL, RunHeader
from lsan.training import loop
from lsan.training.checkpoint import Progress
from lsan.training.loop import Hooks, _mask, stream, train

MakeDataset = Callable[..., Dataset]

CPU = torch.device("cpu")


class InterruptedHereError(Exception):
    """Stands for a crash."""


def recipe_of(regime: Regime, *, epochs: int = 3, patience: int = 5) -> Recipe:
    return Recipe(
        model=ModelConfig(
            regime=regime,
            width=8,
            history=12,
            dropout=0.2,
            encoder=Bert4RecConfig(mask_share=0.5) if regime == "cloze" else TwinAttentionConfig(),
            context=None if regime == "cloze" else ContextConfig(),
        ),
        training=TrainingConfig(
            batch_size=100 if regime == "prefix" else 16,
            learning_rate=1e-2,
            epochs=epochs,
            patience=patience,
            precision="float32",
        ),
    )


def run_to_the_end(dataset: Dataset, recipe: Recipe, folder: Path) -> Path:
    start_run(dataset, recipe, folder, device=CPU, observer=Observer())
    return folder


@pytest.fixture(scope="module", params=["prefix", "causal", "cloze"])
def regime(request: pytest.FixtureRequest) -> Regime:
    regime: Regime = request.param
    return regime


@pytest.fixture(scope="module")
def uninterrupted(small_shop: Dataset, regime: Regime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_the_end(small_shop, recipe_of(regime), tmp_path_factory.mktemp(regime) / "run")


def records(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the seconds."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / MODEL).read_bytes() == (other / MODEL).read_bytes()
    assert records(one) == records(other)
    assert not (one / CHECKPOINT).exists()
    finished = [RunHeader.read(folder).progress for folder in (one, other)]
    assert finished[0] | {"seconds": 0} == finished[1] | {"seconds": 0}


def test_it_learns(uninterrupted: Path, regime: Regime) -> None:
    lines = records(uninterrupted)
    losses = [line["loss"] for line in lines]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < np.log(60) + 0.3
    assert losses[-1] < losses[0] - (0.05 if regime == "cloze" else 0.1)  # half of the history is masked


def test_metrics_are_json_lines(uninterrupted: Path) -> None:
    lines = [json.loads(line) for line in (uninterrupted / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(line) == {"epoch", "loss", "validation nDCG@10", "validation HR@10", "seconds"}
    progress = RunHeader.read(uninterrupted).progress
    best = max(lines, key=lambda line: line["validation nDCG@10"])
    assert progress["finished"] is True
    assert progress["best_epoch"] == best["epoch"]
    assert progress["validation nDCG@10"] == best["validation nDCG@10"]
    assert progress["epochs"] == 3
    assert (uninterrupted / "learning-curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_bytes(
    small_shop: Dataset, regime: Regime, uninterrupted: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # what was drawn before does not matter
    np.random.default_rng(99)
    again = run_to_the_end(small_shop, recipe_of(regime), tmp_path / "again")
    assert_same_run(again, uninterrupted)
    other = run_to_the_end(small_shop, recipe_of(regime, epochs=1).with_seed(1), tmp_path / "other")
    assert records(other)[0]["loss"] != records(uninterrupted)[0]["loss"]


@pytest.mark.parametrize(
    ("seconds", "crash"),
    [(1e9, (0, 3)), (1e9, (2, 2)), (-1.0, (0, 1)), (-1.0, (1, 4))],
    ids=["before any checkpoint", "after an epoch's checkpoint", "after the first step", "in the midst of an epoch"],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    small_shop: Dataset, regime: Regime, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    seconds: float, crash: tuple[int, int],
) -> None:  # fmt: skip
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)

    def step(epoch: int, step: int, steps: int) -> None:
        assert steps > 4
        if (epoch, step) == crash:
            raise InterruptedHereError

    folder = tmp_path / "run"
    with pytest.raises(InterruptedHereError):
        start_run(small_shop, recipe_of(regime), folder, device=CPU, observer=Observer(step=step))
    assert not RunHeader.read(folder).progress["finished"]
    if seconds < 0 and crash[1] > 1:  # the checkpoint is of the step before the crash
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            saved = json.loads(file.metadata()["progress"])
        assert (saved["epoch"], saved["step"]) == (crash[0], crash[1] - 1)
    resume_run(folder, None, device=CPU, observer=Observer())
    assert_same_run(folder, uninterrupted)


def test_twice_interrupted_at_the_worst_moments(
    small_shop: Dataset, regime: Regime, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a new best model and its checkpoint, and between the last checkpoint and the finished header."""
    folder = tmp_path / "run"

    def epoch(record: dict[str, float]) -> None:
        if record["epoch"] == 2:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        start_run(small_shop, recipe_of(regime), folder, device=CPU, observer=Observer(epoch=epoch))
    assert [line["epoch"] for line in records(folder)] == [1, 2]

    def fail(*_: object) -> None:
        raise InterruptedHereError

    with monkeypatch.context() as patch:
        patch.setattr("lsan.experiment.learning_curve", fail)
        with pytest.raises(InterruptedHereError):
            resume_run(folder, small_shop, device=CPU, observer=Observer())
    assert (folder / CHECKPOINT).exists()
    resume_run(folder, small_shop, device=CPU, observer=Observer(step=fail))  # nothing is left to train
    assert_same_run(folder, uninterrupted)
    resume_run(folder, None, device=CPU, observer=Observer(step=fail))  # finished: nothing happens
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize("quantisation", [None, {"weights": 4, "table": 8}])
@pytest.mark.parametrize("regime", ["prefix", "causal"])
def test_batches_in_pieces_train_alike(
    small_shop: Dataset, tmp_path: Path, regime: Regime, quantisation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, which each piece draws for itself."""
    content = recipe_to(recipe_of(regime, epochs=2))
    content["model"] |= {"dropout": 0.0, "quantisation": quantisation}
    losses = {}
    for positions in (1_000_000, 60):
        monkeypatch.setitem(loop.PIECE, "cpu", positions)
        folder = tmp_path / str(positions)
        start_run(small_shop, recipe_from(content, where="here"), folder, device=CPU, observer=Observer())
        losses[positions] = [json.loads(line)["loss"] for line in (folder / METRICS).read_text().splitlines()]
    assert losses[60] == pytest.approx(losses[1_000_000], rel=1e-4)
    assert losses[60] != losses[1_000_000]  # sums in another order


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_killed_process_is_resumed_by_another(small_shop: Dataset, tmp_path: Path, name: str) -> None:
    """`lsan train` dies of a real signal in the second epoch; `lsan train --resume` finishes its work."""
    recipe = recipe_of("causal")
    (tmp_path / "recipe.toml").write_text(toml(recipe_to(recipe)))
    program = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
from lsan.cli import main
from lsan.training import loop
loop.CHECKPOINT_SECONDS, steps, step = -1.0, [], loop._update
def step_or_die(*arguments):
    steps.append(1)
    if len(steps) == 16:
        os.kill(os.getpid(), signal.{name})
    return step(*arguments)
loop._update = step_or_die
sys.exit(main(sys.argv[1:]))
"""
    folder = tmp_path / "run"
    arguments = [
        "train", str(small_shop.path), "--recipe", str(tmp_path / "recipe.toml"), "--out", str(folder),
        "--threads", "1", "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    if name == "SIGKILL":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130
        assert done.stderr.endswith("lsan: interrupted\n")
        assert f"lsan train --resume {folder}" in done.stderr
        assert done.stderr.count("\n") == 2
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        saved = json.loads(file.metadata()["progress"])
    assert saved["epoch"] == 1
    assert saved["step"] > 0
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from lsan.cli import main; sys.exit(main(sys.argv[1:]))",
         "train", "--resume", str(folder), "--threads", "1", "--device", "cpu"],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"written to {folder}" in done.stdout
    assert_same_run(folder, run_to_the_end(small_shop, recipe, tmp_path / "uninterrupted"))


def toml(table: dict[str, Any], name: str = "") -> str:
    """As much of TOML as a recipe needs."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [
        f"{key} = {json.dumps(value)}\n" for key, value in table.items() if key not in tables and value is not None
    ]
    heads = [f"[{name}{key}]\n{toml(value, f'{name}{key}.')}" for key, value in tables.items()]
    return "".join(lines + heads)


class Scripted:
    """Hooks whose validation figures are given."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.kept, self.history = list(figures), list[int](), list[dict[str, float]]()

    def validate(self, network: Network) -> dict[str, float]:
        assert not network.training
        return {"nDCG@10": self.figures[len(self.history)]}

    def record(self, history: list[dict[str, float]]) -> None:
        self.history = list(history)

    def hooks(self) -> Hooks:
        return Hooks(
            validate=self.validate,
            keep=lambda _: self.kept.append(len(self.history) + 1),
            record=self.record,
            step=lambda *_: None,
        )


def untrained(recipe: Recipe, dataset: Dataset) -> Network:
    items = len(dataset.catalogue)
    categories, popularity = torch.zeros(items + 1, dtype=torch.int32), torch.zeros(items, dtype=torch.int64)
    return Network(recipe.model, categories, popularity, torch.arange(items), dataset.users)


def train_scripted(
    dataset: Dataset, recipe: Recipe, folder: Path, script: Scripted, network: Network | None = None
) -> Progress:
    split = leave_one_out(dataset)
    network = network or untrained(recipe, dataset)
    return train(
        network, dataset, split, HistoryReader(dataset, recipe.model.history, timed=False, known_items=None),
        recipe, device=CPU, checkpoint=folder / "checkpoint", hooks=script.hooks(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "epochs", "best", "kept"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 4, 2, [1, 2]),  # two epochs without a better one
        ([0.1, 0.3, 0.2, 0.4, 0.4, 0.4, 0.9], 6, 4, [1, 2, 4]),  # equal is not better
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 8, 8, [1, 2, 3, 4, 5, 6, 7, 8]),  # as many as allowed
        ([0.0, 0.0, 0.0], 3, 1, [1]),  # a model is kept even if it never hits
    ],
)
def test_early_stopping(
    make_dataset: MakeDataset, tmp_path: Path, figures: list[float], epochs: int, best: int, kept: list[int]
) -> None:
    dataset = make_dataset([[1, 2, 3, 4], [2, 3, 4, 1]])
    script = Scripted(*figures)
    progress = train_scripted(dataset, recipe_of("causal", epochs=8, patience=2), tmp_path, script)
    assert (progress.epoch, progress.best_epoch, progress.best) == (epochs, best, max(figures[:epochs]))
    assert script.kept == kept
    assert [record["epoch"] for record in script.history] == list(range(1, epochs + 1))


def test_the_recorded_loss_is_the_mean_over_targets(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """At a step size of nothing, and without dropout, it is the loss of the first weights."""
    dataset = make_dataset([[1, 2, 3, 4, 5, 1, 2, 3], [2, 3, 4], [5, 4, 3, 2, 1]])
    recipe = recipe_of("prefix", epochs=1)
    recipe = msgspec.structs.replace(
        recipe,
        model=msgspec.structs.replace(recipe.model, dropout=0.0),
        training=msgspec.structs.replace(recipe.training, batch_size=3, learning_rate=1e-12, weight_decay=0.0),
    )
    network = untrained(recipe, dataset)
    split = leave_one_out(dataset)
    losses = []
    for start, stop in zip(split.train_start, split.train_stop, strict=True):
        for target in range(int(start) + 1, int(stop)):
            prefix = torch.from_numpy(dataset.items[int(start) : target].astype(np.int64))[None]
            with torch.no_grad():
                scores = network.eval().scores(Histories.of_items(prefix))
            losses.append(-scores[0].log_softmax(0)[int(dataset.items[target]) - 1].item())
    assert len(losses) == 7
    script = Scripted(0.5)
    train_scripted(dataset, recipe, tmp_path, script, network)
    assert script.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_loss_that_explodes_is_named(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset([[1, 2, 3, 4]] * 40)
    recipe = Recipe(
        model=ModelConfig(regime="causal", width=8, encoder=TwinAttentionConfig(residual=False)),
        training=TrainingConfig(learning_rate=1e30, batch_size=2),
    )
    with pytest.raises(DataError, match=r"lower training\.learning_rate"):
        train_scripted(dataset, recipe, tmp_path, Scripted(*[0.0] * 9))


def test_weights_that_explode_in_the_only_step_are_named(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """The loss of an epoch's last step is taken before its update, so validation is what meets the result."""
    dataset = make_dataset([[1, 2, 3, 4, 5]] * 4)
    recipe = Recipe(
        model=ModelConfig(regime="causal", width=8, encoder=TwinAttentionConfig(residual=False)),
        training=TrainingConfig(learning_rate=1e30, batch_size=100),
    )
    with pytest.raises(DataError, match="not a number"):
        start_run(dataset, recipe, tmp_path / "run", device=CPU, observer=Observer())


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_the_share_of_events_that_is_masked(share: float) -> None:
    torch.manual_seed(0)
    present = torch.arange(50) >= torch.randint(0, 50, (2000, 1))
    masked = _mask(present, share)
    assert not (masked & ~present).any()
    assert masked.any(1).all()  # every history has something to guess
    events = present.sum(1)
    expected = share * events + (1 - share) ** events  # and the last one where chance chose none
    assert float(masked.sum()) == pytest.approx(float(expected.sum()), rel=0.03)
    rare = _mask(present, 1e-9)
    assert torch.equal(rare.sum(1), torch.ones(2000, dtype=torch.int64))
    assert rare[:, -1].all()


def test_named_streams() -> None:
    seeds = [stream(0, "weights"), stream(1, "weights")]
    seeds += [
        stream(0, name, *place) for name in ("order", "dropout") for place in ((1,), (2,), (1, 2), (2, 1), (3, 3))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream(0, "order", 1) == stream(0, "order", 1)


@pytest.mark.parametrize("averaging", [0.0, 0.15, 0.998])
def test_the_average_by_hand(make_dataset: MakeDataset, tmp_path: Path, averaging: float) -> None:
    """What is validated and kept: after step t it moves by 1 - min(averaging, t / (t + 9)) towards the weights."""
    dataset = make_dataset([[1, 2, 3, 4, 5, 1, 2, 3], [2, 3, 4], [5, 4, 3, 2, 1]])
    recipe = recipe_of("prefix", epochs=1)
    training = msgspec.structs.replace(recipe.training, batch_size=3, averaging=averaging)
    recipe = msgspec.structs.replace(recipe, training=training)
    network = untrained(recipe, dataset)
    weights = [network.table.weight.detach().clone()]
    kept = list[torch.Tensor]()
    hooks = Hooks(
        validate=lambda _: {"nDCG@10": 0.5},
        keep=lambda network: kept.append(network.table.weight.detach().clone()),
        record=lambda _: None,
        step=lambda *_: weights.append(network.table.weight.detach().clone()),
    )
    reader = HistoryReader(dataset, recipe.model.history, timed=False, known_items=None)
    train(
        network, dataset, leave_one_out(dataset), reader, recipe, device=CPU, checkpoint=tmp_path / "c", hooks=hooks
    )  # fmt: skip
    assert len(weights) == 4  # seven targets, three a step
    expected = weights[0]
    for step, trained in enumerate(weights[1:], start=1):
        decay = min(averaging, step / (step + 9))
        expected = decay * expected + (1 - decay) * trained
    assert len(kept) == 1
    torch.testing.assert_close(kept[0], expected)
    assert torch.equal(kept[0], weights[-1]) == (averaging == 0)


def test_a_falling_step_size(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """Adam's steps are at most about as large as the step size, which falls from its full value to 0."""
    dataset = make_dataset([[1, 2, 3, 4, 5, 1, 2, 3], [2, 3, 4], [5, 4, 3, 2, 1]])
    recipe = recipe_of("prefix", epochs=2)
    training = msgspec.structs.replace(recipe.training, batch_size=3, decay="linear", learning_rate=0.01)
    recipe = msgspec.structs.replace(recipe, training=training)
    network = untrained(recipe, dataset)
    weights = [network.table.weight.detach().clone()]
    hooks = Hooks(
        validate=lambda _: {"nDCG@10": 0.5},
        keep=lambda _: None,
        record=lambda _: None,
        step=lambda *_: weights.append(network.table.weight.detach().clone()),
    )
    reader = HistoryReader(dataset, recipe.model.history, timed=False, known_items=None)
    train(
        network, dataset, leave_one_out(dataset), reader, recipe, device=CPU, checkpoint=tmp_path / "c", hooks=hooks
    )  # fmt: skip
    changes = [float((after - before).abs().max()) for before, after in pairwise(weights)]
    assert len(changes) == 6
    assert changes[0] == pytest.approx(0.01, rel=0.01)
    for step, change in enumerate(changes):
        assert 0 < change < 1.5 * 0.01 * (1 - step / 6)


def test_training_in_float32_reads_a_temporal_split(small_shop: Dataset, tmp_path: Path) -> None:
    recipe = recipe_of("causal", epochs=1)
    recipe = msgspec.structs.replace(recipe, split=msgspec.structs.replace(recipe.split, method="temporal"))
    folder = run_to_the_end(small_shop, recipe, tmp_path / "run")
    assert all(
        tensor.dtype in (torch.float32, torch.int32, torch.bool) for tensor in load_file(folder / MODEL).values()
    )
    assert len(records(folder)) == 1
