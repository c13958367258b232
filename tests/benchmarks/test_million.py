"""The simulated log of a large catalogue."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from million import sell_each_once, simulate


def test_every_item_has_an_event_and_few_have_many() -> None:
    log = simulate(5000, 1250, seed=3)
    assert log.equals(simulate(5000, 1250, seed=3))
    assert not log.equals(simulate(5000, 1250, seed=4))
    assert sorted(log["item"].unique().to_list()) == list(range(1, 5001))
    events = np.sort(log["item"].value_counts()["count"].to_numpy())[::-1]
    assert events[:50].sum() > 0.1 * len(log)  # the commonest 1%
    assert np.median(events) <= 3
    lengths = log["user"].value_counts()["count"]
    assert lengths.min() == 5
    assert lengths.mean() == pytest.approx(19.5, rel=0.05)
    assert not log.select("user", "timestamp").is_duplicated().any()


def test_each_place_of_a_cluster_is_there() -> None:
    random = np.random.default_rng(0)
    cluster, size = np.array([1, 0, 1, 0, 1, 1]), np.array([2, 3])
    place = np.zeros(6, dtype=np.int64)
    sell_each_once(cluster, place, size, random)
    assert set(place[cluster == 0]) == {0, 1}
    assert set(place[cluster == 1]) == {0, 1, 2}
    with pytest.raises(ValueError, match="fewer events"):
        sell_each_once(cluster, place, np.array([3, 3]), random)
