"""The numbers whose mixed-radix digits are the item codes: which items share rows.

The paper takes digits of "the index" of an item, and an index is arbitrary. Two are offered:

- *index*: the catalogue index, the order of first appearance in the log. Beware: in a log that is sorted by user, as
  the usual research files are, neighbours in this order were often bought one after the other, held-out events
  included, so codes tell the answer of some test cases (docs/log.md has the figures).
- *co-occurrence*: from training events alone. Digit 1 is the stratum of popularity (0 = the V / m_1 most popular), and
  an item of a rarer stratum takes the remaining digits of a popular item that it was often near to.
"""

import math

import numpy as np
import numpy.typing as npt

from lsan.config import ComposedTableConfig, TableConfig
from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.events import near_pairs, training_events
from lsan.models.item_tables.composed import complete_radices

IntArray = npt.NDArray[np.int64]

#: Two events of one user are near when at most this many steps apart; at distance d they count 1 / d.
NEAR = 3


def item_numbers(dataset: Dataset, split: Split, config: TableConfig) -> IntArray:
    """A distinct number in 0..prod(m_n) for each item 1..V (entry v - 1)."""
    items = len(dataset.catalogue)
    if not isinstance(config, ComposedTableConfig) or config.digits_of == "index":
        return np.arange(1, items + 1)
    radices = complete_radices(config.radices, items)
    users, events = training_events(dataset, split)
    return cooccurrence_numbers(users, events, items, radices[0])


def cooccurrence_numbers(users: IntArray, events: IntArray, items: int, first_radix: int) -> IntArray:
    """Numbers `column * m_1 + stratum`, where items of different strata that were often near share their column.

    Pairs (rare item, popular item) are taken greedily by `nearness / sqrt(events of the one * events of the other)`;
    each column takes one item of each stratum. What is left fills the free columns by popularity.

    Args:
        users: user of each training event, in the order of the dataset.
        events: item index 1..V of each.
        items: V.
        first_radix: m_1.
    """
    popularity = np.bincount(events, minlength=items + 1)[1:]
    rank = np.empty(items, dtype=np.int64)
    rank[np.argsort(-popularity, kind="stable")] = np.arange(items)
    columns = math.ceil(items / first_radix)
    stratum, column = rank // columns, np.where(rank < columns, rank, -1)
    taken = np.zeros((first_radix, columns), dtype=np.bool_)
    for rare, popular in _near_pairs(users, events - 1, popularity, stratum):
        if column[rare] < 0 and not taken[stratum[rare], column[popular]]:
            column[rare] = column[popular]
            taken[stratum[rare], column[popular]] = True
    for number in range(1, int(stratum.max(initial=0)) + 1):
        left = np.flatnonzero((stratum == number) & (column < 0))
        column[left[np.argsort(rank[left])]] = np.flatnonzero(~taken[number])[: len(left)]
    return column * first_radix + stratum


def _near_pairs(users: IntArray, items: IntArray, popularity: IntArray, stratum: IntArray) -> list[tuple[int, int]]:
    """(item of a rarer stratum, item of stratum 0), the best pair first; ties in the order of the items."""
    keys, weights = [], []
    for earlier, later, distance in near_pairs(users, items, NEAR):
        for rare, popular in ((later, earlier), (earlier, later)):
            pair = (stratum[rare] > 0) & (stratum[popular] == 0)
            keys.append(rare[pair] * len(popularity) + popular[pair])
            weights.append(np.full(int(pair.sum()), 1 / distance))
    key, pair_of = np.unique(np.concatenate(keys), return_inverse=True)
    rare, popular = key // len(popularity), key % len(popularity)
    nearness = np.bincount(pair_of, weights=np.concatenate(weights), minlength=len(key))
    score = nearness / np.sqrt(popularity[rare] * popularity[popular] + 1.0)
    best = np.argsort(-score, kind="stable")
    return list(zip(rare[best].tolist(), popular[best].tolist(), strict=True))
