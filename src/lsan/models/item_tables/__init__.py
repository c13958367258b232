"""How an item index becomes a vector, and how a vector becomes a score for every item."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn


class Codes(nn.Module):
    """Which row of each base table an item uses. All tables' rows are numbered through: table n begins at offset n.

    Derived from the numbers and radices of the table, so nothing of it is saved with a model.
    """

    rows: Tensor
    items_in_row_order: Tensor
    bag_starts: Tensor

    def __init__(self, rows: Int[Tensor, "items tables"], total_rows: int) -> None:
        super().__init__()
        pairs = rows.flatten().argsort(stable=True)
        uses = rows.flatten().bincount(minlength=total_rows)
        self.register_buffer("rows", rows, persistent=False)
        # the transpose: for each row, the items that use it
        self.register_buffer("items_in_row_order", pairs // rows.shape[1], persistent=False)
        self.register_buffer("bag_starts", uses.cumsum(0) - uses, persistent=False)

    def spread(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "items columns"]:
        """For each item the sum of its rows."""
        return nn.functional.embedding_bag(self.rows, rows, mode="sum")

    def collect(self, items: Float[Tensor, "items columns"]) -> Float[Tensor, "rows columns"]:
        """For each row the sum over the items that use it: the transpose of `spread`."""
        return nn.functional.embedding_bag(self.items_in_row_order, items, self.bag_starts, mode="sum")


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
