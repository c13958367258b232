"""BERT4Rec: self-attention in both directions, trained to fill in masked items (Sun et al., CIKM 2019, arXiv
1904.06690)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import Bert4RecConfig, ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import Positions, PostNormBlock, normal_weights, padding_mask
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class Bert4Rec(Encoder):
    """BERT's blocks (inner width 4D) over items, some of which are replaced by a learnt [mask] vector.

    LayerNorm and dropout on item plus position are the authors' code's, not the paper's. The output is the paper's,
    `GELU(h W + b)` before the product with the table (section 3.5), without the code's LayerNorm.
    """

    def __init__(self, config: ModelConfig, encoder: Bert4RecConfig) -> None:
        super().__init__()
        self.output_width = width = config.width
        self.history = config.history
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = Positions(config)
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, encoder.heads, 4 * width, config.dropout) for _ in range(encoder.blocks)
        )
        self.transform = nn.Linear(width, width)
        self.apply(normal_weights)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        """The output at a [mask] after the last event; the oldest event makes room for it if need be. All other outputs
        have seen the event that they would predict."""
        time = x.shape[1]
        mask = self.mask.to(x.dtype).expand(len(x), 1, -1)
        x, present = torch.cat([x, mask], dim=1), F.pad(histories.present, (0, 1), value=True)
        return self._encode(x[:, -self.history :], present[:, -self.history :], last_only=last_only)[:, -time:]

    def cloze(
        self, x: Float[Tensor, "batch time width"], histories: Histories, masked: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time width"]:
        """The outputs at every position when the `masked` ones are hidden: what training compares with their items."""
        x = torch.where(masked[..., None], self.mask.to(x.dtype), x)
        return self._encode(x, histories.present, last_only=False)

    def _encode(
        self, x: Float[Tensor, "batch time width"], present: Bool[Tensor, "batch time"], *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        x = self.drop(self.norm(x + self.positions(present)))
        mask = padding_mask(present)
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x, mask, last_only=False)
        return F.gelu(self.transform(final(x, mask, last_only=last_only)))
