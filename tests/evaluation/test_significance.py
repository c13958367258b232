"""The bootstrap over users, of one model and of two on the same cases."""

import time

import numpy as np
import pytest

from lsan.evaluation.significance import bootstrap_interval, paired_bootstrap


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


def test_a_paired_difference_is_the_interval_of_the_differences() -> None:
    random = np.random.default_rng(0)
    users = random.integers(0, 60, 300)
    one, other = random.random((300, 2)), random.random((300, 2))
    difference = paired_bootstrap(one, other, users)
    low, high = bootstrap_interval(one - other, users)
    assert np.array_equal(difference.low, low)
    assert np.array_equal(difference.high, high)
    assert difference.mean == pytest.approx(one.mean(axis=0) - other.mean(axis=0))


def test_pairing_sees_what_separate_intervals_cannot() -> None:
    """A constant gain on cases of very different difficulty."""
    values = column(np.random.default_rng(0).random(200))
    users = np.arange(200)
    difference = paired_bootstrap(values + 0.01, values, users)
    assert (difference.low[0], difference.high[0]) == pytest.approx((0.01, 0.01))
    assert difference.share[0] == 1
    assert paired_bootstrap(values, values + 0.01, users).share[0] == 0
    assert bootstrap_interval(values + 0.01, users)[0] < bootstrap_interval(values, users)[1]


def test_a_model_against_itself_is_even() -> None:
    values = column(np.random.default_rng(0).random(50))
    difference = paired_bootstrap(values, values, np.arange(50))
    assert (difference.mean[0], difference.low[0], difference.high[0], difference.share[0]) == (0, 0, 0, 0.5)


def test_the_share_is_where_chance_puts_it() -> None:
    """One user gains 1, one loses 1: two draws give -1, 0, 0 or 1; a user with three cases outweighs one with one."""
    gain, loss = column(np.array([1, 0])), column(np.array([0, 1]))
    difference = paired_bootstrap(gain, loss, np.array([0, 1]), resamples=4000)
    assert difference.share[0] == pytest.approx(0.5, abs=0.03)
    assert (difference.low[0], difference.high[0]) == (-1, 1)
    one, other = column(np.array([1, 1, 1, 0])), column(np.array([0, 0, 0, 1]))
    difference = paired_bootstrap(one, other, np.array([7, 7, 7, 40]), resamples=4000)
    assert difference.mean[0] == 0.5
    assert difference.share[0] == pytest.approx(0.75, abs=0.03)  # -1, 0.5, 0.5 or 1


def test_the_cases_of_a_user_stay_together_in_pairs_too() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(0.1, 1, (200, 1)), random.normal(0, 1, (200, 1))
    single = paired_bootstrap(one, other, np.arange(200))
    many = paired_bootstrap(np.repeat(one, 10, axis=0), np.repeat(other, 10, axis=0), np.repeat(np.arange(200), 10))
    assert (many.low[0], many.high[0], many.share[0]) == pytest.approx((single.low[0], single.high[0], single.share[0]))
