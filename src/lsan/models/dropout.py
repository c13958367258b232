"""Dropout that costs little beside small layers on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class _ByteDropout(torch.autograd.Function):
    """Dropout by one random byte a number, eight of them from each draw; `F.dropout` on the CPU draws a double for each
    and keeps its mask as floats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape).ge_(threshold)  # 0 or 1; as bool it is slower
        ctx.save_for_backward(kept)
        ctx.scale = 256 / (256 - threshold)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grads[0] * kept).mul_(ctx.scale), None


_byte_dropout: Callable[[Tensor, int], Tensor] = _ByteDropout.apply


class Dropout(nn.Module):
    """Zero each number with `probability` in training and scale the others up (Srivastava et al. 2014). On the CPU the
    probability is rounded to a multiple of 1 / 256, at most 255 / 256."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.threshold = min(255, round(probability * 256))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        return _byte_dropout(x, self.threshold)
