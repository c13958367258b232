"""The simulated shop: its log is what its process says, and its oracle is above the simple baselines."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lsan.cli import main
from lsan.data.shop import Bools, Floats, Ints
from lsan.data.simulate import (
    FIRST_SECOND,
    ShopConfig,
    Simulation,
    next_item_probabilities,
    oracle_probabilities,
    project_probabilities,
    simulate_shop,
)
from lsan.errors import ConfigError

SMALL = ShopConfig(users=1_200, items=250)
TINY = ShopConfig(users=60, items=60, mean_events=12, days=35)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate_shop(SMALL)


@pytest.fixture(scope="module")
def some_events(simulation: Simulation) -> Ints:
    return np.random.default_rng(1).choice(len(simulation.item), 6_000, replace=False)


@pytest.fixture(scope="module")
def probabilities(simulation: Simulation, some_events: Ints) -> Floats:
    """[6000, V]"""
    return next_item_probabilities(simulation.shop, simulation.states(some_events))


def test_equal_configurations_give_equal_logs_and_another_seed_another() -> None:
    first, again = simulate_shop(TINY), simulate_shop(TINY)
    other = simulate_shop(dataclasses.replace(TINY, seed=1))
    assert first.interactions.write_csv() == again.interactions.write_csv()
    assert first.items.write_csv() == again.items.write_csv()
    assert first.interactions.write_csv() != other.interactions.write_csv()
    assert first.items.write_csv() != other.items.write_csv()


def test_default_catalogue_has_the_promised_sizes_and_unique_readable_titles() -> None:
    default = ShopConfig()
    assert (default.users, default.items) == (5_000, 2_000)
    items = simulate_shop(dataclasses.replace(default, users=20)).items
    assert items.height == 2_000
    assert items["item"].n_unique() == 2_000
    assert items["title"].n_unique() == 2_000
    assert items["category"].n_unique() == 20
    assert items["title"].str.contains(r"^[A-Z][A-Za-z'-]+( [A-Za-z'-]+)+$").all()


def test_largest_catalogue_still_has_unique_titles() -> None:
    items = simulate_shop(dataclasses.replace(TINY, items=8_000)).items
    assert items["title"].n_unique() == items["item"].n_unique() == 8_000


def test_log_is_chronological_and_every_shopper_can_be_tested(simulation: Simulation) -> None:
    log = simulation.interactions
    assert log.columns == ["user", "item", "timestamp"]
    assert log["timestamp"].is_sorted()
    assert log["user"].n_unique() == SMALL.users
    assert np.diff(simulation.offsets).min() >= 3
    assert log.height / SMALL.users == pytest.approx(SMALL.mean_events, rel=0.05)
    same_user = np.diff(simulation.user) == 0
    assert (np.diff(simulation.timestamp)[same_user] > 0).all()
    span = simulation.timestamp - FIRST_SECOND
    assert span.min() >= 0
    assert span.max() < SMALL.days * 86_400


def test_nobody_buys_an_item_twice(simulation: Simulation) -> None:
    assert simulation.interactions.select("user", "item").is_unique().all()


def test_a_shopper_with_everything_starts_over() -> None:
    simulation = simulate_shop(dataclasses.replace(TINY, items=40, mean_events=60))
    assert np.diff(simulation.offsets).max() > 40
    assert simulation.item.min() >= 0


def test_probabilities_are_distributions_that_leave_out_owned_and_unlaunched_items(
    simulation: Simulation, some_events: Ints, probabilities: Floats
) -> None:
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities >= 0).all()
    state = simulation.states(some_events)
    assert not probabilities[state.owned].any()
    week = (state.timestamp - FIRST_SECOND) // 604_800
    appeal = simulation.shop.appeal.reshape(SMALL.weeks, -1)[week, : SMALL.items]
    assert not probabilities[appeal == 0].any()
    assert (probabilities[np.arange(len(some_events)), simulation.item[some_events]] > 0).all()


def test_events_occur_as_often_as_the_stated_probabilities_say(
    simulation: Simulation, some_events: Ints, probabilities: Floats
) -> None:
    """Cells binned by probability: hits of a bin are within 4 standard deviations of their expectation."""
    hit = np.zeros(probabilities.shape, dtype=np.bool_)
    hit[np.arange(len(some_events)), simulation.item[some_events]] = True
    edges = [0.0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0]
    for low, high in pairwise(edges):
        inside = (probabilities > low) & (probabilities <= high)
        p = probabilities[inside]
        assert len(p) > 50
        assert abs(hit[inside].sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_log_likelihood_has_its_expected_value_and_falls_under_shuffled_states(
    simulation: Simulation, some_events: Ints, probabilities: Floats
) -> None:
    rows = np.arange(len(some_events))
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    actual = logs[rows, simulation.item[some_events]]
    expected = (probabilities * logs).sum(axis=1)
    variance = (probabilities * logs**2).sum(axis=1) - expected**2
    assert abs((actual - expected).sum()) < 4 * np.sqrt(variance.sum())
    state = simulation.states(some_events)
    order = np.random.default_rng(2).permutation(rows)
    for name in ("user", "project", "style"):
        changed = {name: getattr(state, name)[order]}
        if name == "project":
            changed["slot"] = state.slot[order]
        other = next_item_probabilities(simulation.shop, dataclasses.replace(state, **changed))
        assert np.log(np.maximum(other[rows, simulation.item[some_events]], 1e-12)).mean() < actual.mean() - 0.02


def test_drawn_projects_follow_their_stated_distribution(simulation: Simulation) -> None:
    """At the very first event of a shopper, where no owned item is left out."""
    first = simulation.offsets[:-1]
    first = first[simulation.project[first + 1] >= 0]
    p = project_probabilities(simulation.shop, simulation.user[first], simulation.timestamp[first])
    counts = np.bincount(simulation.project[first + 1], minlength=p.shape[1])
    deviations = (counts - p.sum(axis=0)) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert len(first) > 500
    assert abs(deviations).max() < 4


def _dependence(simulation: Simulation, what: str) -> float:
    """Chi-square over degrees of freedom of kinds that begin sessions by time: about 1 if independent."""
    first = simulation.project < 0
    seconds = (simulation.timestamp - FIRST_SECOND)[first]
    times = {
        "hour": seconds // 3_600 % 24 // 6,
        "weekday": seconds // 86_400 % 7,
        "season": seconds // 86_400 // 46,
    }
    kind = (simulation.item % simulation.shop.kinds)[first]
    table = np.zeros((times[what].max() + 1, simulation.shop.kinds))
    np.add.at(table, (times[what], kind), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum() / freedom)


@pytest.fixture(scope="module")
def timeless() -> Simulation:
    return simulate_shop(
        dataclasses.replace(SMALL, hour_strength=0, weekday_strength=0, trend_strength=0, launched_later=0)
    )


@pytest.mark.parametrize("what", ["hour", "weekday", "season"])
def test_hours_weekdays_and_seasons_change_what_is_bought(
    simulation: Simulation, timeless: Simulation, what: str
) -> None:
    assert _dependence(simulation, what) > 1.6
    assert _dependence(timeless, what) < 1.4


def test_popularity_drifts(simulation: Simulation) -> None:
    seconds = simulation.timestamp - FIRST_SECOND
    early, late = seconds < 40 * 86_400, seconds > (SMALL.days - 40) * 86_400
    counts = [np.bincount(simulation.item[part], minlength=SMALL.items) for part in (early, late)]
    tops = [set(np.argsort(-count)[:25].tolist()) for count in counts]
    assert len(tops[0] & tops[1]) < 15
    assert ((counts[0] == 0) & (counts[1] >= 10)).sum() >= 10  # launched in between


def _ndcg(scores: Floats, answers: Ints, owned: Bools) -> float:
    """Mean nDCG@10 over the whole catalogue without what the user owns; ties count as half."""
    scores = np.where(owned, -1.0, scores)
    own = scores[np.arange(len(answers)), answers][:, None]
    ranks = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())


def test_oracle_is_far_above_markov_and_markov_above_popularity(simulation: Simulation) -> None:
    users = np.arange(SMALL.users)
    last = simulation.offsets[1:] - 1
    answers, owned = simulation.item[last], simulation.states(last).owned
    training = np.ones(len(simulation.item), dtype=np.bool_)
    training[last] = False
    popularity = np.bincount(simulation.item[training], minlength=SMALL.items).astype(np.float64)
    pairs = np.flatnonzero(training[1:] & (np.diff(simulation.user) == 0))
    transitions = np.zeros((SMALL.items, SMALL.items))
    np.add.at(transitions, (simulation.item[pairs], simulation.item[pairs + 1]), 1)
    markov = transitions[simulation.item[last - 1]] + popularity / (popularity.sum() + 1)
    by_popularity = _ndcg(np.tile(popularity, (SMALL.users, 1)), answers, owned)
    by_markov = _ndcg(markov, answers, owned)
    by_oracle = _ndcg(oracle_probabilities(simulation, users), answers, owned)
    assert by_oracle > 2 * by_markov
    assert by_markov > 2 * by_popularity


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"items": 39}, "items is 39, expected at least 40"),
        ({"items": 8_001}, "items is 8001, expected at most 8000"),
        ({"users": 0}, "users is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"go_on": 1.0}, "go_on is 1.0"),
        ({"style_concentration": 0.0}, "style_concentration is 0.0"),
    ],
)
def test_impossible_shops_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **setting)


def test_command_writes_the_log_and_the_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop"
    arguments = ["simulate", "--out", str(out), "--users", "30", "--items", "50", "--seed", "7"]
    assert main(arguments) == 0
    expected = simulate_shop(ShopConfig(users=30, items=50, seed=7))
    assert pl.read_csv(out / "log.csv").equals(expected.interactions)
    assert pl.read_csv(out / "items.csv").equals(expected.items)
    assert "50 items" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err
