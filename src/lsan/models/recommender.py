"""The network: item table, context and encoder joined into one module that scores all items after a history."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import ModelConfig
from lsan.models.context import TemporalContext
from lsan.models.encoders.twin_attention import TwinAttention
from lsan.models.histories import Histories
from lsan.models.item_tables import OutputFactors
from lsan.models.item_tables.composed import ComposedTable


class Lsan(nn.Module):
    """LSAN (arXiv 2108.11333; docs/model.md) in both training regimes. Item index 0 is padding, items are 1..V."""

    popularity: Tensor

    def __init__(
        self,
        config: ModelConfig,
        category_of_item: Int[Tensor, " items_and_padding"],
        popularity: Int[Tensor, " items"],
        numbers: Int[Tensor, " items"],
    ) -> None:
        """`category_of_item[v]` is 1..C, 0 where unknown. `popularity[v - 1]` counts the training events of item v: an
        empty history is answered with it. The digits of `numbers[v - 1]` are the code of item v."""
        super().__init__()
        self.config = config
        width, items, causal = config.width, len(popularity), config.regime == "causal"
        self.register_buffer("popularity", popularity.to(torch.int32))
        self.table = ComposedTable(numbers, config.radices, width)
        self.context = TemporalContext(category_of_item, width)
        self.fuse = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.positions = nn.Parameter(torch.randn(config.history, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            TwinAttention(width, config.heads, config.window, causal=causal) for _ in range(config.blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.blocks + 1) if config.residual)
        self.untied = nn.Parameter(torch.randn(items, width) * width**-0.5) if config.untied_output else None

    def output(self) -> OutputFactors:
        """What turns a hidden vector into scores of all items."""
        tied = self.table.output()
        return tied if self.untied is None else OutputFactors(weight=self.untied, codes=None, bias=tied.bias)

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the items 1..V (column v - 1) as the next event. An empty history gets log-popularity."""
        scores = self.output().scores(self.last_hidden(histories).float())
        empty = ~histories.present.any(1, keepdim=True)
        return torch.where(empty, (self.popularity + 1).to(scores.dtype).log(), scores)

    def last_hidden(self, histories: Histories) -> Float[Tensor, "batch width"]:
        """The vector after the last event of each history (z_T of the paper)."""
        return self._encode(histories, last_only=True).squeeze(1)

    def hidden(self, histories: Histories) -> Float[Tensor, "batch time width"]:
        """The vectors after every event. In the prefix regime all but the last have seen later events."""
        return self._encode(histories, last_only=False)

    def _encode(self, histories: Histories, *, last_only: bool) -> Float[Tensor, "batch out width"]:
        histories = histories.latest(self.config.history)
        items, present = histories.items, histories.present
        context = self.context(items, histories.hours)
        h = self.table(items, context)
        x = self.fuse(torch.cat([h, context], dim=-1))  # equation 4
        if self.config.residual:
            x = self.norms[0](h + x)
        x = self._drop(x) * present[..., None]
        positions, mask = self._positions(present), self._mask(present)
        for number, block in enumerate(self.blocks, start=1):
            last = last_only and number == len(self.blocks)
            y = self._drop(block(x, positions, mask, last_only=last))
            if self.config.residual:
                y = self.norms[number](y + (x[:, -1:] if last else x))
            x = y if last else y * present[..., None]
        return x

    def _drop(self, x: Float[Tensor, "batch out width"]) -> Float[Tensor, "batch out width"]:
        return F.dropout(x, self.config.dropout, self.training)

    def _positions(self, present: Bool[Tensor, "batch time"]) -> Float[Tensor, "#batch time width"]:
        """P. Counted from the latest event in the prefix regime; from the first one in the causal regime, where each
        event must look the same whatever follows."""
        if self.config.regime == "prefix":
            return self.positions[-present.shape[1] :].unsqueeze(0)
        return F.embedding((present.cumsum(1) - 1).clamp(min=0), self.positions)

    def _mask(self, present: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch 1 queries time"]:
        """True where a query (third axis; one for all in the prefix regime) may look."""
        mask = present[:, None, None, :]
        if self.config.regime == "prefix":
            return mask
        time = present.shape[1]
        past = torch.ones(time, time, dtype=torch.bool, device=mask.device).tril()
        itself = torch.eye(time, dtype=torch.bool, device=mask.device)
        return (mask & past) | itself  # so that padding looks somewhere: a softmax over nothing is not a number
