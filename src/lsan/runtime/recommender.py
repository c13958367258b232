"""Recommendations from a bundle: raw ids in, titles and scores out."""

import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lsan.answers import RawId, Recommendations, Time, milliseconds, stamps_of
from lsan.errors import BundleError, ConfigError
from lsan.runtime.engine import Best, Engine, Mask, make_engine
from lsan.runtime.file import BundleFile, FloatArray, IntArray, parse_bundle, read_bytes
from lsan.runtime.item_table import ItemTable
from lsan.runtime.verify import verify_bundle
from lsan.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:
    from concurrent.futures import Future

    from lsan.runtime.search import ItemSearch

#: Histories that the engine takes at a time.
_PIECE = 2048


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What may be recommended. An item has to pass all that is given; ids and categories that the model does not know
    allow and forbid nothing."""

    allow: Iterable[RawId] | None = None
    """Only these ids."""
    forbid: Iterable[RawId] = ()
    """Not these ids."""
    allow_categories: Iterable[str] | None = None
    """Only items of these categories."""
    forbid_categories: Iterable[str] = ()
    """No items of these categories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Similar:
    """An item that is like another."""

    id: RawId
    """Raw id."""
    title: str
    """Title; the raw id where the item has none."""
    category: str | None
    """Category, None where unknown."""
    similarity: float
    """Cosine of the two items' vectors, -1 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An item that was searched for."""

    id: RawId
    """Raw id."""
    title: str
    """Title; the raw id where the item has none."""
    category: str | None
    """Category, None where unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What one event of a history did for the score of an item."""

    id: RawId
    """Raw id of the event's item."""
    title: str
    """Its title; the raw id where it has none."""
    contribution: float
    """The item's score after the whole history less its score after the history without this event, both less the mean
    score of all items that are offered: exact, by leaving the event out."""


class Recommender:
    """A bundle, ready to recommend. May be shared between threads."""

    def __init__(self, content: bytes, *, where: str = "the bundle", native: bool | None = None) -> None:
        """From a bundle's bytes; `where` names them in errors. `native` as in `make_engine`.

        Raises:
            BundleError: when these are not a bundle that this lsan can use.
        """
        self.file: BundleFile = parse_bundle(content, where)
        try:
            self.engine: Engine = make_engine(content, self.file, native=native)  # first: it knows V items to be there
            self.vocabulary = Vocabulary(self.file)
            self._offered = np.ones(self.engine.items, dtype=np.uint8)
            if "offered" in self.file.tensors:
                self._offered = self.file.packed("offered", 1, self.engine.items).astype(np.uint8)
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from error
        self._all_offered = bool(self._offered.all())
        self._called = lru_cache(2**16)(self.vocabulary.describe)
        self._where = where

    @classmethod
    def load(cls, path: str | Path, *, native: bool | None = None) -> "Recommender":
        """Load a bundle file.

        Raises:
            BundleError: when it cannot be read or is not a bundle that this lsan can use.
        """
        return cls(read_bytes(path), where=str(path), native=native)

    def verify(self) -> float:
        """Check that the bundle is as it was written, and answers here as it did then: the largest difference between a
        score and that of its test vectors, as a share of the largest absolute score.

        Raises:
            BundleError: when it is damaged or answers otherwise.
        """
        try:
            return verify_bundle(self.file, self.engine)
        except BundleError as error:
            raise BundleError(f"{self._where}: {error}") from error

    def recommend(
        self,
        history: Sequence[RawId],
        k: int = 10,
        *,
        times: Sequence[Time | None] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
        filter: Filter | None = None,
    ) -> Recommendations:
        """The k best next items after a history.

        Args:
            history: raw item ids, oldest first. Ids that the model does not know are skipped and named in the answer.
            k: how many.
            times: when each event of the history happened, None where unknown.
            at: when the recommendation is asked for: by default the time of the last event. Without `times` the events
                are taken to have happened then too. Models whose training data had no times of day read neither.
            exclude_seen: leave out the items of the history; None follows the bundle.
            filter: what else to leave out.

        Raises:
            ConfigError: when k is below 1, or `times` is not as long as the history.
        """
        self._check(history, k)
        indices = self.vocabulary.indices_of(history)
        events, stamps, asked = self._events(history, indices, times, at)
        items = np.array(events, dtype=np.int32)
        moments = np.array(stamps, dtype=np.int64) if self.engine.timed else None
        excluded = items if self._excludes(exclude_seen) else None  # what is not offered is never recommended
        best, scores = self.engine.recommend(items, moments, asked, k, excluded, self._mask(filter))
        return self._answer(best.tolist(), scores.tolist(), history, indices)

    def recommend_many(
        self,
        histories: Sequence[Sequence[RawId]],
        k: int = 10,
        *,
        times: Sequence[Sequence[Time | None]] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
        threads: int | None = None,
    ) -> list[Recommendations]:
        """`recommend` for many histories, on all cores unless `threads` says how many."""
        from concurrent.futures import ThreadPoolExecutor  # not loaded for single recommendations: 10 ms

        if times is not None and len(times) != len(histories):
            raise ConfigError(f"times for {len(times)} histories, but {len(histories)} histories")
        exclude, threads, k = self._excludes(exclude_seen), threads or cores(), min(k, self.engine.items)
        answers: list[Recommendations] = []
        with ThreadPoolExecutor(1) as pool:  # the engine works on one piece while ids become indices and back again
            running: tuple[Future[Best], Sequence[Sequence[RawId]], list[list[int]]] | None = None
            for begin in range(0, len(histories), _PIECE):
                piece = histories[begin : begin + _PIECE]
                indices, question = self._question(piece, None if times is None else times[begin:], at, k)
                future = pool.submit(self.engine.recommend_many, *question, k, exclude, threads)
                if running is not None:
                    answers += self._answers(*running)
                running = future, piece, indices
            if running is not None:
                answers += self._answers(*running)
        return answers

    def similar(self, item: RawId, k: int = 10) -> list[Similar]:
        """The k items whose vectors point most nearly the same way.

        Raises:
            ConfigError: when the item is not in the model, or k is below 1.
        """
        index = self._known(item)
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        units = self._unit_vectors
        cosines = units @ units[index - 1]
        cosines[index - 1] = -np.inf
        cosines[self._offered == 0] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:k].tolist()
        return [
            Similar(
                id=self.vocabulary.ids[place],
                title=self.vocabulary.title_of(place + 1),
                category=self.vocabulary.category_name(place + 1),
                similarity=float(cosines[place]),
            )
            for place in order
            if cosines[place] > -np.inf
        ]

    def search(self, query: str, k: int = 10) -> list[Found]:
        """At most k items that have for every word of the query a word in their title that begins so, whatever accents
        and case (docs/export.md has the order); the most popular ones where the query has no word. The first call
        makes an index of all titles.

        Raises:
            ConfigError: when k is below 1.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        called = map(self.vocabulary.describe, self._search.find(query, k))
        return [Found(id=raw, title=title, category=category) for raw, title, category in called]

    def explain(
        self,
        history: Sequence[RawId],
        item: RawId,
        *,
        times: Sequence[Time | None] | None = None,
        at: Time | None = None,
    ) -> list[Explanation]:
        """What each event of a history that the model reads contributes to the score of an item: exact leave-one-out,
        one run of the model for each event. Oldest first.

        Raises:
            ConfigError: when the item is not in the model, or `times` is not as long as the history.
        """
        index = self._known(item)
        self._check(history, 1)
        events, moments, asked = self._events(history, self.vocabulary.indices_of(history), times, at)
        items = np.array(events, dtype=np.int32)
        stamps = np.array(moments, dtype=np.int64) if self.engine.timed else None
        whole = self._margin(items, stamps, asked, index)
        contributions = []
        for left_out, event in list(enumerate(events))[-self.engine.history :]:
            less = None if stamps is None else np.delete(stamps, left_out)
            contributions.append(
                Explanation(
                    id=self.vocabulary.ids[event - 1],
                    title=self.vocabulary.title_of(event),
                    contribution=whole - self._margin(np.delete(items, left_out), less, asked, index),
                )
            )
        return contributions

    def session(self, *, exclude_seen: bool | None = None) -> "Session":
        """An empty history that grows event by event. Models that look back only are computed event by event too."""
        return Session(self, self._excludes(exclude_seen))

    def index_of(self, item: RawId) -> int:
        """The index (1..V) of an item that is read and recommended, 0 of any other."""
        index = self.vocabulary.index_of(item)
        return index if index and self._offered[index - 1] else 0

    def _known(self, item: RawId) -> int:
        index = self.index_of(item)
        if not index:
            raise ConfigError(f"item {item!r} is not in the model")
        return index

    def _check(self, history: Sequence[RawId], k: int) -> None:
        if isinstance(history, str):
            raise ConfigError("a history is a list of item ids, not a string")
        if operator.index(k) < 1:
            raise ConfigError(f"k must be at least 1, got {k}")

    def _excludes(self, exclude_seen: bool | None) -> bool:
        return bool(self.file.manifest["exclude_seen"]) if exclude_seen is None else exclude_seen

    def _events(
        self, history: Sequence[RawId], indices: list[int], times: Sequence[Time | None] | None, at: Time | None
    ) -> tuple[list[int], list[int], int]:
        """Items and times (none where the model reads none) of the events that the model knows, and when it is asked.
        (It reads the latest of them.)"""
        if not self.engine.timed:
            if times is not None and len(times) != len(history):
                raise ConfigError(f"{len(times)} times for a history of {len(history)} events")
            return self._offered_of([index for index in indices if index] if 0 in indices else indices), [], -1
        stamps = stamps_of(history, times, at, timed=True)
        asked = milliseconds(at) if at is not None else stamps[-1] if stamps else -1
        pairs = [pair for pair in zip(indices, stamps, strict=True) if pair[0] and self._offered[pair[0] - 1]]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs], asked

    def _offered_of(self, indices: list[int]) -> list[int]:
        return indices if self._all_offered else [index for index in indices if self._offered[index - 1]]

    def _mask(self, filter: Filter | None) -> Mask | None:
        """1 where an item may be recommended."""
        if filter is None:
            return None
        vocabulary = self.vocabulary
        mask = np.ones(len(vocabulary), dtype=np.uint8)
        for ids, kept in ((filter.allow, 1), (filter.forbid, 0)):
            if ids is None:
                continue
            if isinstance(ids, str):
                raise ConfigError("a filter's ids are a list, not a string")
            named = np.full(len(vocabulary), 1 - kept, dtype=np.uint8)
            places = [index - 1 for index in vocabulary.indices_of(ids) if index]
            named[places] = kept
            mask &= named
        for categories, kept in ((filter.allow_categories, True), (filter.forbid_categories, False)):
            if categories is None:
                continue
            if isinstance(categories, str):
                raise ConfigError("a filter's categories are a list, not a string")
            mask &= vocabulary.in_categories(categories) == kept
        return mask

    def _question(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[Time | None]] | None,
        at: Time | None,
        k: int,
    ) -> tuple[list[list[int]], tuple[IntArray, IntArray | None, IntArray, IntArray]]:
        """Item indices of each history; and items, times, ends and when it is asked, as the engine wants them."""
        flat: list[int] = []
        moments: list[int] = []
        ends, asked, indices = [], [], []
        for row, history in enumerate(histories):
            self._check(history, k)
            indices.append(self.vocabulary.indices_of(history))
            items, stamps, when = self._events(history, indices[-1], None if times is None else times[row], at)
            flat += items
            moments += stamps
            ends.append(len(flat))
            asked.append(when)
        return indices, (
            np.array(flat, dtype=np.int32),
            np.array(moments, dtype=np.int64) if self.engine.timed else None,
            np.array(ends, dtype=np.int64),
            np.array(asked, dtype=np.int64),
        )

    def _answers(
        self, future: "Future[Best]", histories: Sequence[Sequence[RawId]], indices: list[list[int]]
    ) -> list[Recommendations]:
        best, scores = future.result()
        return [
            self._answer(items, values, history, known)
            for items, values, history, known in zip(best.tolist(), scores.tolist(), histories, indices, strict=True)
        ]

    def _answer(
        self, best: list[int], scores: list[float], history: Sequence[RawId], indices: list[int]
    ) -> Recommendations:
        """Zeros among `best` are no items."""
        unknown: tuple[RawId, ...] = ()
        if not self._all_offered or 0 in indices:
            unknown = tuple(
                raw for raw, index in zip(history, indices, strict=True) if not index or not self._offered[index - 1]
            )
        if best and best[-1] == 0:
            count = best.index(0)
            best, scores = best[:count], scores[:count]
        return Recommendations(
            best, scores, self._called, unknown_ids=unknown, by_popularity=len(unknown) == len(indices)
        )

    def _margin(self, items: npt.NDArray[np.int32], stamps: IntArray | None, asked: int, index: int) -> float:
        """An item's score less the mean score of the items that are offered."""
        scores = self.engine.scores(items, stamps, asked).astype(np.float64)
        return float(scores[index - 1] - scores[self._offered != 0].mean())

    @cached_property
    def _unit_vectors(self) -> FloatArray:
        """The items' vectors, scaled to length 1. Shape [V, width]."""
        vectors = ItemTable(self.file).turned(np.arange(1, self.engine.items + 1))
        lengths = np.sqrt(np.square(vectors).sum(1, keepdims=True))
        units: FloatArray = vectors / np.where(lengths > 0, lengths, 1)
        return units

    @cached_property
    def _search(self) -> "ItemSearch":
        from lsan.runtime.search import ItemSearch  # most never search, and importing takes time

        return ItemSearch(self.vocabulary, self.file.popularity(), self._offered)


class Session:
    """A history that grows. Belongs to one thread."""

    def __init__(self, recommender: Recommender, exclude_seen: bool) -> None:
        self._recommender = recommender
        self._exclude_seen = exclude_seen
        self._session = recommender.engine.session()
        self._history: list[RawId] = []
        self._indices: list[int] = []
        self._known = np.zeros(64, dtype=np.int32)  # the first `_count` are the known items so far
        self._count = 0
        self._last = -1

    def append(self, item: RawId, at: Time | None = None) -> bool:
        """One more event, and when it happened. False when the model does not know the item, which is then skipped."""
        moment = -1 if at is None or not self._recommender.engine.timed else milliseconds(at)
        index = self._recommender.index_of(item)
        self._history.append(item)
        self._indices.append(index)
        self._last = moment
        if index:
            self._session.append(index, moment)
            if self._count == len(self._known):
                self._known = np.concatenate([self._known, np.zeros_like(self._known)])
            self._known[self._count] = index
            self._count += 1
        return bool(index)

    def recommend(self, k: int = 10, *, at: Time | None = None, filter: Filter | None = None) -> Recommendations:
        """The k best next items after the events so far, as `Recommender.recommend`."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        recommender = self._recommender
        asked = milliseconds(at) if at is not None and recommender.engine.timed else self._last
        excluded = self._known[: self._count] if self._exclude_seen else None
        best, scores = self._session.recommend(asked, k, excluded, recommender._mask(filter))
        return recommender._answer(best.tolist(), scores.tolist(), self._history, self._indices)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
