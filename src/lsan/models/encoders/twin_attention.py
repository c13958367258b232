"""Twin attention: convolution heads for the short term, self-attention heads for the long term.

LSAN (Li et al., CIKM 2021, arXiv 2108.11333), section 3.3; equations 5 to 7 of docs/model.md.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import ModelConfig, TwinAttentionConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import Attention, Positions, causal_mask, padding_mask
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class LightweightConvolution(nn.Module):
    """Depthwise convolution along time; the channels of a head share one kernel of `window` numbers."""

    def __init__(self, width: int, heads: int, window: int, *, causal: bool) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(heads, window) * window**-0.5)
        self.back = window - 1 if causal else window // 2
        self.ahead = window - 1 - self.back

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """`y[i, c] = sum_j kernel[head(c), j] x[i - back + j, c]`, zeros outside."""
        time, width = x.shape[-2:]
        heads, window = self.kernel.shape
        padded = F.pad(x, (0, 0, self.back, self.ahead))
        kernel = self.kernel.repeat_interleave(width // heads, dim=0)
        return torch.stack([padded[:, j : j + time] * kernel[:, j] for j in range(window)]).sum(0)

    def last(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch 1 width"]:
        """`forward(x)[:, -1:]`, from the last `back + 1` positions alone."""
        return self.forward(x[:, -self.back - 1 :])[:, -1:]


class TwinAttentionBlock(nn.Module):
    """Both branches on the same input, their 2H heads concatenated, then `GELU(. W_1 + b_1) W_2 + b_2`."""

    def __init__(self, width: int, heads: int, window: int, *, causal: bool) -> None:
        super().__init__()
        self.local = LightweightConvolution(width, heads, window, causal=causal)
        self.attention = Attention(width, heads, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        positions: Float[Tensor, "#batch time width"],
        mask: Bool[Tensor, "batch 1 #time time"],
        *,
        last_only: bool,
    ) -> Float[Tensor, "batch out width"]:
        """`mask` is True where a query may look. With `last_only` just the last position is computed (out = 1)."""
        placed = x + positions
        attended = self.attention(placed[:, -1:] if last_only else placed, placed, mask)
        local = self.local.last(x) if last_only else self.local(x)
        out: Tensor = self.out(F.gelu(self.mix(torch.cat([local, attended], dim=-1))))
        return out


class TwinAttention(Encoder):
    """Blocks of twin attention with dropout, each inside a residual connection and LayerNorm unless `residual` is off.

    Causal, both branches look back only. In the prefix regime both look both ways.
    """

    def __init__(self, config: ModelConfig, encoder: TwinAttentionConfig) -> None:
        super().__init__()
        self.output_width = width = config.width
        self.causal = config.regime == "causal"
        self.positions = Positions(config)
        self.blocks = nn.ModuleList(
            TwinAttentionBlock(width, encoder.heads, encoder.window, causal=self.causal) for _ in range(encoder.blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(encoder.blocks) if encoder.residual)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        present = histories.present
        positions = self.positions(present)
        mask = causal_mask(present) if self.causal else padding_mask(present)
        x = self.drop(x)
        for number, block in enumerate(self.blocks):
            last = last_only and number == len(self.blocks) - 1
            y = self.drop(block(x, positions, mask, last_only=last))
            if self.norms:
                y = self.norms[number](y + (x[:, -1:] if last else x))
            x = y if last else y * present[..., None]  # the next convolution reads zeros at padding
        return x
