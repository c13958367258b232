"""Twin attention: convolution heads for the short term, self-attention heads for the long term.

Paper, section 3.3; equations 5 to 7 of docs/model.md.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


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


class TwinAttention(nn.Module):
    """One block: both branches on the same input, their 2H heads concatenated, then `GELU(. W_1 + b_1) W_2 + b_2`."""

    def __init__(self, width: int, heads: int, window: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.local = LightweightConvolution(width, heads, window, causal=causal)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        positions: Float[Tensor, "#batch time width"],
        mask: Bool[Tensor, "batch 1 queries time"],
        *,
        last_only: bool,
    ) -> Float[Tensor, "batch out width"]:
        """`mask` is True where a query may look. With `last_only` just the last position is computed (out = 1)."""
        placed = x + positions
        asking = placed[:, -1:] if last_only else placed
        attended = F.scaled_dot_product_attention(
            self._split(self.query(asking)),
            self._split(self.key(placed)),
            self._split(self.value(placed)),
            attn_mask=mask[:, :, -1:] if last_only else mask,
        )
        local = self.local.last(x) if last_only else self.local(x)
        both = torch.cat([local, attended.transpose(1, 2).flatten(-2)], dim=-1)
        out: Tensor = self.out(F.gelu(self.mix(both)))
        return out

    def _split(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch heads time head_width"]:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)
