"""One vector for every item."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.models.item_tables import OutputFactors, biases_like, vectors_like
from lsan.models.item_tables.turned import TurnedTable, first_turn

#: Standard deviation of the first weights: small, so that the tied scores begin nearly equal.
INITIAL = 0.02


class FullTable(TurnedTable):
    """A plain embedding table `[V, D]`, or a narrower one with a matrix behind it; tied with the output."""

    def __init__(self, items: int, width: int, item_width: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(items, item_width or width) * INITIAL)
        self.bias = nn.Parameter(torch.zeros(items))
        self.turn = None if item_width is None else nn.Parameter(first_turn(item_width, width))

    def forward(
        self, items: Int[Tensor, "batch time"], context: Float[Tensor, "batch time width"] | None
    ) -> Float[Tensor, "batch time width"]:
        """The vector of each item, whatever the context. That of padding (item 0) is some item's: mask it."""
        return self._turned(F.embedding((items - 1).clamp(min=0), self.weight))

    def extended(self, weights: Sequence[Mapping[int, float]]) -> dict[str, Tensor]:
        """The state with more items, each of which is like some known ones (weight by item 1..V)."""
        return {
            "weight": torch.cat([self.weight, vectors_like(self.weight, weights)]),
            "bias": torch.cat([self.bias, biases_like(self.bias, weights)]),
        }

    def output(self) -> OutputFactors:
        """The same table as the output layer, for hidden vectors that `facing` has turned."""
        return OutputFactors(weight=self.weight, codes=None, bias=self.bias)
