"""What an evaluation reports, from ranks and lists given by hand."""

import json
import math

import numpy as np
import pytest

from lsan.evaluation.ranking import LIST_LENGTH, Ranking, Rankings
from lsan.evaluation.report import Report, make_report


def lists(*rows: list[int]) -> np.ndarray:
    padded = np.zeros((len(rows), LIST_LENGTH), dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def report(*, popularity: list[int] | None = None, unseen: np.ndarray | None = None) -> Report:
    """Three cases of two users, eight items."""
    rankings = Rankings(
        all_items=Ranking(
            ranks=np.array([1.0, 6.0, np.inf]),
            lists=lists([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 8], [1, 2, 3, 4, 5, 6]),
        ),
        unseen_items=Ranking(
            ranks=np.array([np.inf, 2.5, np.inf]), lists=lists([6, 7], [5, 8], []) if unseen is None else unseen
        ),
    )
    return make_report(
        rankings,
        users=np.array([0, 0, 4]),
        answers=np.array([1, 8, 3]),
        popularity=np.array([0, 9, 8, 3, 2, 2, 1, 0, 6] if popularity is None else popularity),
    )


def test_means_and_intervals() -> None:
    accuracy = report().all_items.accuracy
    assert accuracy["HR@5"].mean == pytest.approx(1 / 3)
    assert accuracy["HR@10"].mean == pytest.approx(2 / 3)
    assert accuracy["nDCG@10"].mean == pytest.approx((1 + 1 / math.log2(7)) / 3)
    assert accuracy["MRR@20"].mean == pytest.approx((1 + 1 / 6) / 3)
    assert (accuracy["HR@10"].low, accuracy["HR@10"].high) == (0, 1)  # two users: both hit, or none does
    assert report().unseen_items.accuracy["MRR@5"].mean == pytest.approx(0.4 / 3)


def test_coverage() -> None:
    """Of eight items: 1 .. 5 in the first five, and 6, 7, 8 beyond."""
    assert report().all_items.coverage == {5: 5 / 8, 10: 1, 20: 1}
    assert report().unseen_items.coverage == {5: 4 / 8, 10: 4 / 8, 20: 4 / 8}


def test_popularity_bias() -> None:
    """The answers 1, 8 and 3 were trained on 9, 6 and 3 times, 6 in the mean."""
    assert report().all_items.popularity_bias[5] == pytest.approx((9 + 8 + 3 + 2 + 2) / 5 / 6)
    assert report().unseen_items.popularity_bias[5] == pytest.approx((1 + 0 + 2 + 6) / 4 / 6)


def test_json_names_both_policies() -> None:
    figures = json.loads(json.dumps(report().to_json(), allow_nan=False))
    assert figures["cases"] == 3
    assert figures["all items"]["HR@10"] == [pytest.approx(2 / 3), 0, 1]
    assert figures["unseen items"]["coverage@20"] == 0.5
    assert set(figures["all items"]) == set(figures["unseen items"])
    assert len(figures["all items"]) == 9 + 3 + 3


@pytest.mark.parametrize("case", ["answers never trained on", "nothing left to recommend"])
def test_a_ratio_that_is_not_defined_is_null_in_json(case: str) -> None:
    made = report(popularity=[0] * 9) if case.startswith("answers") else report(unseen=lists([], [], []))
    figures = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert figures["unseen items"]["popularity bias@10"] is None
    assert math.isnan(made.unseen_items.popularity_bias[10])


def test_ranks_users_and_answers_are_kept() -> None:
    made = report()
    assert made.users.tolist() == [0, 0, 4]
    assert made.answers.tolist() == [1, 8, 3]
    assert made.all_items.ranks.tolist() == [1, 6, np.inf]
    assert made.unseen_items.ranks.tolist() == [np.inf, 2.5, np.inf]
