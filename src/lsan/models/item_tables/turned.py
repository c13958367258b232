"""What item tables with a matrix behind their vectors share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TurnedTable(nn.Module):
    """A table whose vectors one matrix turns, and widens to the width of the model where they are narrower: the
    factorised embedding of Lan et al. 2020 ("ALBERT", section 3.1), tied with the output."""

    turn: nn.Parameter | None
    """An item's vector is what the table holds for it times this. Shape [item width, width]; None: the same."""

    def facing(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch item_width"]:
        """Hidden vectors as `output` wants them: what the turn does to items is done to them instead."""
        return hidden if self.turn is None else hidden @ self.turn.T

    def _turned(self, vectors: Float[Tensor, "*batch item_width"]) -> Float[Tensor, "*batch width"]:
        return vectors if self.turn is None else vectors @ self.turn


def first_turn(item_width: int, width: int) -> Float[Tensor, "item_width width"]:
    """None of its own (the unit matrix), or orthogonal rows that keep the mean square of vectors' numbers."""
    if item_width == width:
        return torch.eye(width)
    columns, _ = torch.linalg.qr(torch.randn(width, item_width))
    rows: Tensor = columns.T.contiguous() * (width / item_width) ** 0.5
    return rows
