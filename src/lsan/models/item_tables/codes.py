"""First codes of items, from vectors of them or from nothing: what a `CodedTable` begins with."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.config import CodedTableConfig
from lsan.models.item_tables.coded import ItemCodes, distinct

#: Rounds of Lloyd's algorithm.
_ROUNDS = 20

#: Share of plain squared error in what is made small, beside that of scores: the vectors are also what histories read.
_PLAIN = 0.1


def make_codes(
    vectors: Float[Tensor, "items width"],
    config: CodedTableConfig,
    seed: int,
    *,
    hidden: Float[Tensor, "samples width"] | None = None,
    weights: Float[Tensor, " items"] | None = None,
) -> ItemCodes:
    """Codes of the kind that a recipe names.

    - *product*: principal components are dealt out to the parts so that all have the same product of variances (Ge et
      al. 2013, "Optimized product quantization", section 3.2), and each part takes the nearest of K means. With
      `paired` the items of least weight take the nearest of K means of every two parts together, and each part's rows
      are means of what the other items want of it and of these means.
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
    if config.codes == "product":
        left, values, right = torch.linalg.svd(stretched, full_matrices=False)
        order = _order(values.square(), config)
        vectors, turn = (left * values)[:, order], (right @ back)[order]
        parts = [part.contiguous() for part in vectors.unflatten(1, (config.tables, -1)).unbind(1)]
        if config.paired:
            codes = _paired(parts, config, seed, torch.ones(items) if weights is None else weights)
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
    return ItemCodes(codes=distinct(codes, tables, parts), weight=tables.flatten(0, 1), turn=turn)


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


def _paired(parts: list[Tensor], config: CodedTableConfig, seed: int, weights: Tensor) -> Tensor:
    """Codes of which the `paired` share of the items, those of least weight, use few pairs in every two tables."""
    count = round(config.paired * len(weights))
    if 0 < count < config.rows:
        raise ValueError(f"{count} items cannot fill {config.rows} pairs of rows: ask for a larger share, or for none")
    order = weights.argsort(stable=True)
    common, others = order[:count], order[count:]
    both = [torch.cat(parts[n : n + 2], dim=1)[common] for n in range(0, len(parts), 2)]
    found = [_nearest_means(two, config.rows, seed + n, weights[common]) for n, two in enumerate(both)]
    pairs = distinct(torch.stack([cells for _, cells in found], 1), torch.stack([means for means, _ in found]), both)
    codes = torch.zeros(len(weights), len(parts), dtype=torch.int64)
    for n, part in enumerate(parts):
        mean, pair = found[n // 2][0].chunk(2, dim=1)[n % 2], pairs[:, n // 2]
        mass = torch.zeros(config.rows).index_add_(0, pair, weights[common])
        wanted, counting = torch.cat([part[others], mean]), torch.cat([weights[others], mass])
        _, rows = _nearest_means(wanted, config.rows, seed + len(found) + n, counting)
        codes[others, n], codes[common, n] = rows[: len(others)], rows[len(others) :][pair]
    return codes


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


def _means(part: Tensor, codes: Tensor, rows: int, weights: Tensor | None) -> Tensor:
    """The mean of the items of each row, zero for a row without."""
    weights = torch.ones(len(part)) if weights is None else weights
    total = torch.zeros(rows).index_add_(0, codes, weights)
    sums = part.new_zeros(rows, part.shape[1]).index_add_(0, codes, part * weights[:, None])
    return sums / total.clamp(min=1e-12)[:, None]
