"""Distillation: what a teacher says of each training target, kept in files that training maps into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

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


def teachers_loss(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    items: Int[Tensor, "positions top"],
    shares: Float[Tensor, "positions top"],
) -> Float[Tensor, ""]:
    """What to add to a cross-entropy, times the teacher's weight w: its target is then (1 - w) the item that came next
    and w the teacher's distribution (Hinton et al. 2015, section 2, at temperature 1)."""
    own = output.scores_of(hidden, targets[:, None])[:, 0]
    return (own - (output.scores_of(hidden, items) * shares).sum(1)).mean()
