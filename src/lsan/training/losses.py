"""What training minimises: exact cross-entropy over the whole catalogue, or a loss over sampled negatives."""

import math
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lsan.config import BprConfig, CrossEntropyConfig, GbceConfig, LossConfig, SampledSoftmaxConfig
from lsan.models.item_tables import Codes, OutputFactors
from lsan.training.r_drop import agreement

#: Mean loss of hidden vectors [positions, width], scored by output factors, and target items [positions] in 1..V.
Loss = Callable[[Tensor, OutputFactors, Tensor], Tensor]

#: Numbers in a block of scores, by device and whether they are bfloat16. Measured on the CPU; enough to fill CUDA.
_BLOCK = {
    ("cpu", False): 1_600_000,
    ("cpu", True): 4_000_000,
    ("cuda", False): 64_000_000,
    ("cuda", True): 64_000_000,
}

#: A block has at least 64 positions, and of each pass a multiple of 32, or else its products are slow, unless these are
#: more numbers than 512 MiB hold.
_POSITIONS, _MULTIPLE, _LIMIT = 64, 32, 2**27

#: With biases in (-60, 0] and every position's sum of exponentials in exp(-60) .. exp(60), which is 10**26, no product
#: or quotient of them that counts leaves the range of float32 and bfloat16, 10**-38 .. 10**38.
_REACH = 60.0


def native_precision(setting: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The precision of products that `training.precision` asks for on a device.

    auto: bfloat16 on CUDA from compute capability 8.0 on, and on x86 processors that multiply it faster than float32:
    AMD's with AVX512-BF16 and those with AMX, where the cross-entropy takes about half the time. By Intel's AVX512-BF16
    alone an epoch takes longer (docs/log.md, eighth session).
    """
    if setting != "auto":
        return torch.float32 if setting == "float32" else torch.bfloat16
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_gains_from_bfloat16()
    return torch.bfloat16 if native else torch.float32


def _cpu_gains_from_bfloat16() -> bool:
    # what asks PyTorch is private to it, so it may go
    if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return True
    return _is_amd() and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def _is_amd() -> bool:
    """By what the system says of the processor: Linux in a file, Windows in its name."""
    on_linux = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (on_linux.read_text() if on_linux.exists() else platform.processor())


class _CrossEntropy(torch.autograd.Function):
    """Mean over positions of `log(exp(own) + sum_v exp(score(v))) - own`, where `own` [positions] is the score of each
    position's target. The pairs (item, position) in `hits` [2, pairs], ascending in positions, are not in the sum: that
    item is the target.

    With `r_drop` the second half of the positions are the first again under another dropout mask, and `hits` are those
    of the first half.

    The gradients are formed in the forward pass, block by block, while a block's exponentials are in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        own: Tensor,
        hits: Tensor,
        codes: Codes | None,
        slices: int,
        r_drop: float,
        precision: torch.dtype,
    ) -> Tensor:
        bias, own = bias - bias.amax(), own - bias.amax()  # the loss stays as it is
        problem = (hidden, weight, bias, own, hits, codes, slices, r_drop)
        dtype = precision if precision == torch.bfloat16 else hidden.dtype
        loss, in_reach, *gradients = _blocked(*problem, dtype, shifted=False)
        if not in_reach:  # or not a number
            loss, _, *gradients = _blocked(*problem, hidden.dtype, shifted=True)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None, None, None, None, None)


def _blocked(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    own: Tensor,
    hits: Tensor,
    codes: Codes | None,
    slices: int,
    r_drop: float,
    dtype: torch.dtype,
    *,
    shifted: bool,
) -> tuple[Tensor, ...]:
    """The loss, whether it can be trusted, and the gradients by `hidden`, `weight`, `bias` and `own`.

    `shifted` takes each position's highest score from all its scores before the exponentials: always to be trusted.
    Otherwise the exponentials are the only pass over a block, as the bias is a factor of what they are multiplied by:
    `exp(w . h + b) = exp(w . h) exp(b)`.
    """
    times, items, rows = 2 if r_drop else 1, len(bias), len(weight)
    hidden, own = hidden.unflatten(0, (times, -1)), own.unflatten(0, (times, -1))
    positions = hidden.shape[1]
    factor = torch.ones_like(bias) if shifted else bias.exp()
    factors = factor.to(dtype)[None]  # [1, items]
    left = weight.to(dtype).unflatten(0, (slices, -1))  # [slices, rows of one, part]
    right = (weight * factor[:, None] if codes is None else weight).to(dtype).unflatten(0, (slices, -1))
    right = torch.stack([rows_of_one.T.contiguous() for rows_of_one in right])  # slow in three dimensions

    total, in_reach = hidden.new_zeros((), dtype=torch.float64), bias.amin() >= -_REACH
    grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
    grad_bias, grad_own = torch.zeros_like(bias), torch.empty_like(own)
    step = _positions_at_once(positions, times * items, _BLOCK[hidden.device.type, dtype == torch.bfloat16], times)
    scratch = left.new_empty(rows * times * min(step, positions))
    product = None if dtype == weight.dtype else torch.empty_like(left)
    starts = torch.arange(0, positions, step, device=hidden.device)
    pairs = hits.tensor_split(torch.searchsorted(hits[1].contiguous(), starts[1:]).cpu(), dim=1)
    for start, (hit, position) in zip(range(0, positions, step), pairs, strict=True):
        here = slice(start, start + step)
        block, margin = hidden[:, here].flatten(0, 1), own[:, here].flatten()
        # [rows, block], transposed: a code then selects a contiguous row
        parts = block.to(dtype).T.unflatten(0, (slices, -1))  # [slices, part, block]
        scores = torch.bmm(left, parts, out=scratch[: rows * len(block)].view(slices, -1, len(block))).flatten(0, 1)
        scores = scores if codes is None else codes.spread(scores)
        gap, own_gap = (torch.sub(*x.chunk(2, -1)) for x in (scores, margin)) if r_drop else (scores, margin)
        if shifted:
            scores += bias[:, None]
            highest = torch.maximum(scores.amax(0), margin)
            scores -= highest
            margin = margin - highest
        scores.exp_().unflatten(1, (times, -1))[hit, :, position - start] = 0
        others = (factors @ scores)[0].to(hidden.dtype)
        mass = others + margin.exp()
        log_mass = mass.log()
        total += (log_mass - margin).sum(dtype=torch.float64)
        in_reach &= log_mass.abs().amax() <= _REACH
        share, by_own = 1 / mass, -others / mass
        if r_drop:
            added, scores, own_added = agreement(scores, factors, gap, mass, margin.exp() / mass, own_gap, r_drop)
            total += added
            share, by_own = torch.ones_like(share), by_own + own_added
        share = share / own.numel()
        collected = (scores if codes is None else codes.collect(scores, factors[0])).unflatten(0, (slices, -1))
        grad_hidden[:, here] = ((right @ collected).flatten(0, 1) * share).T.unflatten(0, (times, -1))
        scaled = (block * share[:, None]).to(dtype).unflatten(1, (slices, -1)).transpose(0, 1)
        if product is None:
            grad_weight.view_as(left).baddbmm_(collected, scaled)
        else:
            grad_weight += torch.bmm(collected, scaled, out=product).flatten(0, 1)
        grad_bias += (scores @ share.to(dtype)[:, None])[:, 0]
        grad_own[:, here] = (by_own / own.numel()).unflatten(0, (times, -1))
    grad_bias *= factor
    if codes is None:
        grad_weight *= factor[:, None]
    gradients = grad_hidden.flatten(0, 1), grad_weight, grad_bias, grad_own.flatten()
    return (total / own.numel()).to(hidden.dtype), in_reach, *gradients


def _positions_at_once(positions: int, scores: int, numbers: int, times: int) -> int:
    """How many positions a block has, each of so many scores: about as many as give so many numbers, in blocks of about
    the same size."""
    blocks = math.ceil(positions / max(numbers // scores, _POSITIONS // times, 1))
    step = math.ceil(positions / blocks / _MULTIPLE) * _MULTIPLE
    return max(min(step, _LIMIT // scores), 1)


_cross_entropy: Callable[..., Tensor] = _CrossEntropy.apply


def full_cross_entropy(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    *,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    r_drop: float = 0.0,
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Mean over positions of `logsumexp_v s(v) - (1 - e) s(target) - e mean_v s(v)`, with `s = score / temperature` and
    `e = label_smoothing` (equation 9 of docs/model.md; Szegedy et al. 2016), in the memory of one block of scores.

    With `r_drop` the second half of the positions are the first once more, computed under another dropout mask, and
    that weight times the mean over pairs of `(KL(p || q) + KL(q || p)) / 4` is added, where p and q are the softmax of
    the scores of the one and of the other: half of R-Drop's loss (Liang et al. 2021, arXiv 2106.14448, equation 4), so
    that it is a mean over positions as without.

    Targets are items 1..V. First derivatives only. `precision` float32 stands for that of `hidden`, and is exact for
    scores of any size. With bfloat16 the three products over all items round what they read and write; the scores of
    targets, the sums over blocks and all else stay float32. Against float64, with random numbers and scores as
    large as 60, the gradients were off by up to 1.4 % of their norm (4 % with R-Drop), the loss by at most 7e-4 of
    itself. Beyond `_REACH` it is float32 all the same.
    """
    if temperature != 1:
        hidden = hidden / temperature
        output = replace(output, bias=output.bias / temperature)
    own = output.scores_of(hidden, targets[:, None])[:, 0]
    different = targets[: len(targets) // 2] if r_drop else targets
    hits = torch.stack([different.long() - 1, torch.arange(len(different), device=targets.device)])
    loss = _cross_entropy(hidden, output.weight, output.bias, own, hits, output.codes, output.slices, r_drop, precision)
    if label_smoothing > 0:  # scores are linear in the hidden vector
        loss = loss + label_smoothing * (own.mean() - output.scores(hidden.mean(0, keepdim=True)).mean())
    return loss


def sampled_softmax(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, " negatives"],
    log_expected: Float[Tensor, " negatives"],
    *,
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Mean over positions of `log(exp s(target) + sum_j exp(s(v_j) - log(n q(v_j)))) - s(target)`, over the negatives
    v_j that are not the target.

    The n negatives are drawn from q with replacement; `log_expected` is `log(n q(v_j))`. The sum is an unbiased
    estimate of that over all items (Bengio and Senecal 2008), as the target, which is there in any case, is neither
    corrected nor counted again (Khrylchenko et al. 2025, arXiv 2507.09331).
    """
    own = output.scores_of(hidden, targets[:, None])[:, 0]
    drawn = output.only(negatives)
    hits = (targets[:, None] == negatives).nonzero().T.flip(0)
    return _cross_entropy(hidden, drawn.weight, drawn.bias - log_expected, own, hits, None, 1, 0.0, precision)


def generalised_bce(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, " negatives"],
    *,
    calibration: float,
) -> Float[Tensor, ""]:
    """gBCE (Petrov and Macdonald 2023, "gSASRec"): mean over positions of `-(beta log sigmoid s(target) + sum_j log(1 -
    sigmoid s(v_j))) / (k + 1)`, over those of the k negatives v_j that are not the target.

    `beta = alpha (t (1 - 1 / alpha) + 1 / alpha) = 1 - t (1 - alpha)` with t = `calibration` and the sampling rate
    `alpha = k / (V - 1)`.
    """
    alpha = min(1.0, len(negatives) / (len(output.bias) - 1))
    beta = 1 - calibration * (1 - alpha)
    own = output.scores_of(hidden, targets[:, None])[:, 0]
    others = F.softplus(output.only(negatives).scores(hidden)).masked_fill(negatives == targets[:, None], 0)
    return (beta * F.softplus(-own) + others.sum(1)).mean() / (len(negatives) + 1)


def binary_cross_entropy(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, "positions negatives"],
) -> Float[Tensor, ""]:
    """Mean over positions of `-log sigmoid s(target) - sum_j log(1 - sigmoid s(v_j))`, over negatives v_j of the
    position's own (Kang and McAuley 2018; Tang and Wang 2018)."""
    own, others = output.scores_of(hidden, targets[:, None]), output.scores_of(hidden, negatives)
    return (F.softplus(-own).sum(1) + F.softplus(others).sum(1)).mean()


def bayesian_personalised_ranking(
    hidden: Float[Tensor, "positions width"],
    output: OutputFactors,
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, "positions negatives"],
) -> Float[Tensor, ""]:
    """Mean over positions and negatives v_j of their own of `-log sigmoid(s(target) - s(v_j))` (Rendle et al. 2009)."""
    own, others = output.scores_of(hidden, targets[:, None]), output.scores_of(hidden, negatives)
    return F.softplus(others - own).mean()


def make_loss(
    config: LossConfig, popularity: Int[Tensor, " items"], precision: torch.dtype, *, r_drop: float = 0.0
) -> Loss:
    """The loss that a recipe names; `precision` is that of its large products, `r_drop` is for cross-entropy alone.
    `popularity[v - 1]` counts the training events of item v, on the device of training.

    Negatives are drawn with PyTorch's global random numbers, with replacement. Those of the sampled softmax come in
    proportion to (count + 1) ** 0.75 (the exponent of Mikolov et al. 2013): nearer to the softmax of a trained model,
    so with less variance, than uniform draws, and with more rare items than draws in proportion to the counts.
    """
    if isinstance(config, CrossEntropyConfig):
        return partial(
            full_cross_entropy,
            label_smoothing=config.label_smoothing,
            temperature=config.temperature,
            r_drop=r_drop,
            precision=precision,
        )
    items, device, negatives = len(popularity), popularity.device, config.negatives
    if isinstance(config, SampledSoftmaxConfig):
        cumulative = ((popularity.double() + 1) ** 0.75).cumsum(0)
        cumulative /= cumulative[-1].clone()
        log_expected = (negatives * cumulative.diff(prepend=cumulative.new_zeros(1))).log().float()

        def loss(hidden: Tensor, output: OutputFactors, targets: Tensor) -> Tensor:
            drawn = torch.searchsorted(cumulative, torch.rand(negatives, dtype=torch.float64, device=device))
            return sampled_softmax(hidden, output, targets, drawn + 1, log_expected[drawn], precision=precision)
    elif isinstance(config, GbceConfig):
        calibration = config.calibration

        def loss(hidden: Tensor, output: OutputFactors, targets: Tensor) -> Tensor:
            drawn = torch.randint(1, items + 1, (negatives,), device=device)
            return generalised_bce(hidden, output, targets, drawn, calibration=calibration)
    else:
        of_pairs = bayesian_personalised_ranking if isinstance(config, BprConfig) else binary_cross_entropy

        def loss(hidden: Tensor, output: OutputFactors, targets: Tensor) -> Tensor:
            drawn = torch.randint(1, items, (len(targets), negatives), device=device)
            return of_pairs(hidden, output, targets, drawn + (drawn >= targets[:, None]))  # any item but the target

    return loss
