"""Data-parallel training: what several processes that `torchrun` started share; one process alone is the plain case."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from lsan.errors import ConfigError


def join_workers(device: torch.device) -> torch.device:
    """Join the processes that `torchrun` started, if it did. Returns the device of this one.

    Raises:
        ConfigError: when the environment has a part only of what `torchrun` sets.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return device
    if missing := [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ConfigError(
            f"the environment has WORLD_SIZE, but no {' and no '.join(missing)}: start with torchrun, or unset it"
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave_workers() -> None:
    """The opposite of `join_workers`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def workers() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def worker() -> int:
    """The number of this process, 0 for the one that validates and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Return when every process is here."""
    if dist.is_initialized():
        dist.barrier()


def add_over_workers(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if not dist.is_initialized():
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def from_first_worker(value: float, device: torch.device) -> float:
    """The value that process 0 has."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)
