"""Bootstrap over users: the interval of a mean, and of the difference between two models on the same cases."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much better one model is than another, by metric. Each of shape [metrics]."""

    mean: FloatArray
    """Mean over cases of the one minus the other."""
    low: FloatArray
    """Lower end of its interval."""
    high: FloatArray
    """Upper end."""
    share: FloatArray
    """Share of the resamples in which the one has the higher mean; equal means count half."""


def bootstrap_interval(
    values: FloatArray,
    groups: IntArray,
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
    tail = (1 - level) / 2
    lower, upper = np.quantile(_resampled_means(values, groups, seed, resamples), [tail, 1 - tail], axis=0)
    return lower, upper


def paired_bootstrap(
    one: FloatArray,
    other: FloatArray,
    groups: IntArray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> PairedDifference:
    """The difference of two models' means of each column, both over the same resampled groups (users).

    Args:
        one: one row a case. Shape [cases, metrics].
        other: the same cases by the other model. Shape [cases, metrics].
        groups: user of each case. Shape [cases].
    """
    difference = one - other
    means = _resampled_means(difference, groups, seed, resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    share = (means > 0).mean(axis=0) + (means == 0).mean(axis=0) / 2
    return PairedDifference(mean=difference.mean(axis=0), low=low, high=high, share=share)


def _resampled_means(values: FloatArray, groups: IntArray, seed: int, resamples: int) -> FloatArray:
    """Mean over cases of each column in each resample of the groups. Shape [resamples, metrics]."""
    _, group = np.unique(groups, return_inverse=True)
    count = np.bincount(group).astype(np.float64)
    sums = np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for resample in range(resamples):
        weight = np.bincount(random.integers(0, len(count), len(count)), minlength=len(count)).astype(np.float64)
        means[resample] = (weight @ sums) / (weight @ count)
    return means
