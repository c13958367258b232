"""Metrics as pure functions of ranks. A rank is 1 for the best item, a half-integer under ties, inf for a miss."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def hit_rate(ranks: FloatArray, k: int) -> FloatArray:
    """HR@k of each case: 1 where the answer is among the first k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: FloatArray, k: int) -> FloatArray:
    """nDCG@k of each case with one relevant item: 1 / log2(1 + rank), 0 beyond k."""
    return np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)


def mrr(ranks: FloatArray, k: int) -> FloatArray:
    """MRR@k of each case: 1 / rank, 0 beyond k."""
    return np.where(ranks <= k, 1 / ranks, 0.0)


CUT_OFFS = (5, 10, 20)


def accuracy(ranks: FloatArray) -> dict[str, FloatArray]:
    """HR, nDCG and MRR at 5, 10 and 20 of each case, by name ("nDCG@10")."""
    metrics = {"HR": hit_rate, "nDCG": ndcg, "MRR": mrr}
    return {f"{name}@{k}": metric(ranks, k) for name, metric in metrics.items() for k in CUT_OFFS}
