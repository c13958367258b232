"""Distillation: what a teacher says of each training target, kept in files that training maps into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lsan.config import Regime
from lsan.data.dataset import Dataset
from lsan.data.windows import HistoryReader, IntArray
from lsan.models.item_tables import OutputFactors
from lsan.models.network import Network
from lsan.training.batches import Examples, hidden_at_targets, read_batch, target_events

_FILES = ("items.npy", "shares.npy")

_BATCH = 256


@dataclass(frozen=True)
class Teaching:
    """The teacher's word on every event that is a training target."""

    items: npt.NDArray[np.int32]
    """Its most probable items at each event of the dataset. Shape [events, top]."""
    shares: npt.NDArray[np.float16]
    """Their probabilities, scaled to a sum of 1; all 0 where the event is no training target. Shape [events, top]."""

    @classmethod
    def open(cls, folder: Path) -> "Teaching":
        """Map what `teach` wrote."""
        items, shares = (np.load(folder / name, mmap_mode="r") for name in _FILES)
        return cls(items=items, shares=shares)

    def of(self, events: IntArray) -> tuple[Int[Tensor, "targets top"], Float[Tensor, "targets top"]]:
        """Items and shares at these events."""
        return torch.from_numpy(self.items[events].astype(np.int64)), torch.from_numpy(self.shares[events]).float()


def teach(
    teachers: Sequence[tuple[Network, float]],
    dataset: Dataset,
    examples: Examples,
    reader: HistoryReader,
    regime: Regime,
    top: int,
    folder: Path,
    *,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    """Write the `top` most probable items of each training target for `Teaching.open`. `teachers` come with the
    temperature of their own loss; several are one: the geometric mean of their probabilities. `progress` is called with
    (examples done, examples)."""
    top = min(top, len(dataset.catalogue))
    maps = [
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=(dataset.events, top))
        for name, dtype in zip(_FILES, (np.int32, np.float16), strict=True)
    ]
    order = np.argsort(reader.lengths(examples.start, examples.stop), kind="stable")
    for begin in range(0, len(order), _BATCH):
        batch = order[begin : begin + _BATCH]
        histories, targets = read_batch(reader, dataset.items, examples, batch, regime)
        histories, events = histories.to(device), target_events(examples, batch, histories.items.shape[1], regime)
        with torch.inference_mode():
            scores = torch.zeros((), device=device)
            for teacher, temperature in teachers:
                hidden = hidden_at_targets(teacher, histories, targets.to(device))
                scores = scores + teacher.output().scores(hidden.float()) / (temperature * len(teachers))
            best = scores.topk(top, dim=1)
            events = events[(targets > 0).numpy()]
            maps[0][events] = (best.indices + 1).cpu().numpy()
            maps[1][events] = best.values.softmax(1).cpu().numpy()
        progress(begin + len(batch), len(order))
    for file in maps:
        file.flush()


class _WeightedScores(torch.autograd.Function):
    """Sum over positions and their chosen items 0..V-1 of `share * (w . h + b)`, in the memory of one vector a position
    and one an item. It is linear in the scores, so the gradients by `hidden`, `weight` and `bias` are sums that need no
    gradient from above, and are formed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, items: Tensor, shares: Tensor) -> Tensor:
        chosen, share = items.flatten(), shares.flatten()
        by_hidden = F.embedding_bag(items, weight, mode="sum", per_sample_weights=shares)
        order, counts = chosen.argsort(), chosen.bincount(minlength=len(weight))
        by_weight = F.embedding_bag(
            order // items.shape[1], hidden, counts.cumsum(0) - counts, mode="sum", per_sample_weights=share[order]
        )
        by_bias = torch.zeros_like(bias).index_add_(0, chosen, share)
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return (by_hidden * hidden).sum() + by_bias @ bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None, None)


_weighted_scores: Callable[..., Tensor] = _WeightedScores.apply


def teachers_loss(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    items: Int[Tensor, "positions top"],
    shares: Float[Tensor, "positions top"],
) -> Float[Tensor, ""]:
    """What to add to a cross-entropy, times the teacher's weight w: its target is then (1 - w) the item that came next
    and w the teacher's distribution (Hinton et al. 2015, section 2, at temperature 1). First derivatives only."""
    items = torch.cat([targets[:, None], items], dim=1)
    shares = torch.cat([-torch.ones_like(shares[:, :1]), shares], dim=1)
    named = torch.zeros(len(output.bias) + 1, dtype=torch.bool, device=items.device)
    named[items] = True
    output, places = output.only(named.nonzero()[:, 0]), (named.cumsum(0) - 1)[items]
    return -_weighted_scores(hidden, output.weight, output.bias, places, shares) / len(targets)
