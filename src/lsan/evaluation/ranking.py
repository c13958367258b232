"""Ranks of held-out items in the whole catalogue: no sampled negatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Cases, flat_ranges
from lsan.data.windows import HistoryReader, IntArray
from lsan.errors import DataError
from lsan.models.histories import Histories

FloatArray = npt.NDArray[np.float64]

#: Items of each case's list that are kept for coverage and popularity.
LIST_LENGTH = 20

#: At most so many cases, positions of their histories, and scores, are made at a time.
_CASES, _POSITIONS, _SCORES = 256, 2**14, 2**26


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores the whole catalogue after a history: a network or a baseline."""

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the items 1..V (column v - 1)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Where the answers stood, under one policy for items that the user had already seen."""

    ranks: FloatArray
    """Expected rank of each case's answer: 1 + better items + half of the tied ones; inf where it could not be
    recommended. Shape [cases]."""
    lists: IntArray | None
    """Item indices of each case's first LIST_LENGTH recommendations, 0 where there were fewer; None unless asked for.
    Shape [cases, LIST_LENGTH]."""


@dataclass(frozen=True, kw_only=True)
class Rankings:
    """Both policies, from one pass."""

    all_items: Ranking
    """Every known item is ranked."""
    unseen_items: Ranking
    """Items of the user's own history are left out; an answer that is one of them is a miss."""


def expected_ranks(scores: Float[Tensor, "batch items"], answer: Float[Tensor, "batch 1"]) -> Float[Tensor, " batch"]:
    """1 + the number of better items + half the number of other items with the same score; inf where that is -inf."""
    better = (scores > answer).sum(1, dtype=torch.int32)  # takes 3/5 of the time of int64
    tied = (scores == answer).sum(1, dtype=torch.int32) - 1
    return torch.where(answer[:, 0] == -torch.inf, torch.inf, 1 + better + tied.double() / 2)


def rank_cases(
    scorer: Scorer,
    dataset: Dataset,
    cases: Cases,
    reader: HistoryReader,
    *,
    known_items: npt.NDArray[np.bool_] | None,
    device: torch.device,
    lists: bool,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rankings:
    """Rank the answer of every case among all items.

    Args:
        known_items: item indices that existed when the model was trained, None for all. The others are never ranked.
        lists: whether to keep each case's best items too.
        batch_size: cases that are scored at a time, None for as many as are fast in little memory.
        progress: called with (cases done, cases) after each batch.

    Raises:
        DataError: when the scorer returns NaN.
    """
    lengths = reader.lengths(cases.start, cases.stop)
    order = np.argsort(lengths, kind="stable")
    unknown = None if known_items is None else torch.from_numpy(~known_items[1:]).to(device)
    ranks = np.empty((2, len(cases)))
    best = np.zeros((2, len(cases), LIST_LENGTH), dtype=np.int64) if lists else None
    together = min(_CASES, _POSITIONS // int(lengths.max(initial=1)), _SCORES // len(dataset.catalogue))
    batch_size = batch_size or max(1, together)
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        start, stop = cases.start[batch], cases.stop[batch]
        with torch.inference_mode():
            scores = scorer.scores(Histories.of(reader.read(start, stop), cases.users[batch] + 1).to(device))
            scores = scores[:, : len(dataset.catalogue)]  # a run may have more items than its dataset
            if scores.isnan().any():
                raise DataError("the model gave a score that is not a number: train it with a lower learning_rate")
            if unknown is not None:
                scores = scores.masked_fill(unknown, -torch.inf)
            answers = torch.from_numpy(dataset.items[stop].astype(np.int64) - 1).to(device)[:, None]
            for policy in range(2):
                if policy == 1:
                    row, column = _seen(dataset, start, stop)
                    scores[row.to(device), column.to(device)] = -torch.inf
                ranks[policy, batch] = expected_ranks(scores, scores.gather(1, answers)).cpu().numpy()
                if best is not None:
                    top = scores.topk(min(LIST_LENGTH, scores.shape[1]), dim=1)
                    items = torch.where(top.values == -torch.inf, 0, top.indices + 1)
                    best[policy, batch, : items.shape[1]] = items.cpu().numpy()
        if progress is not None:
            progress(begin + len(batch), len(order))
    return Rankings(
        all_items=Ranking(ranks=ranks[0], lists=None if best is None else best[0]),
        unseen_items=Ranking(ranks=ranks[1], lists=None if best is None else best[1]),
    )


def _seen(dataset: Dataset, start: IntArray, stop: IntArray) -> tuple[Tensor, Tensor]:
    """Row and column of every item in the whole history of each case."""
    lengths = stop - start
    row = np.repeat(np.arange(len(start)), lengths)
    event = flat_ranges(start, lengths)
    return torch.from_numpy(row), torch.from_numpy(dataset.items[event].astype(np.int64) - 1)
