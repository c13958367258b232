"""How an item index becomes a vector, and how a vector becomes a score for every item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

#: How far the vector of a new item is made as long as those of the items it is like; 1: wholly (docs/log.md).
LENGTH = 0.8


class Codes(nn.Module):
    """Which row of each base table an item uses. All tables' rows are numbered through: table n begins at offset n.

    Derived from the numbers and radices of the table, so nothing of it is saved with a model.
    """

    rows: Tensor
    items_in_row_order: Tensor
    bag_starts: Tensor

    def __init__(self, rows: Int[Tensor, "items tables"], total_rows: int) -> None:
        super().__init__()
        flat = rows.flatten()
        pairs = flat.argsort(stable=True)
        # what bincount counts, but also on the meta device
        uses = torch.zeros(total_rows, dtype=torch.int64, device=flat.device).index_add_(0, flat, torch.ones_like(flat))
        self.register_buffer("rows", rows, persistent=False)
        # the transpose: for each row, the items that use it
        self.register_buffer("items_in_row_order", pairs // rows.shape[1], persistent=False)
        self.register_buffer("bag_starts", uses.cumsum(0) - uses, persistent=False)

    def spread(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "items columns"]:
        """For each item the sum of its rows."""
        return F.embedding_bag(self.rows, rows, mode="sum")

    def collect(
        self, items: Float[Tensor, "items columns"], factors: Float[Tensor, " items"] | None = None
    ) -> Float[Tensor, "rows columns"]:
        """For each row the sum over the items that use it, each times its factor: the transpose of `spread`."""
        return F.embedding_bag(
            self.items_in_row_order,
            items,
            self.bag_starts,
            mode="sum",
            per_sample_weights=None if factors is None else factors[self.items_in_row_order],
        )


@dataclass(frozen=True, kw_only=True)
class OutputFactors:
    """Scores of all items without a V x D matrix: `score(v) = sum_n (E_n z)[code_n(v)] + bias(v)` (equation 8 of
    docs/model.md)."""

    weight: Float[Tensor, "rows part"]
    """Rows of all base tables, one table after the other."""
    codes: Codes | None
    """Rows of each item; None when item v simply has row v - 1."""
    bias: Float[Tensor, " items"]
    """One number an item."""
    slices: int = 1
    """More than 1: the width is cut into so many parts, and there is one base table for each, whose rows are as wide as
    the part and score that part of the hidden vector alone (product quantisation)."""

    def scores(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, "batch items"]:
        """Scores of the items 1..V (column v - 1)."""
        rows = row_scores(self.weight, hidden.T, self.slices)
        items = rows if self.codes is None else self.codes.spread(rows)
        return (items + self.bias[:, None]).T.contiguous()

    def scores_of(
        self, hidden: Float[Tensor, "batch width"], items: Int[Tensor, "batch chosen"]
    ) -> Float[Tensor, "batch chosen"]:
        """Scores of some of the items 1..V, other ones for each row of the batch."""
        vectors: Tensor = self._vectors(items.flatten()).unflatten(0, items.shape)
        return (vectors * hidden[:, None]).sum(-1) + self.bias[items - 1]

    def only(self, items: Int[Tensor, " chosen"]) -> "OutputFactors":
        """The factors of some of the items 1..V alone; their `scores` are in the order of `items`."""
        return OutputFactors(weight=self._vectors(items), codes=None, bias=self.bias[items - 1])

    def _vectors(self, items: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen width"]:
        if self.codes is None:
            return self.weight[items - 1]
        return item_vectors(self.codes.rows[items - 1], self.weight, self.slices)


def mixtures(
    vectors: Float[Tensor, "items width"], weights: Sequence[Mapping[int, float]]
) -> Float[Tensor, "new width"]:
    """Weighted sums of the vectors of some items 1..V, given as weight by item."""
    sums = []
    for of_items in weights:
        share = torch.tensor(list(of_items.values()), dtype=vectors.dtype)
        sums.append(share @ vectors[torch.tensor(list(of_items)) - 1])
    return torch.stack(sums)


def vectors_like(
    vectors: Float[Tensor, "items width"], weights: Sequence[Mapping[int, float]]
) -> Float[Tensor, "new width"]:
    """`mixtures`, made longer: a mean is shorter than what it is made of, and a short vector is never recommended. Not
    made as long as the others are on average, as then new items would crowd out those that are known better."""
    mixed = mixtures(vectors, weights)
    lengths = mixtures(vectors.norm(dim=1, keepdim=True), weights)
    stretch: Tensor = (lengths / mixed.norm(dim=1, keepdim=True).clamp(min=1e-12)) ** LENGTH
    return mixed * stretch


def biases_like(bias: Float[Tensor, " items"], weights: Sequence[Mapping[int, float]]) -> Float[Tensor, " new"]:
    """Of the biases that there are, those nearest to weighted means: rounded ones, which have one scale in common,
    keep it."""
    there = bias.unique()
    wanted = mixtures(bias[:, None], weights)[:, 0]
    chosen: Tensor = there[torch.bucketize(wanted, (there[1:] + there[:-1]) / 2)]
    return chosen


def item_vectors(
    rows: Int[Tensor, "*items tables"], weight: Float[Tensor, "rows part"], slices: int
) -> Float[Tensor, "*items width"]:
    """The vector of each item: the sum of its rows, or, where the width is cut into slices, its rows side by side."""
    if slices > 1:
        return F.embedding(rows, weight).flatten(-2)
    sums: Tensor = F.embedding_bag(rows.flatten(0, -2), weight, mode="sum").unflatten(0, rows.shape[:-1])
    return sums


def row_scores(
    weight: Float[Tensor, "rows part"], hidden: Float[Tensor, "width batch"], slices: int
) -> Float[Tensor, "rows batch"]:
    """Each row times its slice of the hidden vectors."""
    if slices == 1:
        return weight @ hidden
    return torch.bmm(weight.unflatten(0, (slices, -1)), hidden.unflatten(0, (slices, -1))).flatten(0, 1)
