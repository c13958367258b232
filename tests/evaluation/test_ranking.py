"""Full ranking: ties, seen items, unknown items, and agreement with a plain loop."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Cases, leave_one_out, temporal
from lsan.data.windows import HistoryReader
from lsan.errors import DataError
from lsan.evaluation.ranking import LIST_LENGTH, Rankings, expected_ranks, rank_cases
from lsan.models.histories import Histories
from lsan.training.batches import training_examples

MakeDataset = Callable[..., Dataset]


class ByLastItem:
    """Scores that depend on the last item of a history: row 0 for an empty one."""

    def __init__(self, table: Sequence[Sequence[float]]) -> None:
        self.table, self.batches = torch.tensor(table, dtype=torch.float32), list[int]()
        self.asked = dict[int, int]()

    def scores(self, histories: Histories) -> Tensor:
        self.batches.append(len(histories.items))
        self.asked.update(zip(histories.users.tolist(), histories.items[:, -1].tolist(), strict=True))
        return self.table[histories.items[:, -1]]


def rank(
    scorer: ByLastItem,
    dataset: Dataset,
    cases: Cases,
    *,
    known_items: np.ndarray | None = None,
    batch_size: int = 256,
) -> Rankings:
    reader = HistoryReader(dataset, 50, timed=False, known_items=known_items)
    return rank_cases(
        scorer, dataset, cases, reader,
        known_items=known_items, device=torch.device("cpu"), lists=True, batch_size=batch_size,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "answer", "rank"),
    [
        ([3, 2, 1, 0], 3.0, 1),
        ([3, 2, 1, 0], 0.0, 4),
        ([3, 2, 2, 0], 2.0, 2.5),  # places 2 and 3
        ([3, 3, 3, 0], 3.0, 2),  # places 1, 2 and 3
        ([1, 1, 1, 1], 1.0, 2.5),  # nothing is known: the mean of 1 .. V
        ([-torch.inf, 2, -torch.inf, 0], 0.0, 2),
        ([-torch.inf, 2, 1, 0], -torch.inf, torch.inf),
        ([7], 7.0, 1),
    ],
)
def test_ties_count_half(scores: list[float], answer: float, rank: float) -> None:
    ranks = expected_ranks(torch.tensor([scores], dtype=torch.float32), torch.tensor([[answer]]))
    assert ranks.tolist() == [rank]


def test_by_hand(make_dataset: MakeDataset) -> None:
    """Histories 1 2 3 | 4, 2 | 2 and 5 | 1, the answers after the bar; 6 items."""
    dataset = make_dataset([[1, 2, 3, 4], [1, 2, 2], [4, 5, 1]], items=6)
    cases = leave_one_out(dataset).test
    nothing = [0.0] * 6
    scorer = ByLastItem(
        [
            nothing, nothing,
            [5, 9, 5, 1, 0, 0],  # after 2: answer 2 is best, but seen
            [9, 8, 7, 2, 2, 3],  # after 3: answer 4 is 5th, tied with item 5; 1, 2, 3 are seen
            nothing,
            [4, 4, 4, 4, 4, 4],  # after 5: all equal; 4 and 5 are seen
            nothing,
        ]
    )  # fmt: skip
    rankings = rank(scorer, dataset, cases)
    assert rankings.all_items.ranks.tolist() == [5.5, 1, 3.5]
    assert rankings.unseen_items.ranks.tolist() == [2.5, np.inf, 2.5]
    everything, unseen = rankings.all_items.lists, rankings.unseen_items.lists
    assert everything is not None
    assert unseen is not None
    assert everything.shape == unseen.shape == (3, LIST_LENGTH)
    assert everything[0, :4].tolist() == [1, 2, 3, 6]
    assert sorted(everything[0, 4:6].tolist()) == [4, 5]
    assert not everything[:, 6:].any()
    assert unseen[0, 0] == 6
    assert sorted(unseen[0, 1:3].tolist()) == [4, 5]
    assert not unseen[0, 3:].any()
    assert sorted(unseen[1, :4].tolist()) == [3, 4, 5, 6]
    assert unseen[1, 0] == 3
    assert sorted(unseen[2].tolist()) == [0] * 16 + [1, 2, 3, 6]


def test_scorers_are_told_who_asks(make_dataset: MakeDataset) -> None:
    """By the numbers that the users have in training, whoever has no case."""
    dataset = make_dataset([[1, 2, 3], [1], [2, 2], [3, 4, 1, 2], [4, 3, 2]], items=4)
    split = leave_one_out(dataset)
    for cases, expected in ((split.test, {1: 2, 4: 1, 5: 3}), (split.validation, {1: 1, 4: 4, 5: 4})):
        scorer = ByLastItem([[0, 1, 2, 3]] * 5)
        rank(scorer, dataset, cases, batch_size=2)
        assert scorer.asked == expected
    examples = training_examples(split, "prefix", 5)
    assert {user: int(dataset.items[stop - 1]) for user, stop in zip(examples.user, examples.stop, strict=True)} == {
        3: 2, 4: 3,
    }  # fmt: skip


def test_seen_means_the_whole_history_and_not_just_what_is_read(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([[1, 2, 3, 4, 1]], items=4)
    cases = leave_one_out(dataset).test
    reader = HistoryReader(dataset, 2, timed=False, known_items=None)
    rankings = rank_cases(
        ByLastItem([[4, 3, 2, 1]] * 5), dataset, cases, reader,
        known_items=None, device=torch.device("cpu"), lists=False,
    )  # fmt: skip
    assert rankings.all_items.ranks.tolist() == [1]
    assert rankings.unseen_items.ranks.tolist() == [np.inf]
    assert rankings.all_items.lists is None


def test_items_that_training_never_met_are_not_ranked(make_dataset: MakeDataset) -> None:
    """Item 4 comes after the cut-off: it is in no ranking, nor in a history; asked for, it is a miss."""
    dataset = make_dataset([[1, 2, 3, 4, 3], [3, 1, 4]], items=4, times=[0, 1, 2, 20, 21, 0, 10, 20])
    split = temporal(dataset, validation_from=10, test_from=20)
    assert split.known_items is not None
    assert split.known_items.tolist() == [False, True, True, True, False]
    scorer = ByLastItem([[0, 0, 0, 0], [1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 3, 9], [9, 0, 0, 0]])
    rankings = rank(scorer, dataset, split.test, known_items=split.known_items)
    assert dataset.items[split.test.stop].tolist() == [4, 3, 4]
    assert rankings.all_items.ranks.tolist() == [np.inf, 1, np.inf]
    assert rankings.unseen_items.ranks.tolist() == [np.inf, np.inf, np.inf]
    lists, unseen = rankings.all_items.lists, rankings.unseen_items.lists
    assert lists is not None
    assert unseen is not None
    assert lists[:, :4].tolist() == [[3, 2, 1, 0]] * 3
    assert unseen[2, :2].tolist() == [2, 0]


def test_nan_is_refused(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([[1, 2, 3]])
    with pytest.raises(DataError, match="not a number"):
        rank(ByLastItem([[0, float("nan"), 1]] * 4), dataset, leave_one_out(dataset).test)


def test_progress_is_told(make_dataset: MakeDataset) -> None:
    dataset, told = make_dataset([[1, 2, 3]] * 7), list[tuple[int, int]]()
    reader = HistoryReader(dataset, 5, timed=False, known_items=None)
    rank_cases(
        ByLastItem([[1, 2, 3]] * 4), dataset, leave_one_out(dataset).test, reader, known_items=None,
        device=torch.device("cpu"), lists=False, batch_size=3, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(3, 7), (6, 7), (7, 7)]


def plain_rank(scores: list[float], answer: int, left_out: set[int]) -> float:
    """The mean place of the answer over all orders of its ties, by counting."""
    if answer in left_out:
        return float("inf")
    ranked = [score for item, score in enumerate(scores, start=1) if item not in left_out]
    mine = scores[answer - 1]
    places = [place for place, score in enumerate(sorted(ranked, reverse=True), start=1) if score == mine]
    return sum(places) / len(places)


@given(data=st.data(), items=st.integers(1, 30), users=st.integers(1, 12), batch_size=st.integers(1, 5))
def test_it_agrees_with_plain_counting(
    data: st.DataObject, items: int, users: int, batch_size: int, make_dataset: MakeDataset
) -> None:
    history = st.lists(st.integers(1, items), min_size=3, max_size=9)
    dataset = make_dataset([data.draw(history) for _ in range(users)], items=items)
    values = st.lists(st.integers(-3, 3), min_size=items, max_size=items)  # few values, many ties
    table = [data.draw(values) for _ in range(items + 1)]
    cases = leave_one_out(dataset).test
    rankings = rank(ByLastItem(table), dataset, cases, batch_size=batch_size)
    for case, (start, stop) in enumerate(zip(cases.start, cases.stop, strict=True)):
        events = dataset.items[start : stop + 1].tolist()
        scores, answer, seen = [float(score) for score in table[events[-2]]], events[-1], set(events[:-1])
        for ranking, left_out in ((rankings.all_items, set[int]()), (rankings.unseen_items, seen)):
            assert ranking.ranks[case] == plain_rank(scores, answer, left_out)
            assert ranking.lists is not None
            listed = ranking.lists[case][ranking.lists[case] > 0].tolist()
            assert len(listed) == len(set(listed)) == min(LIST_LENGTH, items - len(left_out))
            best = sorted((s for i, s in enumerate(scores, start=1) if i not in left_out), reverse=True)
            assert [scores[item - 1] for item in listed] == best[: len(listed)]
            assert left_out.isdisjoint(listed)


def test_a_large_catalogue_is_ranked_in_small_batches(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset([[1, 2, 3]] * 7, items=20)
    cases, table = leave_one_out(dataset).test, torch.rand(21, 20).tolist()
    many, few = ByLastItem(table), ByLastItem(table)
    reader = HistoryReader(dataset, 50, timed=False, known_items=None)

    def ranks(scorer: ByLastItem) -> list[float]:
        rankings = rank_cases(
            scorer, dataset, cases, reader, known_items=None, device=torch.device("cpu"), lists=False
        )  # fmt: skip
        return list(rankings.all_items.ranks.tolist())

    expected = ranks(many)
    monkeypatch.setattr("lsan.evaluation.ranking._SCORES", 70)  # three times 20 items, and some
    assert ranks(few) == expected
    assert (many.batches, few.batches) == ([7], [3, 3, 1])
