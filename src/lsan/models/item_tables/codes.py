"""First codes of items, from vectors of them or from nothing: what a `CodedTable` begins with."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.config import CodedTableConfig
from lsan.models.item_tables.coded import ItemCodes, distinct
from lsan.models.quantisation import SHORT

#: Rounds of Lloyd's algorithm.
_ROUNDS = 20

#: Share of plain squared error in what is made small, beside that of scores: the vectors are also what histories read.
_PLAIN = 0.1

#: What is added to the second derivative of the loss by an item's vector, which is known from a sample only, as shares
#: of its trace: that of all items, and plain squared error. Several times as much is level (docs/log.md).
_COMMON, _EVEN = 1.0, 0.5

#: Times that each item's row in each table is chosen again, given its other rows.
_SWEEPS = 6

#: Items, and hidden vectors, that are worked on at once.
_BLOCK = 1024


def make_codes(
    vectors: Float[Tensor, "items width"],
    config: CodedTableConfig,
    seed: int,
    *,
    hidden: Float[Tensor, "samples width"] | None = None,
    bias: Float[Tensor, " items"] | None = None,
    weights: Float[Tensor, " items"] | None = None,
) -> ItemCodes:
    """Codes of the kind that a recipe names.

    - *product*: principal components are dealt out to the parts so that all have the same product of variances (Ge et
      al. 2013, "Optimized product quantization", section 3.2), and each part takes the nearest of K means. With
      `paired` the items of least weight take the nearest of K means of every two parts together, and each part's rows
      are means of what the other items want of it and of these means. With `bias` each item then chooses its rows
      again, by what they do to the cross-entropy rather than by what they are nearest to (`_chosen_by_loss`).
    - *additive*: residual quantisation with a beam through all tables (Liu et al. 2015, "Improved residual vector
      quantization"), without `weights`.
    - *quantiles*: the row in table n is the quantile of the item in singular vector n (RecJPQ, Petrov and Macdonald
      2024).
    - *random*: each row as often as the others.

    Args:
        vectors: of the items 1..V, entry v - 1.
        config: kind, tables N and rows K.
        seed: of the random numbers.
        hidden: vectors that items are scored with. Product and additive codes then make the error of scores small,
            `|H (w - w')|^2`, rather than that of vectors.
        bias: of the items, with `hidden` for product codes: what the scores are, so what errors do to predictions.
        weights: how much the error of each item counts.

    Raises:
        ValueError: when there are more items than codes, or fewer than rows or the width.
    """
    items, width = vectors.shape
    if items < config.rows and config.codes in ("product", "additive"):
        raise ValueError(f"{items} items cannot fill {config.rows} rows: ask for fewer")
    if items < width:
        raise ValueError(f"{items} items cannot fill a width of {width}: ask for less")
    metric = torch.eye(width)
    if hidden is not None:
        metric = hidden.T @ hidden / len(hidden)
        metric = metric / metric.diagonal().mean() + _PLAIN * torch.eye(width)
    stretch = torch.linalg.cholesky(metric.double()).float()
    stretched = vectors @ stretch
    back = torch.linalg.inv(stretch)
    if config.codes == "additive":
        codes, tables = _residual(stretched, config, seed)
        chosen = torch.stack([table[codes[:, n]] for n, table in enumerate(tables)])
        wanted = list(chosen + (stretched - chosen.sum(0)))
        return ItemCodes(codes=distinct(codes, tables, wanted), weight=tables.flatten(0, 1) @ back, turn=None)
    turn = torch.eye(width)
    pairs = None
    if config.codes == "product":
        left, values, right = torch.linalg.svd(stretched, full_matrices=False)
        order = _order(values.square(), config)
        vectors, turn = (left * values)[:, order], (right @ back)[order]
        parts = [part.contiguous() for part in vectors.unflatten(1, (config.tables, -1)).unbind(1)]
        if config.paired:
            codes, pairs = _paired(parts, config, seed, torch.ones(items) if weights is None else weights)
        else:
            columns = [_nearest_means(part, config.rows, seed + n, weights)[1] for n, part in enumerate(parts)]
            codes = torch.stack(columns, dim=1)
    else:
        parts = list(vectors.unflatten(1, (config.tables, -1)).unbind(1))
        if config.codes == "quantiles":
            left, _, _ = torch.linalg.svd(vectors, full_matrices=False)
            places = left[:, : config.tables].argsort(dim=0, stable=True).argsort(dim=0)
        else:
            generator = torch.Generator().manual_seed(seed)
            places = torch.stack([torch.randperm(items, generator=generator) for _ in parts], dim=1)
        codes = places * config.rows // items
    tables = torch.stack([_means(part, codes[:, n], config.rows, weights) for n, part in enumerate(parts)])
    if config.codes == "product" and hidden is not None and bias is not None:
        loss = _Loss.of(vectors, bias, hidden @ turn.T, turn @ turn.T)
        codes = _chosen_by_loss(loss, tables, codes, pairs)
    codes = distinct(codes, tables, parts)
    if config.codes == "product" and width >= SHORT:
        tables, turn = _levelled(tables, turn)
    return ItemCodes(codes=codes, weight=tables.flatten(0, 1), turn=turn)


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Which items' codes come in pairs, and in which."""

    common: Tensor
    """Places of the items whose codes come in pairs."""
    others: Tensor
    """Places of the others."""
    chosen: Tensor
    """Which pair of every two tables those use. Shape [common, tables / 2]."""
    rows: Tensor
    """The pairs: row in the first and in the second table. Shape [tables / 2, pairs, 2]."""

    def codes(self, others: Tensor, chosen: Tensor) -> Tensor:
        """Codes of all items, from codes of the others and from pairs."""
        codes = torch.empty(len(self.common) + len(self.others), 2 * len(self.rows), dtype=torch.int64)
        codes[self.others] = others
        codes[self.common] = torch.stack([pair[chosen[:, n]] for n, pair in enumerate(self.rows)], dim=1).flatten(1)
        return codes


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """The second derivative of the mean cross-entropy by each item's vector, `sum_h p (1 - p) h h^T` with p the item's
    probability in the context that h stands for, smoothed and scaled to be of one trace."""

    vectors: Tensor
    """Of the items, as they are wanted. Shape [items, width]."""
    bias: Tensor
    """Of the items. Shape [items]."""
    hidden: Tensor
    """A sample of the vectors that items are scored with. Shape [samples, width]."""
    total: Tensor
    """Logarithm of the sum of the exponentials of all scores. Shape [samples]."""
    prior: Tensor
    """What is added. Shape [width, width]."""

    @classmethod
    def of(cls, vectors: Tensor, bias: Tensor, hidden: Tensor, even: Tensor) -> "_Loss":
        """`even` is the matrix of plain squared error in these coordinates."""
        total = torch.cat([(some @ vectors.T + bias).logsumexp(1) for some in hidden.split(_BLOCK)])
        common = hidden.T @ hidden
        prior = _COMMON * common / common.trace() + _EVEN * even / even.trace()
        return cls(vectors=vectors, bias=bias, hidden=hidden, total=total, prior=prior)

    def curvature(self, items: Tensor) -> Tensor:
        """For the items at these places. Shape [items, width, width]."""
        width, vectors, bias = self.vectors.shape[1], self.vectors[items], self.bias[items]
        sums = torch.zeros(len(items), width * width)
        for some, total in zip(self.hidden.split(_BLOCK), self.total.split(_BLOCK), strict=True):
            share = (some @ vectors.T + bias - total[:, None]).exp()
            sums.addmm_((share * (1 - share)).T, (some[:, :, None] * some[:, None, :]).flatten(1))
        matrices = sums.unflatten(1, (width, width))
        traces = matrices.diagonal(dim1=1, dim2=2).sum(1)
        smoothed: Tensor = matrices / traces.clamp(min=1e-30)[:, None, None] + self.prior
        return smoothed


def _chosen_by_loss(loss: _Loss, tables: Tensor, codes: Tensor, pairs: _Pairs | None) -> Tensor:
    """Codes by what they do to the loss, to the second order and for each item alone. An unpopular item comes into
    question in few contexts, so most directions of its error do no harm, and an error in one part is made up for in
    another (as for the weights of a layer in Frantar et al. 2023, "GPTQ")."""
    if pairs is None:
        return _settled(loss, torch.arange(len(codes)), tables, codes)
    both = torch.stack([
        torch.cat([table[pair[:, side]] for side, table in enumerate(two)], dim=1)
        for two, pair in zip(tables.split(2), pairs.rows, strict=True)
    ])  # fmt: skip
    chosen = _settled(loss, pairs.common, both, pairs.chosen)
    wanted = list(loss.vectors[pairs.common].unflatten(1, (len(both), -1)).unbind(1))
    others = _settled(loss, pairs.others, tables, codes[pairs.others])
    return pairs.codes(others, distinct(chosen, both, wanted))


def _settled(loss: _Loss, items: Tensor, tables: Tensor, codes: Tensor) -> Tensor:
    """The codes of some items, improved one table after the other while the other tables' rows stay (iterated
    conditional modes)."""
    part, result = tables.shape[2], codes.clone()
    squares = (tables[:, :, :, None] * tables[:, :, None, :]).flatten(2)
    for block in torch.arange(len(items)).split(_BLOCK):
        wanted, curvature, found = loss.vectors[items[block]], loss.curvature(items[block]), result[block]
        error = wanted - torch.stack([table[found[:, n]] for n, table in enumerate(tables)], dim=1).flatten(1)
        for _ in range(_SWEEPS):
            for n, table in enumerate(tables):
                here = slice(n * part, (n + 1) * part)
                error[:, here] = wanted[:, here]  # without this row
                slope = torch.einsum("ipw,iw->ip", curvature[:, here], error)
                cost = curvature[:, here, here].flatten(1) @ squares[n].T - 2 * slope @ table.T
                found[:, n] = cost.argmin(1)
                error[:, here] -= table[found[:, n]]
        result[block] = found
    return result


def _order(variances: Tensor, config: CodedTableConfig) -> Tensor:
    """The components as they are dealt out to the parts; with pairs, to every two parts first."""
    if not config.paired:
        return _dealt(variances, config.tables)
    pairs = _dealt(variances, config.tables // 2).chunk(config.tables // 2)
    return torch.cat([pair[_dealt(variances[pair], 2)] for pair in pairs])


def _dealt(variances: Tensor, parts: int) -> Tensor:
    """An order of the components, largest first in `variances`, in which those of a part are side by side: each goes to
    the part with room whose variances have the least product so far."""
    room, sums = [len(variances) // parts] * parts, [0.0] * parts
    members: list[list[int]] = [[] for _ in range(parts)]
    logs = (variances / variances[-1].clamp(min=variances[0] * 1e-12)).clamp(min=1).log().tolist()
    for component, log in enumerate(logs):
        part = min((p for p in range(parts) if room[p]), key=lambda p: sums[p])
        members[part].append(component)
        sums[part] += log
        room[part] -= 1
    return torch.tensor([component for part in members for component in part])


def _paired(parts: list[Tensor], config: CodedTableConfig, seed: int, weights: Tensor) -> tuple[Tensor, _Pairs]:
    """Codes of which the `paired` share of the items, those of least weight, use few pairs in every two tables."""
    count = round(config.paired * len(weights))
    if count < config.rows:
        raise ValueError(f"{count} items cannot fill {config.rows} pairs of rows: ask for a larger share, or for none")
    order = weights.argsort(stable=True)
    common, others = order[:count], order[count:]
    both = [torch.cat(parts[n : n + 2], dim=1)[common] for n in range(0, len(parts), 2)]
    found = [_nearest_means(two, config.rows, seed + n, weights[common]) for n, two in enumerate(both)]
    chosen = distinct(torch.stack([cells for _, cells in found], 1), torch.stack([means for means, _ in found]), both)
    own = torch.zeros(len(others), len(parts), dtype=torch.int64)
    rows = torch.zeros(len(both), config.rows, 2, dtype=torch.int64)
    for n, part in enumerate(parts):
        mean, pair = found[n // 2][0].chunk(2, dim=1)[n % 2], chosen[:, n // 2]
        mass = torch.zeros(config.rows).index_add_(0, pair, weights[common])
        wanted, counting = torch.cat([part[others], mean]), torch.cat([weights[others], mass])
        _, nearest = _nearest_means(wanted, config.rows, seed + len(found) + n, counting)
        own[:, n], rows[n // 2, :, n % 2] = nearest[: len(others)], nearest[len(others) :]
    pairs = _Pairs(common=common, others=others, chosen=chosen, rows=rows)
    return pairs.codes(own, chosen), pairs


def _nearest_means(part: Tensor, rows: int, seed: int, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """K means, and which of them each vector is nearest to."""
    import faiss  # 0.3 s, so only where codes are made

    vectors = np.ascontiguousarray(part.numpy(), dtype=np.float32)
    means = faiss.Kmeans(part.shape[1], rows, niter=_ROUNDS, seed=seed % 2**31, min_points_per_centroid=1)
    means.train(vectors, weights=None if weights is None else weights.float().numpy())
    _, nearest = means.index.search(vectors, 1)
    centroids = torch.from_numpy(np.array(means.centroids).reshape(rows, -1))
    return centroids, torch.from_numpy(nearest[:, 0])


def _residual(vectors: Tensor, config: CodedTableConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Codes, and rows [tables, rows, width], of a residual quantiser that is trained on the vectors."""
    import faiss

    bits = (config.rows - 1).bit_length()
    quantiser = faiss.ResidualQuantizer(vectors.shape[1], config.tables, bits)
    quantiser.cp.seed, quantiser.cp.min_points_per_centroid, quantiser.max_beam_size = seed % 2**31, 1, 8
    array = np.ascontiguousarray(vectors.numpy(), dtype=np.float32)
    quantiser.train(array)
    spread = np.unpackbits(quantiser.compute_codes(array), axis=1, bitorder="little")[:, : config.tables * bits]
    codes = (spread.reshape(len(array), config.tables, bits) << np.arange(bits)).sum(2)
    tables = faiss.vector_to_array(quantiser.codebooks).reshape(config.tables, config.rows, -1)
    return torch.from_numpy(codes), torch.from_numpy(tables)


def _levelled(tables: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """The same vectors from rows whose components all have the same mean square, so that one scale for all rows rounds
    none of them more coarsely than another; the rows of the turn, which have scales of their own, make up for it."""
    size = tables.square().mean(1).sqrt()
    stretch = torch.where(size > 0, size.square().mean().sqrt() / size, 1.0).clamp(max=1e6)
    return tables * stretch[:, None], turn / stretch.flatten()[:, None]


def _means(part: Tensor, codes: Tensor, rows: int, weights: Tensor | None) -> Tensor:
    """The mean of the items of each row, zero for a row without."""
    weights = torch.ones(len(part)) if weights is None else weights
    total = torch.zeros(rows).index_add_(0, codes, weights)
    sums = part.new_zeros(rows, part.shape[1]).index_add_(0, codes, part * weights[:, None])
    return sums / total.clamp(min=1e-12)[:, None]
