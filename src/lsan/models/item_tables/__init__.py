"""How an item index becomes a vector, and how a vector becomes a score for every item."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


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

    weight: Float[Tensor, "rows width"]
    """Rows of all base tables, one table after the other."""
    codes: Codes | None
    """Rows of each item; None when item v simply has row v - 1."""
    bias: Float[Tensor, " items"]
    """One number an item."""

    def scores(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, "batch items"]:
        """Scores of the items 1..V (column v - 1)."""
        rows = self.weight @ hidden.T
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
        return F.embedding_bag(self.codes.rows[items - 1], self.weight, mode="sum")
