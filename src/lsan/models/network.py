"""The network: item table, context and encoder joined into one module that scores all items after a history."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lsan.config import CodedTableConfig, ComposedTableConfig, ContextConfig, HashedTableConfig, ModelConfig
from lsan.models.context import TemporalContext
from lsan.models.encoders import make_encoder
from lsan.models.encoders.bert4rec import Bert4Rec
from lsan.models.histories import Histories
from lsan.models.item_tables import OutputFactors
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.composed import ComposedTable
from lsan.models.item_tables.full import FullTable
from lsan.models.item_tables.hashed import HashedTable
from lsan.models.item_tables.turned import TurnedTable
from lsan.models.time import TimeFeatures


class Fusion(nn.Module):
    """Item vector and context vector fused into one: `LayerNorm(h + MLP([h; r]))` (equation 4 of docs/model.md), or the
    bare MLP of the paper."""

    def __init__(self, config: ContextConfig, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width) if config.residual else None

    def forward(
        self, items: Float[Tensor, "batch time width"], context: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        fused: Tensor = self.mlp(torch.cat([items, context], dim=-1))
        return fused if self.norm is None else self.norm(items + fused)


class Network(nn.Module):
    """Any item table with any encoder, in any training regime. Item index 0 is padding, items are 1..V."""

    popularity: Tensor
    offered: Tensor

    def __init__(
        self,
        config: ModelConfig,
        category_of_item: Int[Tensor, " items_and_padding"],
        popularity: Int[Tensor, " items"],
        numbers: Int[Tensor, " items"],
        users: int,
    ) -> None:
        """`category_of_item[v]` is 1..C, 0 where unknown. `popularity[v - 1]` counts the training events of item v: an
        empty history is answered with it. The digits of `numbers[v - 1]` are the code of item v in a composed table.
        `users` is the number of users in the training data, for encoders with a vector for each."""
        super().__init__()
        self.config = config
        width, items = config.width, len(popularity)
        self.register_buffer("popularity", popularity.to(torch.int32))
        # Items that may be read and recommended. Scores are those of all items.
        self.register_buffer("offered", torch.ones(items, dtype=torch.bool))
        self.table: FullTable | HashedTable | ComposedTable | CodedTable
        if isinstance(config.table, ComposedTableConfig):
            self.table = ComposedTable(numbers, config.table.radices, width, contextual=config.context is not None)
        elif isinstance(config.table, HashedTableConfig):
            self.table = HashedTable(items, config.table.rows, config.table.hashes, width)
        elif isinstance(config.table, CodedTableConfig):
            self.table = CodedTable(
                items, config.table.tables, config.table.rows, width, item_width=config.item_width,
                additive=config.table.codes == "additive", contextual=config.context is not None,
            )  # fmt: skip
        else:
            self.table = FullTable(items, width, config.item_width)
        self.context = None if config.context is None else TemporalContext(category_of_item, width)
        self.fusion = None if config.context is None else Fusion(config.context, width)
        self.time = None if config.time is None else TimeFeatures(config.time, width)
        self.encoder = make_encoder(config, users)
        self.untied = None
        if config.untied_output:
            self.untied = nn.Parameter(torch.randn(items, self.encoder.output_width) * width**-0.5)

    def output(self) -> OutputFactors:
        """What turns a hidden vector into scores of all items."""
        tied = self.table.output()
        return tied if self.untied is None else OutputFactors(weight=self.untied, codes=None, bias=tied.bias)

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the items 1..V (column v - 1) as the next event. An empty history gets log-popularity."""
        scores = self.output().scores(self.last_hidden(histories).float())
        empty = ~histories.present.any(1, keepdim=True)
        return torch.where(empty, (self.popularity + 1).to(scores.dtype).log(), scores)

    def last_hidden(self, histories: Histories) -> Float[Tensor, "batch output_width"]:
        """The vector after the last event of each history."""
        histories = histories.latest(self.config.history)
        hidden: Tensor = self.encoder(self._vectors(histories), histories, last_only=True)
        return self._facing(hidden.squeeze(1))

    def hidden(self, histories: Histories) -> Float[Tensor, "batch time output_width"]:
        """The vectors after every event. In the prefix regime all but the last may have seen later events."""
        histories = histories.latest(self.config.history)
        hidden: Tensor = self.encoder(self._vectors(histories), histories, last_only=False)
        return self._facing(hidden)

    def cloze(
        self, histories: Histories, masked: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time output_width"]:
        """The vectors at every event when the items of the `masked` ones are hidden (cloze regime)."""
        assert isinstance(self.encoder, Bert4Rec)
        return self._facing(self.encoder.cloze(self._vectors(histories, masked), histories, masked))

    def _facing(self, hidden: Tensor) -> Tensor:
        """The encoder's vectors as the output layer wants them."""
        if isinstance(self.table, TurnedTable) and self.untied is None:
            return self.table.facing(hidden)
        return hidden

    def _vectors(
        self, histories: Histories, masked: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """What the encoder reads: zero at padding. The context of no event tells of a `masked` one."""
        if self.context is None or self.fusion is None:
            x = self.table(histories.items, None)
        else:
            told = histories.items if masked is None else histories.items.masked_fill(masked, 0)
            context = self.context(told, histories.hours)
            x = self.fusion(self.table(histories.items, context), context)
        if self.time is not None:
            x = x + self.time(histories)
        vectors: Tensor = x * histories.present[..., None]
        return vectors
