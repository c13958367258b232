"""Which plans there are, which of them should do best, and which of them does."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lsan.compression.compress import Compression, Plan
from lsan.compression.sizes import shipped_bytes
from lsan.config import Recipe
from lsan.errors import ConfigError
from lsan.export.bundle import shipped_parts
from lsan.runs import RunHeader, load_run

#: What is tried: every sensible combination of these.
_WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
_TABLES = (2, 4, 6, 8, 12, 16, 24, 32)
_ROWS = (16, 64, 256)
_PAIRED = (0.0, 0.5, 0.7, 0.8, 0.9)

#: Bytes that a file may be larger than planned: the header tells of ids, titles and categories too, and in more digits
#: where there are more items.
MARGIN = 1000

#: Estimated share of accuracy that is lost (docs/log.md): so much of the share of the scores' variance that codes miss
#: (.5 to .8 on ML-1M, 0 to 1.05 on Beauty), and so much times the square of how often the width is halved (Beauty .016
#: for once, .038 for 1.4 times; ML-1M .016 for once).
_BY_ERROR, _BY_HALVING = 0.8, 0.02

#: The same where one block is left of several, in models that read at most `_SHORT` events (Beauty, which reads 50) and
#: in others (ML-1M, which reads 200: .047 at width 96, .074 at 64).
_SHORT, _BY_BLOCKS, _BY_BLOCKS_LONG = 100, 0.006, 0.05

#: How well the bits of a code are used, by the rows of a table: rough, from three figures on Beauty (docs/log.md).
_USED = {16: 0.8, 64: 0.92, 256: 1.0}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plan with what it should cost."""

    plan: Plan
    size: int
    """Bytes of its bundle, all but ids, titles and categories."""
    loss: float
    """Share of accuracy that it should lose, an estimate to order plans by."""


def candidates(
    recipe: Recipe,
    items: int,
    vectors: Float[Tensor, "items width"],
    hidden: Float[Tensor, "samples width"],
    popularity: Float[Tensor, " items"],
    *,
    categories: int = 0,
    all_offered: bool = True,
) -> list[Candidate]:
    """All plans that no other one beats in both size and estimated loss, the smallest first.

    Args:
        recipe: of the teacher.
        items: V.
        vectors: the teacher's item vectors.
        hidden: some of its hidden vectors.
        popularity: training events of each item, by which errors count.
        categories: of the catalogue.
        all_offered: whether no item is left out of recommendations.

    Raises:
        ConfigError: when there are none.
    """
    spectrum, events = _spectrum(vectors, hidden), popularity.double().sort().values.cumsum(0)
    found = []
    for plan in _plans(recipe, items):
        parts = shipped_bytes(plan.recipe(recipe), items, categories=categories, all_offered=all_offered)
        if plan.codes == "none":
            bits = plan.width * float(plan.table_bits)
        else:
            bits = plan.tables * (plan.rows - 1).bit_length() * _USED[plan.rows]
        missed = _missed(spectrum[: plan.width], bits)
        if plan.paired:
            share = float(events[round(plan.paired * items) - 1] / events[-1])  # of the items whose codes come in pairs
            missed += share * (_missed(spectrum[: plan.width], bits / 2) - missed)
        halvings = math.log2(recipe.model.width / plan.width)
        loss = _BY_ERROR * missed + _BY_HALVING * halvings**2
        if plan.blocks == 1:
            loss += _BY_BLOCKS if recipe.model.history <= _SHORT else _BY_BLOCKS_LONG
        found.append(Candidate(plan=plan, size=sum(parts.values()), loss=loss))
    best: list[Candidate] = []
    for candidate in sorted(found, key=lambda candidate: (candidate.size, candidate.loss)):
        if not best or candidate.loss < best[-1].loss:
            best.append(candidate)
    if not best:
        raise ConfigError(f"{items} items are too few for a model of width {recipe.model.width} to be made smaller")
    return best


def _plans(recipe: Recipe, items: int) -> Iterator[Plan]:
    heads = getattr(recipe.model.encoder, "heads", 1)
    widest = recipe.model.vector_width
    for width in sorted({*_WIDTHS, widest}):
        if width > min(widest, items) or width % heads:
            continue
        for blocks in (None, 1) if getattr(recipe.model.encoder, "blocks", 1) > 1 else (None,):
            for tables, rows, paired in itertools.product(_TABLES, _ROWS, _PAIRED):
                few = 3 * rows > items * (paired or 1) or rows ** (tables // 2 if paired else tables) < 4 * items
                if width % tables or few or (paired and tables % 2):
                    continue
                yield Plan(width=width, tables=tables, rows=rows, paired=paired, blocks=blocks)
            for bits in (4, 8):
                yield Plan(width=width, codes="none", table_bits=bits, blocks=blocks)


def _spectrum(vectors: Tensor, hidden: Tensor) -> Tensor:
    """Variances of scores by principal component, largest first."""
    metric = hidden.T @ hidden / len(hidden)
    stretch = torch.linalg.cholesky(metric + 1e-4 * metric.diagonal().mean() * torch.eye(len(metric)))
    values: Tensor = torch.linalg.svdvals(vectors @ stretch).square()
    return values


def _missed(variances: Tensor, bits: float) -> float:
    """The share of variance that `bits` a vector cannot hold of Gaussian components (reverse water-filling, Cover and
    Thomas, "Elements of Information Theory", section 10.3.3)."""
    low, high = torch.zeros(()), variances.max()
    for _ in range(60):
        level = (low + high) / 2
        needed = (variances / level).clamp(min=1).log2().sum() / 2
        low, high = (level, high) if needed > bits else (low, level)
    return float(variances.clamp(max=float(high)).sum() / variances.sum())


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A plan that was carried out."""

    plan: Plan
    """The plan."""
    folder: Path
    """Its run folder."""
    parts: dict[str, int]
    """Bytes of its bundle by part, likewise."""
    figure: float
    """Its validation nDCG@10."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def choose_for_size(
    compression: Compression, known: Sequence[Candidate], target: int, tries: int, tell: Callable[[Tried], None]
) -> list[Tried]:
    """Carry out the plans that should lose least in at most `target` bytes. The best on validation comes first.

    Raises:
        ConfigError: when no plan is as small.
    """
    fitting = sorted((one for one in known if one.size + MARGIN <= target), key=lambda one: one.loss)
    if not fitting:
        least = min(one.size for one in known) + MARGIN
        raise ConfigError(f"no plan takes {target:,} bytes or less: the smallest takes {least:,}")
    tried: list[Tried] = []
    for candidate in fitting[:tries]:
        tried.append(_carry_out(compression, candidate.plan))
        tell(tried[-1])
    return sorted((one for one in tried if one.size <= target), key=lambda one: -one.figure)


def choose_for_loss(
    compression: Compression,
    known: Sequence[Candidate],
    figure: float,
    max_loss: float,
    tries: int,
    tell: Callable[[Tried], None],
) -> list[Tried]:
    """Look for the smallest plan that keeps `1 - max_loss` of `figure` on validation: the estimates of loss are
    corrected by what the plan before has lost, and the smallest that should do is carried out next. The smallest that
    does comes first, or else the best."""
    tried: list[Tried] = []
    ratio, left = 1.0, sorted(known, key=lambda one: one.size)
    while left and len(tried) < tries:
        candidate = next((one for one in left if one.loss * ratio <= max_loss), left[-1])
        tried.append(_carry_out(compression, candidate.plan))
        tell(tried[-1])
        lost = 1 - tried[-1].figure / figure if figure > 0 else 0.0
        ratio = max(lost, 0.001) / max(candidate.loss, 0.001)
        if lost <= max_loss:
            left = [one for one in left if one.size < candidate.size]
        else:
            left = [one for one in left if one.size > candidate.size]
    keeping = [one for one in tried if one.figure >= (1 - max_loss) * figure]
    first = min(keeping, key=lambda one: one.size) if keeping else max(tried, key=lambda one: one.figure)
    return [first, *(one for one in tried if one is not first)]


def _carry_out(compression: Compression, plan: Plan) -> Tried:
    folder = compression.run(plan)
    progress = RunHeader.read(folder).progress
    parts = shipped_parts(load_run(folder, device=torch.device("cpu")))
    return Tried(plan=plan, folder=folder, parts=parts, figure=progress["validation nDCG@10"])
