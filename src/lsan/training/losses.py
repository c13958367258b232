"""Cross-entropy over the whole catalogue, in blocks, without ever holding a logit for every position and item."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsan.models.item_tables import Codes, OutputFactors

#: Numbers in one block of logits. On the CPU 3 MB of float32, which stays in the cache; on CUDA enough to fill it.
#: A block has at least 32 positions, so that products with a very large table stay products of matrices.
_BLOCK = {"cpu": 800_000, "cuda": 64_000_000}


class _BlockedCrossEntropy(torch.autograd.Function):
    """Forms the gradients in the forward pass, block by block, while a block's probabilities are in the cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, codes: Codes | None) -> Tensor:
        positions, items = len(hidden), len(bias)
        grad_hidden, grad_weight, grad_bias = (
            torch.empty_like(hidden),
            torch.zeros_like(weight),
            torch.zeros_like(bias),
        )
        total = hidden.new_zeros((), dtype=torch.float64)
        step = max(32, _BLOCK[hidden.device.type] // items)
        for start in range(0, positions, step):
            block, target = hidden[start : start + step], targets[start : start + step]
            column = torch.arange(len(block), device=hidden.device)
            rows = weight @ block.T  # [rows, block]: transposed, so that a code selects a contiguous row
            logits = rows if codes is None else codes.spread(rows)
            logits += bias[:, None]
            top = logits.amax(0)
            chosen = logits[target, column] - top
            mass = logits.sub_(top).exp_().sum(0)
            total += (mass.log() - chosen).sum(dtype=torch.float64)
            logits.div_(mass * positions)  # now the gradient of the mean loss, but for the target's -1
            logits[target, column] -= 1 / positions
            grad_bias += logits.sum(1)
            grad_rows = logits if codes is None else codes.collect(logits)
            torch.mm(grad_rows.T, weight, out=grad_hidden[start : start + step])
            grad_weight.addmm_(grad_rows, block)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return (total / positions).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None, None)


def full_cross_entropy(
    hidden: Float[Tensor, "positions width"], output: OutputFactors, targets: Int[Tensor, " positions"]
) -> Float[Tensor, ""]:
    """Mean over positions of `logsumexp_v score(v) - score(target)` (equation 9 of docs/model.md); exact, in the memory
    of one block of logits.

    Targets are item indices 1..V. First derivatives only.
    """
    apply: Callable[..., Tensor] = _BlockedCrossEntropy.apply
    return apply(hidden, output.weight, output.bias, targets - 1, output.codes)
