"""Training examples in shuffled batches of similar length, so that little is computed on padding."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsan.config import Regime
from lsan.data.splits import Split
from lsan.data.windows import HistoryReader, IntArray
from lsan.models.histories import Histories
from lsan.models.network import Network

#: Batches that are sorted by length together. Examples are shuffled before and batches after, so that only examples
#: of one group can be neighbours by length; more groups shuffle better, larger groups pad less.
GROUP = 64


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What one epoch goes through. Prefix regime: a prefix and the event after it. Causal: a history whose every event
    has the one after it as target. Cloze: a history, some of whose own events become targets."""

    user: IntArray
    """User number 1..U. Shape [examples]."""
    start: IntArray
    """First event read. Shape [examples]."""
    stop: IntArray
    """One past the last event read; but for cloze, event `stop` is the last target. Shape [examples]."""

    def __len__(self) -> int:
        return len(self.stop)


def training_examples(split: Split, regime: Regime, history: int) -> Examples:
    """All examples of the training part. Users with fewer than two training events give none.

    Causal and cloze: a user with more than `history` targets gives several examples, cut from the latest event
    backwards. For cloze, an earliest event that would stand alone is left out.
    """
    start, stop = split.train_start, split.train_stop
    targets = np.maximum(stop - start - 1, 0)
    stride = 1 if regime == "prefix" else history
    pieces = -(-targets // stride)
    user = np.repeat(np.arange(len(start)), pieces)
    back = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    last = stop[user] - (regime != "cloze") - back * stride
    first = start[user] if regime == "prefix" else np.maximum(start[user], last - stride)
    return Examples(user=user + 1, start=first, stop=last)


def epoch_batches(lengths: IntArray, batch_size: int, random: np.random.Generator) -> list[IntArray]:
    """Every example once, as batches of example numbers: shuffled, grouped, sorted by length in each group, and the
    batches shuffled again."""
    order = random.permutation(len(lengths))
    batches = []
    for begin in range(0, len(order), batch_size * GROUP):
        group = order[begin : begin + batch_size * GROUP]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def in_pieces(batch: IntArray, lengths: IntArray, positions: int) -> list[IntArray]:
    """A batch in pieces of nearly equal size, each of at most so many positions, padding included, or one example."""
    most = max(1, positions // int(lengths[batch].max(initial=1)))
    return np.array_split(batch, max(1, -(-len(batch) // most)))


def read_batch(
    reader: HistoryReader, items: npt.NDArray[np.int32], examples: Examples, batch: IntArray, regime: Regime
) -> tuple[Histories, Int[Tensor, "batch time"] | Int[Tensor, " batch"]]:
    """Histories of a batch and their targets: [batch] in the prefix regime, else [batch, time] with 0 = none. In the
    cloze regime every event is its own target, and which of them are masked is drawn later; when the event after was is
    unknown there, as that one may be held out, or another user's."""
    start, stop = examples.start[batch], examples.stop[batch]
    histories = Histories.of(reader.read(start, stop), examples.user[batch])
    if regime == "prefix":
        return histories, torch.from_numpy(items[stop].astype(np.int64))
    if regime == "cloze":
        return replace(histories, asked=torch.full_like(histories.asked, -1)), histories.items
    return histories, torch.from_numpy(reader.read(start + 1, stop + 1).items)


def target_events(examples: Examples, batch: IntArray, time: int, regime: Regime) -> IntArray:
    """Which event of the dataset each target of `read_batch` is, in the shape of the targets, which are `time` wide.
    Not for the cloze regime; of no meaning where there is no target."""
    stop = examples.stop[batch]
    return stop if regime == "prefix" else stop[:, None] + np.arange(1 - time, 1)


def hidden_at_targets(
    network: Network, histories: Histories, targets: Int[Tensor, "batch time"] | Int[Tensor, " batch"]
) -> Float[Tensor, "positions width"]:
    """The vectors that should rank the targets of `read_batch` first, padding left out. Not for the cloze regime."""
    if targets.dim() == 1:
        return network.last_hidden(histories)
    return network.hidden(histories)[targets > 0]
