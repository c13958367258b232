"""Bootstrap confidence intervals of a mean over users."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def bootstrap_interval(
    values: FloatArray,
    groups: npt.NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Percentile interval of the mean of each column, by resampling groups (users) with replacement.

    A user's cases stay together: they are not independent (Davison & Hinkley 1997, section 3.8).

    Args:
        values: one row a case. Shape [cases, metrics].
        groups: user of each case. Shape [cases].

    Returns:
        Lower and upper bounds. Shape [metrics] each.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = np.bincount(group).astype(np.float64)
    sums = np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for resample in range(resamples):
        weight = np.bincount(random.integers(0, len(count), len(count)), minlength=len(count)).astype(np.float64)
        means[resample] = (weight @ sums) / (weight @ count)
    tail = (1 - level) / 2
    lower, upper = np.quantile(means, [tail, 1 - tail], axis=0)
    return lower, upper
