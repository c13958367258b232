"""R-Drop: an example that is computed twice, under two dropout masks, should give the same scores both times."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsan.models.item_tables import Codes, OutputFactors
from lsan.training.losses import Loss

#: Numbers in a block of scores, of which there are five at a time. Measured on the CPU; enough to fill CUDA.
_BLOCK = {"cpu": 4_000_000, "cuda": 16_000_000}


def with_r_drop(loss_of: Loss, weight: float, precision: torch.dtype) -> Loss:
    """A loss of positions of which the second half are the first again, computed under another dropout mask: half of
    R-Drop's (Liang et al. 2021, arXiv 2106.14448, equation 4), so that it is a mean over positions as others are."""

    def loss(hidden: Tensor, output: OutputFactors, targets: Tensor) -> Tensor:
        one, other = hidden.chunk(2)
        return loss_of(hidden, output, targets) + weight / 2 * divergence(one, other, output, precision=precision)

    return loss


def divergence(
    one: Float[Tensor, "positions width"],
    other: Float[Tensor, "positions width"],
    output: OutputFactors,
    *,
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Mean over positions of `(KL(p || q) + KL(q || p)) / 2`, where p and q are the softmax of all items' scores after
    the hidden vectors `one` and `other`, in the memory of a few blocks of scores.

    First derivatives only. `precision` float32 stands for that of the hidden vectors. With bfloat16 p and q are made of
    the same rounded scores and of their rounded difference, so that equal vectors have none.
    """
    dtype = precision if precision == torch.bfloat16 else one.dtype
    return _divergence(one, other, output.weight, output.bias, output.codes, output.slices, dtype)


class _Divergence(torch.autograd.Function):
    """With `d` the difference of the scores, of which bias and normalisers leave nothing, it is `sum_v (p - q) d / 2`.
    Its gradients, by p's scores `(p (d - sum_v p d) + p - q) / 2` and by q's `-(q (d - sum_v q d) + p - q) / 2`, are
    formed in the forward pass, block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        one: Tensor,
        other: Tensor,
        weight: Tensor,
        bias: Tensor,
        codes: Codes | None,
        slices: int,
        dtype: torch.dtype,
    ) -> Tensor:
        left = weight.to(dtype).unflatten(0, (slices, -1))  # [slices, rows of one, part]
        right, biases = left.mT.contiguous(), bias.to(dtype)[:, None]
        ones = torch.ones_like(biases.T)

        def scores(block: Tensor) -> Tensor:  # [items, block], transposed: a code then selects a contiguous row
            rows = torch.bmm(left, block.to(dtype).T.unflatten(0, (slices, -1))).flatten(0, 1)
            return rows if codes is None else codes.spread(rows)

        def softmax(x: Tensor) -> Tensor:
            x = x.sub_(x.amax(0)).exp_()
            return x.div_(ones @ x)

        total = one.new_zeros((), dtype=torch.float64)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        grads = torch.empty_like(one), torch.empty_like(other)
        step = max(1, _BLOCK[one.device.type] // len(bias))
        for start in range(0, len(one), step):
            here = slice(start, start + step)
            blocks = one[here], other[here]
            p, d = scores(blocks[0]).add_(biases), scores(blocks[0] - blocks[1])
            q = softmax(p - d)
            p = softmax(p)
            difference = p - q
            for block, x, grad, scale in zip(blocks, (p, q), grads, (0.5 / len(one), -0.5 / len(one)), strict=True):
                mean = ones @ (x * d)
                total += mean.sum(dtype=torch.float64) * scale
                by = (d - mean).mul_(x).add_(difference)
                rows = (by if codes is None else codes.collect(by)).unflatten(0, (slices, -1))
                grad[here] = (right @ rows).flatten(0, 1).T * scale
                parts = (block * scale).to(dtype).unflatten(1, (slices, -1)).transpose(0, 1)
                grad_weight += torch.bmm(rows, parts).flatten(0, 1)
                grad_bias += (by @ torch.full_like(mean, scale).T)[:, 0]
        ctx.save_for_backward(*grads, grad_weight, grad_bias)
        return total.to(one.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None, None, None)


_divergence: Callable[..., Tensor] = _Divergence.apply
