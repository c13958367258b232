"""Finds items by words of their titles: accents and case do not matter, the beginning of a word is enough."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from lsan.runtime.file import IntArray
from lsan.runtime.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W_]+")

#: Sorts after every letter and digit.
_LAST = "\U0010ffff"


def fold(text: str) -> str:
    """A text without accents (decomposed by NFKD, combining marks left out), in lower case."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if unicodedata.category(character) != "Mn").lower()


class ItemSearch:
    """An index of the words of all titles. May be shared between threads."""

    def __init__(self, vocabulary: Vocabulary, counts: IntArray, offered: npt.NDArray[np.uint8]) -> None:
        """`counts` are the training events of each item, `offered` is 0 for items that are never found; both [V]."""
        self._vocabulary = vocabulary
        places = np.flatnonzero(offered)
        #: Items (v - 1) that can be found, the most popular first.
        self._by_popularity = places[np.argsort(-counts[places], kind="stable")].astype(np.int32)
        self._hash_of_id = np.fromiter((hash(fold(str(raw))) for raw in vocabulary.ids), np.int64, len(vocabulary))
        self._words, self._ends, self._ranks, self._first_word = self._index()

    def find(self, query: str, k: int) -> list[int]:
        """Indices (1..V) of at most k items, best first: the item whose raw id the query is, then those whose titles
        begin with the query, then the others in which every word of the query begins a word of the title; among equals
        those with more training events, then lower indices. Without words in the query, the most popular items."""
        folded = fold(query).strip()
        found = dict.fromkeys(self._exact(fold(query)))  # a set that keeps its order
        ranges = [self._range(word) for word in dict.fromkeys(_WORD.findall(folded))]
        ranks = self._matching(ranges)
        if ranges:
            first, end = ranges[0]
            likely = ranks[(self._first_word[ranks] >= first) & (self._first_word[ranks] < end)]
            begins = (place for place in self._places(likely) if self._title(place).strip().startswith(folded))
            found |= dict.fromkeys(islice(begins, k))
        found |= dict.fromkeys(self._places(ranks[: k + len(found)]))
        return [place + 1 for place in islice(found, k)]

    def _title(self, place: int) -> str:
        return fold(self._vocabulary.title_of(place + 1))

    def _places(self, ranks: IntArray) -> Sequence[int]:
        places: list[int] = self._by_popularity[ranks].tolist()
        return places

    def _exact(self, folded: str) -> list[int]:
        """Items whose raw id it is, the most popular first."""
        alike = self._by_popularity[self._hash_of_id[self._by_popularity] == hash(folded)].tolist()
        return [place for place in alike if fold(str(self._vocabulary.ids[place])) == folded]

    def _index(self) -> tuple[list[str], IntArray, IntArray, IntArray]:
        """All words, sorted; where the entries of each end; the entries: ranks by popularity of the items with that
        word; and the first word of the item of each rank, -1 where it has none."""
        number_of: dict[str, int] = {}
        words: list[int] = []
        ranks: list[int] = []
        first = np.full(len(self._by_popularity), -1, dtype=np.int32)
        for rank, place in enumerate(self._by_popularity.tolist()):
            own = [number_of.setdefault(word, len(number_of)) for word in _WORD.findall(self._title(place))]
            if own:
                first[rank] = own[0]
            own = list(dict.fromkeys(own))
            words += own
            ranks += [rank] * len(own)
        ordered = sorted(number_of)
        place_of = np.empty(len(ordered) + 1, dtype=np.int32)
        place_of[[number_of[word] for word in ordered]] = np.arange(len(ordered))
        place_of[-1] = -1  # of no word
        of_entry = place_of[np.array(words, dtype=np.int64)]
        entries = np.array(ranks, dtype=np.int32)[np.argsort(of_entry, kind="stable")]
        return ordered, np.cumsum(np.bincount(of_entry, minlength=len(ordered))), entries, place_of[first]

    def _range(self, beginning: str) -> tuple[int, int]:
        """The words that begin so."""
        return bisect_left(self._words, beginning), bisect_left(self._words, beginning + _LAST)

    def _matching(self, ranges: Sequence[tuple[int, int]]) -> IntArray:
        """Ranks of the items with a word of each range, in order."""
        kept = np.ones(len(self._by_popularity), dtype=bool)
        for begin, end in ranges:
            having = np.zeros_like(kept)
            if end > begin:
                having[self._ranks[self._ends[begin - 1] if begin else 0 : self._ends[end - 1]]] = True
            kept &= having
        return np.flatnonzero(kept)
