"""The encoder of the preset `lsan`: LSAN's twin attention inside transformer blocks."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import ModelConfig, TwinTransformerConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import (
    Attention,
    FeedForward,
    Positions,
    causal_mask,
    normal_weights,
    padding_mask,
)
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class _Convolution(torch.autograd.Function):
    """`y[i, c] = sum_j kernel[c, j] x[i - back + j, c]`, zeros outside. By hand, since autograd would go over the whole
    batch six times for each j on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, back: int) -> Tensor:
        ahead = kernel.shape[1] - 1 - back
        padded = F.pad(x, (0, 0, back, ahead))
        ctx.save_for_backward(padded, kernel)
        ctx.back = back
        return _slide(padded, kernel)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        padded, kernel = ctx.saved_tensors
        (grad,), window = grads, kernel.shape[1]
        time = grad.shape[1]
        mirrored = F.pad(grad, (0, 0, window - 1 - ctx.back, ctx.back))
        by_kernel = [torch.linalg.vecdot(grad, padded[:, j : j + time], dim=1).sum(0) for j in range(window)]
        return _slide(mirrored, kernel.flip(1)), torch.stack(by_kernel, dim=1), None


def _slide(padded: Tensor, kernel: Tensor) -> Tensor:
    """`y[i, c] = sum_j kernel[c, j] padded[i + j, c]`."""
    time = padded.shape[1] - kernel.shape[1] + 1
    columns = kernel.T.contiguous()
    y = padded[:, :time] * columns[0]
    for j in range(1, len(columns)):
        y.addcmul_(padded[:, j : j + time], columns[j])
    return y


_convolution: Callable[[Tensor, Tensor, int], Tensor] = _Convolution.apply


class DepthwiseConvolution(nn.Module):
    """Each channel has a kernel of its own along time, of `window` numbers."""

    def __init__(self, width: int, window: int, *, causal: bool) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(width, window) * (0.5 * window**-0.5))
        self.back = window - 1 if causal else window // 2

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """`y[i, c] = sum_j kernel[c, j] x[i - back + j, c]`, zeros outside."""
        return _convolution(x, self.kernel, self.back)

    def last(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch 1 width"]:
        """`forward(x)[:, -1:]`: only the events up to the last one are under its kernel."""
        latest = x[:, -self.back - 1 :]
        weights = self.kernel[:, : self.back + 1].T[-latest.shape[1] :]
        return (latest * weights).sum(1, keepdim=True)


class TwinBlock(nn.Module):
    """Convolution and attention beside each other, their outputs mixed by one linear layer, then a feed-forward layer
    with GELU; each in a residual connection with dropout, followed by LayerNorm."""

    def __init__(self, config: ModelConfig, encoder: TwinTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.local = DepthwiseConvolution(width, encoder.window, causal=config.regime == "causal")
        self.attention = Attention(width, encoder.heads)
        self.mix = nn.Linear(2 * width, width)
        self.mix_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, encoder.feed_forward * width, config.dropout)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch 1 #time time"], *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        """`mask` is True where a query may look. With `last_only` just the last position is computed (out = 1)."""
        asking = x[:, -1:] if last_only else x
        local = self.local.last(x) if last_only else self.local(x)
        both = torch.cat([local, self.attention(asking, x, mask)], dim=-1)
        out: Tensor = self.feed_forward(self.mix_norm(asking + self.drop(self.mix(both))))
        return out


class TwinTransformer(Encoder):
    """LayerNorm and dropout on item plus position, then `TwinBlock`s.

    Against the paper's encoder: positions are added once, at the input; kernels belong to channels; each block has a
    feed-forward layer. Causal, both branches look back only. In the prefix regime both look both ways.
    """

    def __init__(self, config: ModelConfig, encoder: TwinTransformerConfig) -> None:
        super().__init__()
        self.output_width = config.width
        self.causal = config.regime == "causal"
        self.positions = Positions(config)
        self.input_norm = nn.LayerNorm(config.width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(TwinBlock(config, encoder) for _ in range(encoder.blocks))
        self.apply(normal_weights)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        present = histories.present
        mask = causal_mask(present) if self.causal else padding_mask(present)
        x = self.drop(self.input_norm(x + self.positions(present)))
        for number, block in enumerate(self.blocks, start=1):
            x = block(x * present[..., None], mask, last_only=last_only and number == len(self.blocks))
        return x
