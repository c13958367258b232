"""Data-parallel training: two processes that `torchrun` starts do what one does, write one run, and can be resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsan.config import load_recipe
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.errors import ConfigError
from lsan.experiment import Observer, start_run
from lsan.runs import METRICS, RunHeader, load_run
from lsan.training.batches import training_examples
from lsan.training.parallel import (
    add_over_workers,
    from_first_worker,
    join_workers,
    leave_workers,
    wait_for_all,
    worker,
    workers,
)

CPU = torch.device("cpu")

#: `lsan train` stops in the second epoch, and `lsan train --resume` goes on with it. The clock of only one process says
#: that it is time for a checkpoint.
PROGRAM = """
import os, sys
from lsan.cli import main
from lsan.training import loop
from lsan.training.parallel import wait_for_all

loop.CHECKPOINT_SECONDS = -1.0 if os.environ["RANK"] == "0" else 1e9
dataset, recipe, run, stop = sys.argv[1:]
steps, update = [], loop._update

class StoppedHereError(Exception):
    pass

def update_or_stop(*arguments):
    steps.append(1)
    if len(steps) == int(stop):
        raise StoppedHereError
    return update(*arguments)

loop._update = update_or_stop
try:
    main(["train", dataset, "--recipe", recipe, "--out", run, "--device", "cpu"])
except StoppedHereError:
    wait_for_all()  # until the checkpoint is whole, as a process that is started anew would find it
    with open(os.path.join(run, "stopped-" + os.environ["RANK"]), "x"):
        pass
    sys.exit(main(["train", "--resume", run, "--device", "cpu"]))
"""


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


RECIPE = """
[model]
width = 8
history = 12
dropout = 0.0
[model.encoder]
kind = "gru4rec"
[model.context]
[training]
batch_size = {}
learning_rate = 1e-2
epochs = 3
precision = "float32"
"""


def test_two_processes_train_as_one_does_and_go_on_after_a_stop(small_shop: Dataset, tmp_path: Path) -> None:
    examples = len(training_examples(leave_one_out(small_shop), "causal", 12))
    # the last batch is one example, so that one of the processes gets nothing of it
    batch_size = next(size for size in range(20, examples) if examples % size == 1)
    steps = examples // batch_size + 1
    path, alone, run = tmp_path / "recipe.toml", tmp_path / "alone", tmp_path / "run"
    path.write_text(RECIPE.format(batch_size))
    start_run(small_shop, load_recipe(path), alone, device=CPU, observer=Observer())

    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone",
         str(tmp_path / "program.py"), str(small_shop.path), str(path), str(run), str(steps + 2)],
        capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for process in range(2):
        (run / f"stopped-{process}").unlink()
    *epochs, last = done.stdout.splitlines()
    assert [line[:9] for line in epochs] == ["epoch   1", "epoch   2", "epoch   3"]  # each once
    assert last.startswith("best epoch ")
    assert last.endswith(f"written to {run}")

    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in alone.iterdir())
    for one, two in zip(records(alone), records(run), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for name in ("validation nDCG@10", "validation HR@10"):
            assert two[name] == pytest.approx(one[name], rel=1e-12)
    headers = [RunHeader.read(folder).progress for folder in (alone, run)]
    assert headers[0]["best_epoch"] == headers[1]["best_epoch"]
    weights = [load_run(folder, device=CPU).network.state_dict() for folder in (alone, run)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_half_of_what_torchrun_sets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE, but no RANK and no LOCAL_RANK .*: start with torchrun"):
        join_workers(CPU)


def test_one_process_is_the_plain_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if world is not None:
            monkeypatch.setenv("WORLD_SIZE", world)  # torchrun with one process
        assert join_workers(CPU) == CPU
        assert (worker(), workers()) == (0, 1)
        number = torch.tensor([2.5])
        add_over_workers([number])
        assert number.tolist() == [2.5]
        assert from_first_worker(0.25, CPU) == 0.25
        wait_for_all()
        leave_workers()
