"""The state of an unfinished training, in one safetensors file: weights, their average, moments, and how far it is."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lsan.errors import DataError
from lsan.files import write_atomically


@dataclass(kw_only=True)
class Progress:
    """How far a training is. Everything that the continuation depends on besides tensors."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps completed in the epoch under way."""
    updates: int = 0
    """Steps completed in all epochs."""
    loss_sum: float = 0.0
    """Sum of the losses of those steps, each times its targets."""
    targets: int = 0
    """Targets of those steps."""
    best: float = -1.0
    """Best validation nDCG@10."""
    best_epoch: int = 0
    """The epoch (1, 2, ...) that reached it; 0: what training began with."""
    seconds: float = 0.0
    """Seconds spent training and validating, over all sessions."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One record an epoch, as in metrics.jsonl."""


def save_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write atomically: a kill leaves the old checkpoint or the new one."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"progress": json.dumps(asdict(progress))}))


def load_checkpoint(path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put the saved state into a network, its average and an optimiser of the same shape.

    Raises:
        DataError: when the file is damaged or belongs to another model.
    """
    weights: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}}
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a dict
                part, _, rest = name.partition(".")
                if part in weights:
                    weights[part][rest] = file.get_tensor(name)
                else:
                    number, _, moment = rest.partition(".")
                    moments.setdefault(int(number), {})[moment] = file.get_tensor(name)
        progress = Progress(**json.loads(metadata["progress"]))
        network.load_state_dict(weights["network"])
        average.load_state_dict(weights["average"])
        groups: dict[str, Any] = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a usable checkpoint ({reason}); train again from the start") from error
    return progress
