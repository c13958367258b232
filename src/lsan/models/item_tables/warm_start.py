"""First item vectors from what was near to what in training, so that a network need not discover it step by step."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.models.events import near_pairs

IntArray = npt.NDArray[np.int64]

#: Two events of one user are near when at most this many steps apart; at distance d they count 1 / d.
NEAR = 5

#: Events that are counted at most; of a longer log the first users' are, to bound the memory for pairs.
MOST_EVENTS = 5_000_000

#: Standard deviation of the numbers in the vectors.
DEVIATION = 0.05


def cooccurrence_vectors(users: IntArray, events: IntArray, items: int, width: int) -> Float[Tensor, "items width"]:
    """`U sqrt(S)` of `(D + t)^-1/2 A (D + t)^-1/2`, cut to its `width` largest singular values, scaled to `DEVIATION`.

    A counts how often two items were near, D has its row sums, and t is a quarter of their mean: the regularised
    Laplacian of Qin and Rohe (2013, "Regularized spectral clustering under the degree-corrected stochastic
    blockmodel", section 2), who take the whole mean. Without t, pairs of rare items crowd out all else. The randomised
    decomposition draws from torch's generator.

    Args:
        users: user of each training event, in the order of the dataset. Shape [events].
        events: item index 1..V of each. Shape [events].
        items: V.
        width: D.
    """
    row, column, weight = _near_pairs(users[:MOST_EVENTS], events[:MOST_EVENTS] - 1, items)
    vectors = torch.randn(items, width) * DEVIATION
    if len(row) == 0:
        return vectors
    total = np.bincount(row, weights=weight, minlength=items)
    total += total.mean() / 4
    strength = torch.from_numpy(weight / np.sqrt(total[row] * total[column])).float()
    place = torch.from_numpy(np.stack([row, column]))
    matrix = torch.sparse_coo_tensor(place, strength, (items, items), check_invariants=True)
    rank = min(width, items)
    left, values, _ = torch.svd_lowrank(matrix, q=min(rank + 10, items), niter=4)
    known = left[:, :rank] * values[:rank].sqrt()
    deviation = known.std()
    if deviation > 0:
        vectors[:, :rank] = known * (DEVIATION / deviation)
    return vectors


def _near_pairs(users: IntArray, items: IntArray, size: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Row, column and weight of each pair of items that were near, both ways round."""
    keys, weights = [], []
    for other, one, distance in near_pairs(users, items, NEAR):
        keys += [one * size + other, other * size + one]
        weights.append(np.full(2 * len(one), 1 / distance))
    key, pair_of = np.unique(np.concatenate(keys), return_inverse=True)
    weight = np.bincount(pair_of, weights=np.concatenate(weights)).astype(np.float64)
    return key // size, key % size, weight
