"""What a recommender answers, and how it reads ids and times."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lsan.errors import ConfigError

#: A raw item id, as the log had it.
RawId = int | str

#: A point in time: a datetime (UTC where it has no zone) or seconds since 1970 UTC.
Time = datetime | float

#: How a whole number is written, and it alone: two texts that fit are two numbers.
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")

#: 2200-01-01 in seconds since 1970, as in `prepare`; a larger number is milliseconds, most likely.
_LATEST = 7_258_118_400


class Recommendation(NamedTuple):
    """One recommended item."""

    id: RawId
    """Raw id, as the log had it."""
    title: str
    """Title; the raw id where the item has none."""
    category: str | None
    """Category, None where unknown."""
    score: float
    """The model's score (a logit over the catalogue): larger is better, comparable within one answer."""


class Recommendations(Sequence[Recommendation]):
    """The answer to one history, best first. Fewer than k when the catalogue has no more. Ids and titles are looked up
    when asked for, so that many answers take little time and memory."""

    __slots__ = ("_call", "by_popularity", "indices", "scores", "unknown_ids")

    def __init__(
        self,
        indices: Sequence[int],
        scores: Sequence[float],
        call: Callable[[int], tuple[RawId, str, str | None]],
        *,
        unknown_ids: tuple[RawId, ...],
        by_popularity: bool,
    ) -> None:
        """`call` gives id, title and category of an item index."""
        self._call = call
        self.indices = indices
        """Indices (1..V) of the items in the model, best first."""
        self.scores = scores
        """Their scores."""
        self.unknown_ids = unknown_ids
        """Ids of the history that the model does not know; they were skipped."""
        self.by_popularity = by_popularity
        """True when no id of the history was known, so that the most popular items are given."""

    @property
    def items(self) -> tuple[Recommendation, ...]:
        """Best first."""
        return tuple(self)

    @property
    def ids(self) -> list[RawId]:
        """Raw ids of the items, best first."""
        return [self._call(index)[0] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self.items[place]
        return Recommendation(*self._call(self.indices[place]), self.scores[place])

    def __iter__(self) -> Iterator[Recommendation]:
        for index, score in zip(self.indices, self.scores, strict=True):
            yield Recommendation(*self._call(index), score)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recommendations):
            return NotImplemented
        mine = self.items, self.unknown_ids, self.by_popularity
        return mine == (other.items, other.unknown_ids, other.by_popularity)

    def __reduce__(self) -> Any:
        called = {index: self._call(index) for index in self.indices}
        return _answer_of, (list(self.indices), list(self.scores), called, self.unknown_ids, self.by_popularity)

    def __repr__(self) -> str:
        return (
            f"Recommendations(items={self.items!r}, unknown_ids={self.unknown_ids!r}, "
            f"by_popularity={self.by_popularity!r})"
        )


def _answer_of(
    indices: list[int],
    scores: list[float],
    called: dict[int, tuple[RawId, str, str | None]],
    unknown_ids: tuple[RawId, ...],
    by_popularity: bool,
) -> Recommendations:
    """An answer as it was before it was pickled."""
    return Recommendations(indices, scores, called.__getitem__, unknown_ids=unknown_ids, by_popularity=by_popularity)


def find_id(raw: RawId, find: Callable[[RawId], int]) -> int:
    """What `find` gives for a raw id or, where that is 0, for the same written otherwise: a command line or a JSON file
    brings 17 as "17", an array with gaps as 17.0."""
    if isinstance(raw, float):
        raw = int(raw) if raw % 1 == 0 else str(raw)
    found = find(raw)
    if found:
        return found
    if isinstance(raw, str):
        return find(int(raw)) if WHOLE_NUMBER.fullmatch(raw) else 0
    return find(str(raw))


def milliseconds(time: Time) -> int:
    """Milliseconds since 1970 UTC.

    Raises:
        ConfigError: when it is before 1970, or so late that it is most likely not in seconds.
    """
    if isinstance(time, datetime):
        time = time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    if not 0 <= time < _LATEST:
        raise ConfigError(f"{time} is not a time: expected seconds since 1970 UTC, before the year 2200")
    return math.floor(time * 1000)


def stamps_of(
    history: Sequence[RawId], times: Sequence[Time | None] | None, at: Time | None, *, timed: bool
) -> list[int]:
    """When each event was in milliseconds, -1 where unknown or not read by the model. Without `times`, all were `at`.

    Raises:
        ConfigError: when `times` is not as long as the history, or holds no times.
    """
    if times is not None and len(times) != len(history):
        raise ConfigError(f"{len(times)} times for a history of {len(history)} events")
    if not timed:
        return [-1] * len(history)
    moments = [at] * len(history) if times is None else times
    return [-1 if moment is None else milliseconds(moment) for moment in moments]
