"""R-Drop: an example that is computed twice, under two dropout masks, should give the same scores both times."""

import torch
from jaxtyping import Float
from torch import Tensor


def agreement(
    exponentials: Float[Tensor, "items positions"],
    factors: Float[Tensor, "1 items"],
    gap: Float[Tensor, "items pairs"],
    mass: Float[Tensor, " positions"],
    own: Float[Tensor, " positions"],
    own_gap: Float[Tensor, " pairs"],
    weight: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "items positions"], Float[Tensor, " positions"]]:
    """Half of R-Drop's loss (Liang et al. 2021, arXiv 2106.14448, equation 4), so that it is of two positions: their
    cross-entropies plus `weight / 2 (KL(p || q) + KL(q || p))`, where p and q are the softmax of the scores of the one
    and of the other. The latter is `sum_v (p - q) gap`, as bias and normalisers leave nothing of the difference.

    Args:
        exponentials: of scores less the bias: of all pairs' first positions, then of their second ones; 0 for the item
            that is the target. Times factor, over mass: the probabilities p and q.
        factors: exponentials of the biases.
        gap: the scores of the first position less those of the second.
        mass: sum of the exponentials of each position, its target's included.
        own: probability of each position's target.
        own_gap: `gap` of the target.
        weight: of the divergence.

    Returns:
        What to add to the sum of cross-entropies; the derivatives of both by all scores but the targets', over factor;
        what to add to those of the cross-entropies by the targets' scores.
    """
    one, other = exponentials.chunk(2, 1)
    p, q = own.chunk(2)
    slopes = torch.empty_like(exponentials)
    by_one, by_other = slopes.chunk(2, 1)
    torch.mul(one, gap, out=by_one)
    torch.mul(other, gap, out=by_other)
    mean_p, mean_q = ((factors @ slopes)[0].to(mass.dtype) / mass).chunk(2)
    mean_p, mean_q, half = mean_p + p * own_gap, mean_q + q * own_gap, weight / 2
    # p (1 + half (gap - mean_p + 1)) - half q, and q (1 + half (mean_q - gap + 1)) - half p
    in_p, in_q = (half / mass).to(gap.dtype).chunk(2)
    level = (1 + half * (1 + torch.cat([-mean_p, mean_q]))) / mass
    at_one, at_other = level.to(gap.dtype).chunk(2)
    by_one.mul_(in_p).addcmul_(one, at_one).addcmul_(other, in_q, value=-1)
    by_other.mul_(-in_q).addcmul_(other, at_other).addcmul_(one, in_p, value=-1)
    by_own = half * torch.cat([p * (own_gap - mean_p) + p - q, q * (mean_q - own_gap) + q - p])
    return half * (mean_p - mean_q).sum(), slopes, by_own
