"""Learnt codes: an item is a few rows of small tables (codebooks), chosen so that similar items share rows."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.models.item_tables import Codes, OutputFactors, biases_like, item_vectors, vectors_like
from lsan.models.item_tables.turned import TurnedTable, first_turn


@dataclass(frozen=True, kw_only=True)
class ItemCodes:
    """Codes and the rows that they name."""

    codes: Int[Tensor, "items tables"]
    """Row of each item 1..V (entry v - 1) in each table; no two items have the same code."""
    weight: Float[Tensor, "rows part"]
    """Rows of all tables, one table after the other."""
    turn: Float[Tensor, "item_width width"] | None
    """An item's vector is what its rows give times this matrix; None: the same."""

    def widened(self, turn: Float[Tensor, "item_width width"] | None) -> "ItemCodes":
        """The codes of vectors that are these times `turn`."""
        if turn is None:
            return self
        return replace(self, turn=turn if self.turn is None else self.turn @ turn)


class CodedTable(TurnedTable):
    """N tables of K rows; `codes[v - 1, n]` is item v's row in table n. Tied with the output.

    *Product* codes (Jegou et al. 2011): table n holds part n of the vectors, which are its parts side by side, turned
    by one matrix. *Additive* ones (residual quantisation, Chen et al. 2010): rows are as wide as the vectors, which are
    sums of rows. Under a context the rows are weighed as in LSAN (equation 3 of docs/model.md), times N, so that equal
    weights give the vectors without a context.
    """

    codes: Tensor

    def __init__(
        self, items: int, tables: int, rows: int, width: int, *, additive: bool, contextual: bool,
        item_width: int | None = None,
    ) -> None:  # fmt: skip
        """All codes are 0 until `start` or a saved state. At most 256 rows."""
        super().__init__()
        self.tables, self.rows = tables, rows
        self.slices = 1 if additive else tables
        self.weight = nn.Parameter(torch.zeros(tables * rows, (item_width or width) // self.slices))
        self.bias = nn.Parameter(torch.zeros(items))
        self.register_buffer("codes", torch.zeros(items, tables, dtype=torch.uint8))
        turned = not additive or item_width is not None
        self.turn = nn.Parameter(first_turn(item_width or width, width)) if turned else None
        self.attention = nn.Linear(width, width, bias=False) if contextual else None
        self._known: tuple[int, Codes] | None = None

    @torch.no_grad()
    def start(self, codes: ItemCodes) -> None:
        """Set codes, tables and turn."""
        self.codes.copy_(codes.codes)
        self.weight.copy_(codes.weight)
        if self.turn is not None and codes.turn is not None:
            self.turn.copy_(codes.turn)

    def forward(
        self, items: Int[Tensor, "batch time"], context: Float[Tensor, "batch time width"] | None
    ) -> Float[Tensor, "batch time width"]:
        """The vector of each item in its context. That of padding (item 0) is some item's: mask it."""
        return self._turned(self._compose(self._rows_of(items - 1), context))

    def output(self) -> OutputFactors:
        """The same tables as the output layer, for hidden vectors that `facing` has turned; no tensor of V x D
        numbers."""
        version = self.codes._version
        if self._known is None or self._known[0] != version or self._known[1].rows.device != self.codes.device:
            places = torch.arange(len(self.codes), device=self.codes.device)
            self._known = version, Codes(self._rows_of(places), self.tables * self.rows)
        return OutputFactors(weight=self.weight, codes=self._known[1], bias=self.bias, slices=self.slices)

    def extended(self, weights: Sequence[Mapping[int, float]]) -> dict[str, Tensor]:
        """The state with more items: each takes the free code nearest to the weighted sum of known ones (weight by item
        1..V), table by table. A component of a row counts as much as the turn makes of it."""
        tables = self.weight.view(self.tables, self.rows, -1)
        if self.turn is not None:
            sizes = self.turn.norm(dim=1)
            tables = tables * (sizes.view(self.slices, 1, -1) if self.slices > 1 else sizes)
        pieces = torch.stack([table[self.codes[:, n].long()] for n, table in enumerate(tables)])
        if self.slices > 1:
            side_by_side = pieces.transpose(0, 1).flatten(1)
            wanted = list(vectors_like(side_by_side, weights).unflatten(1, (self.tables, -1)).unbind(1))
            codes = torch.stack(
                [torch.cdist(part, table).argmin(1) for part, table in zip(wanted, tables, strict=True)], 1
            )
        else:
            left, chosen = vectors_like(pieces.sum(0), weights), []
            for table in tables:
                chosen.append(torch.cdist(left, table).argmin(1))
                left = left - table[chosen[-1]]
            codes = torch.stack(chosen, dim=1)
            wanted = [table[chosen[n]] + left for n, table in enumerate(tables)]
        known = [torch.cat([piece, part]) for piece, part in zip(pieces, wanted, strict=True)]
        return {
            "codes": distinct(torch.cat([self.codes.long(), codes]), tables, known).to(torch.uint8),
            "bias": torch.cat([self.bias, biases_like(self.bias, weights)]),
        }

    def _rows_of(self, places: Int[Tensor, "*places"]) -> Int[Tensor, "*places tables"]:
        """The rows of the items at these places (v - 1), all tables' numbered through: table n begins at n K."""
        return self.codes[places].long() + torch.arange(self.tables, device=self.codes.device) * self.rows

    def _compose(
        self, rows: Int[Tensor, "batch time tables"], context: Float[Tensor, "batch time width"] | None
    ) -> Float[Tensor, "batch time width"]:
        if context is None or self.attention is None:
            return item_vectors(rows, self.weight, self.slices)
        pieces = F.embedding(rows, self.weight)
        if self.slices == 1:
            keys = self.attention(pieces)
        else:  # as if each part stood in its place, with zeros around it
            columns = self.attention.weight.unflatten(1, (self.slices, -1))  # [width, tables, part]
            keys = torch.einsum("...np,dnp->...nd", pieces, columns)
        alpha = (F.silu(keys) * context[..., None, :]).sum(-1, keepdim=True).softmax(dim=-2)
        weighed = self.tables * alpha * pieces
        return weighed.sum(-2) if self.slices == 1 else weighed.flatten(-2)


def distinct(
    codes: Int[Tensor, "items tables"],
    tables: Float[Tensor, "tables rows part"],
    wanted: list[Float[Tensor, "items part"]],
) -> Int[Tensor, "items tables"]:
    """The same codes, but no two items with the same one: of those that share a code the first keeps it, and the others
    take the free codes that are nearest to what the second wants.

    Args:
        codes: row of each item in each table.
        tables: the rows.
        wanted: for each table, what its row should be for each item.

    Raises:
        ValueError: when there are more items than codes.
    """
    count, rows = tables.shape[:2]
    if rows**count < len(codes):
        raise ValueError(f"{count} tables of {rows} rows make {rows**count} codes, and there are {len(codes)} items")
    result = codes.clone()
    _, group = result.unique(dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    again = order[1:][group[order][1:] == group[order][:-1]]
    if len(again) == 0:
        return result
    taken = {bytes(code) for code in result.tolist()}
    for _, alike in groupby(again.tolist(), key=lambda item: int(group[item])):  # one search in memory at a time
        items = list(alike)
        costs = torch.stack(
            [(table - want[items[0]]).square().sum(1) for table, want in zip(tables, wanted, strict=True)]
        )
        free = (code for code in _nearest_first(costs) if code not in taken)
        chosen = list(islice(free, len(items)))
        taken.update(chosen)
        result[items] = torch.tensor([list(code) for code in chosen], dtype=result.dtype)
    return result


def _nearest_first(costs: Float[Tensor, "tables rows"]) -> Iterator[bytes]:
    """All codes by their sums of costs, the least first: each step goes one place down in one table's order."""
    ranked = costs.sort(dim=1, stable=True)
    cost, row = ranked.values.tolist(), ranked.indices.tolist()
    seen = {(0,) * len(cost)}
    heap = [(0.0, (0,) * len(cost))]
    while heap:
        _, places = heapq.heappop(heap)
        yield bytes(row[n][place] for n, place in enumerate(places))
        for n, place in enumerate(places):
            further = (*places[:n], place + 1, *places[n + 1 :])
            if place + 1 < len(cost[n]) and further not in seen:
                seen.add(further)
                heapq.heappush(heap, (sum(cost[m][where] for m, where in enumerate(further)), further))
