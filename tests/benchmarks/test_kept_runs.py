"""Evaluated runs that outlive their folders."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lsan.comparison.entries import find_entries
from lsan.comparison.outcomes import Costs, Outcome
from lsan.comparison.rows import compare
from lsan.data.dataset import Dataset
from lsan.evaluation.metrics import accuracy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from kept_runs import KeptRuns

ENTRIES = find_entries(["markov", "lsan"], seeds=2)


def dataset(content_hash: str = "abc") -> Dataset:
    return cast("Dataset", SimpleNamespace(content_hash=content_hash, path=Path("table")))


def outcome(number: int) -> Outcome:
    random = np.random.default_rng(number)
    ranks = random.integers(1, 90, 300) / 2 + 0.5  # ties make halves
    ranks[:20] = np.inf
    return Outcome(
        entry=ENTRIES[number],
        costs=Costs(parameters=3, bytes=12, training_seconds=1.5, recommendation_microseconds=2.0),
        figures={"cases": 300},
        users=np.arange(300),
        ranks={"unseen items": ranks, "all items": ranks + 1},
    )


def keep(path: Path, outcomes: list[Outcome]) -> None:
    kept = KeptRuns(path, dataset())
    for one in outcomes:
        kept.add(one, {"commit": "c0ffee"})


def test_metrics_survive(tmp_path: Path) -> None:
    path, made = tmp_path / "table.json", [outcome(number) for number in range(3)]
    keep(path, made[:1])
    keep(path, made[1:])  # a later session
    there = KeptRuns(path, dataset()).outcomes(ENTRIES)
    assert list(there) == ["markov", "lsan-0", "lsan-1"]
    for one, entry in zip(made, ENTRIES, strict=True):
        again = there[entry.label]
        assert (again.costs, again.figures) == (one.costs, one.figures)
        assert np.array_equal(again.users, one.users)
        for policy, ranks in one.ranks.items():
            for name, values in accuracy(ranks).items():
                np.testing.assert_array_equal(accuracy(again.ranks[policy])[name], values)


def test_what_another_process_adds_meanwhile_stays(tmp_path: Path) -> None:
    path, made = tmp_path / "table.json", [outcome(number) for number in range(3)]
    one, other = KeptRuns(path, dataset()), KeptRuns(path, dataset())
    one.add(made[0], {})
    other.add(made[1], {})
    one.add(made[2], {})
    other.write(compare(list(other.outcomes(ENTRIES).values()), dataset(), "test"), note="said beside the table")
    there = KeptRuns(path, dataset()).outcomes(ENTRIES)
    assert list(there) == ["markov", "lsan-0", "lsan-1"]
    content = json.loads(path.read_text())
    assert list(content["runs"]) == ["markov", "lsan-0", "lsan-1"]
    assert content["note"] == "said beside the table"
    assert {row["name"] for row in content["rows"]} == {"markov", "lsan"}


def test_a_run_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    keep(path, [outcome(1)])
    newer = outcome(1)
    newer.ranks["unseen items"][:] = 1
    keep(path, [newer])
    assert (KeptRuns(path, dataset()).outcomes(ENTRIES)["lsan-0"].ranks["unseen items"] == 1).all()


@pytest.mark.parametrize("change", ["data", "recipe", "ranks"])
def test_what_is_of_something_else_is_forgotten(tmp_path: Path, change: str) -> None:
    path = tmp_path / "table.json"
    keep(path, [outcome(1)])
    content: dict[str, Any] = json.loads(path.read_text())
    if change == "recipe":
        content["runs"]["lsan-0"]["recipe"]["model"]["width"] = 7
    if change == "ranks":
        path.with_suffix(".ranks.parquet").unlink()
    path.write_text(json.dumps(content))
    data = dataset("other" if change == "data" else "abc")
    assert KeptRuns(path, data).outcomes(ENTRIES) == {}


def test_a_setting_that_came_later_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    keep(path, [outcome(1)])
    content = json.loads(path.read_text())
    assert content["runs"]["lsan-0"]["recipe"]["model"].pop("quantisation", "absent") is None
    path.write_text(json.dumps(content))
    assert list(KeptRuns(path, dataset()).outcomes(ENTRIES)) == ["lsan-0"]
