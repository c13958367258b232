"""Which items are hidden, what is told of them, and what they are compared with."""

import sys
from pathlib import Path

import numpy as np
import torch

from lsan.models.histories import Histories

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from new_items import CategoryPopularity, by_answer, company_of, new_numbers, told_events


def test_hidden_items_come_last() -> None:
    hidden = np.array([False, True, False, True, False])
    assert new_numbers(hidden).tolist() == [0, 3, 1, 4, 2]


def test_at_most_so_many_events_of_each_new_item_are_told() -> None:
    events = np.array([1, 3, 3, 3, 4, 2, 3, 1])
    assert not told_events(events, 2, 0).any()
    told = told_events(events, 2, 2)
    assert events[told].tolist().count(3) == 2
    assert events[told].tolist().count(4) == 1
    assert told.sum() == 3


def test_company_is_what_was_known_and_near() -> None:
    users, events = np.array([0, 0, 0, 0, 1]), np.array([1, 3, 2, 3, 1])
    shown = np.array([False, True, False, False, False])  # the second event of item 3 is not told
    company = company_of(users, events, shown, ["a", "b", "c"], 2)
    assert company == {"c": {"a": 1.0, "b": 1.0}}


def test_popularity_in_the_category_of_the_last_event() -> None:
    events, categories = np.array([9, 3, 1, 0, 2]), np.array([0, 1, 2, 2, 2, 1], dtype=np.int32)
    histories = Histories.of_items(torch.tensor([[1, 2], [0, 5]]))

    def order(*, new_first: bool) -> list[list[int]]:
        scorer = CategoryPopularity(events, categories, 3, new_first=new_first)
        return [(row.argsort(descending=True) + 1).tolist() for row in scorer.scores(histories)]

    # item 4 counts as the mean of items 2 and 3, item 5 as item 1 and its own two events
    assert order(new_first=False) == [[2, 4, 3, 5, 1], [5, 1, 2, 4, 3]]
    assert order(new_first=True) == [[4, 2, 3, 5, 1], [5, 1, 4, 2, 3]]


def test_figures_by_what_the_answer_is() -> None:
    figures = by_answer(np.array([1.0, 3.0, np.inf]), np.array([True, False, False]), np.arange(3))
    assert figures["new items"] == {"cases": 1, "HR@10": [1.0, 1.0, 1.0], "nDCG@10": [1.0, 1.0, 1.0]}
    assert figures["other items"]["cases"] == 2
    assert figures["other items"]["HR@10"][0] == 0.5
    assert figures["other items"]["nDCG@10"][0] == 0.25
