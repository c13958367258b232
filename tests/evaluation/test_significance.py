"""The bootstrap over users."""

import time

import numpy as np
import pytest

from lsan.evaluation.significance import bootstrap_interval


def column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)[:, None]


def test_it_holds_the_mean_and_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(3, 2, 2000)
    low, high = bootstrap_interval(column(values), np.arange(2000))
    assert low[0] < values.mean() < high[0]
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.1)
    assert (low[0] + high[0]) / 2 == pytest.approx(values.mean(), abs=0.02)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = bootstrap_interval(column(random.random(80) < 0.3), np.arange(80), resamples=300)
        held += bool(low[0] <= 0.3 <= high[0])
    assert 178 <= held <= 199


def test_it_is_the_same_every_time_and_follows_its_seed() -> None:
    values = column(np.random.default_rng(0).random(100))
    first = bootstrap_interval(values, np.arange(100))
    assert np.array_equal(first, bootstrap_interval(values, np.arange(100)))
    assert not np.array_equal(first, bootstrap_interval(values, np.arange(100), seed=1))


def test_fewer_users_make_it_wider() -> None:
    values = np.random.default_rng(0).random(4000)
    widths = []
    for users in (50, 400, 4000):
        low, high = bootstrap_interval(column(values[:users]), np.arange(users))
        widths.append(high[0] - low[0])
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_the_cases_of_a_user_stay_together() -> None:
    """Ten equal cases of each user carry no more than one: the interval is as wide as that of one each."""
    values = np.random.default_rng(0).normal(size=200)
    low, high = bootstrap_interval(column(values), np.arange(200))
    many_low, many_high = bootstrap_interval(column(np.repeat(values, 10)), np.repeat(np.arange(200), 10))
    assert many_low == pytest.approx(low)
    assert many_high == pytest.approx(high)
    loose_low, loose_high = bootstrap_interval(column(np.repeat(values, 10)), np.arange(2000))
    assert many_high - many_low > 2.5 * (loose_high - loose_low)


def test_users_weigh_as_many_cases_as_they_have() -> None:
    """One user with three ones, one with a zero: resampled means are 0, 3/4 and 1."""
    low, high = bootstrap_interval(column(np.array([1, 1, 1, 0])), np.array([7, 7, 7, 40]))
    assert (low[0], high[0]) == (0, 1)
    low, high = bootstrap_interval(column(np.array([1, 1, 1, 0])), np.array([7, 7, 7, 40]), level=0.2)
    assert (low[0], high[0]) == (0.75, 0.75)


def test_columns_are_resampled_together() -> None:
    values = np.random.default_rng(0).random((100, 1))
    low, high = bootstrap_interval(np.hstack([values, 2 * values, 0 * values]), np.arange(100))
    assert low[1] == pytest.approx(2 * low[0])
    assert high[1] == pytest.approx(2 * high[0])
    assert (low[2], high[2]) == (0, 0)


def test_one_user_has_no_spread() -> None:
    low, high = bootstrap_interval(column(np.array([0.5])), np.array([3]))
    assert (low[0], high[0]) == (0.5, 0.5)


def test_twenty_two_thousand_users_take_seconds_at_most() -> None:
    values = np.random.default_rng(0).random((22_363, 9))
    started = time.process_time()
    bootstrap_interval(values, np.arange(22_363))
    assert time.process_time() - started < 3
