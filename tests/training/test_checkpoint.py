"""What a checkpoint keeps, and what is said of one that is damaged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsan.errors import DataError
from lsan.training.checkpoint import Progress, load_checkpoint, save_checkpoint


def trained_once(inputs: int = 3) -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network, average = torch.nn.Linear(inputs, 2), torch.nn.Linear(inputs, 2)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.randn(4, inputs)).sum().backward()
    optimizer.step()
    return network, average, optimizer


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    network, average, optimizer = trained_once()
    progress = Progress(epoch=2, step=5, loss_sum=1 / 3, targets=7, best=0.1, best_epoch=1, history=[{"epoch": 1}])
    save_checkpoint(tmp_path / "c", network, average, optimizer, progress)
    other, other_average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other_optimizer = torch.optim.AdamW(other.parameters(), fused=True)
    assert load_checkpoint(tmp_path / "c", other, other_average, other_optimizer) == progress
    for before, after in ((network, other), (average, other_average)):
        for name, tensor in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], tensor)
    states, expected = other_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert len(states) == len(expected) == 2
    for number, state in expected.items():
        assert state["exp_avg"].any()
        for name, tensor in state.items():
            assert torch.equal(states[number][name], tensor)


@pytest.mark.parametrize("damage", ["cut off", "not safetensors", "another model", "no progress", "absent"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    network, average, optimizer = trained_once()
    path = tmp_path / "c"
    save_checkpoint(path, network, average, optimizer, Progress())
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "not safetensors":
        path.write_bytes(b"{}")
    elif damage == "another model":
        network, average, optimizer = trained_once(4)
    elif damage == "no progress":
        save_file(load_file(path), path)
    else:
        path.unlink()
    with pytest.raises(DataError, match="not a usable checkpoint") as error:
        load_checkpoint(path, network, average, optimizer)
    assert "\n" not in str(error.value)
