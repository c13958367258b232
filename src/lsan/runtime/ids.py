"""Which item has a raw id."""

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from lsan.answers import RawId
from lsan.errors import BundleError
from lsan.runtime.texts import Texts


class IdIndex(Protocol):
    """The map from raw ids to item indices 1..V."""

    def get(self, raw: RawId) -> int:
        """The index of a raw id, 0 where no item has it."""
        ...

    def many(self, raws: Iterable[RawId]) -> list[int]:
        """`get` of each."""
        ...


def index_of_ids(ids: Sequence[RawId]) -> IdIndex:
    """An index of distinct ids: `ids[v - 1]` is that of item v. A few bytes an item where the native part of lsan was
    built, else a dictionary.

    Args:
        ids: `Texts`, an array of int64, or the range 1..V.

    Raises:
        BundleError: when two items have the same id.
    """
    if isinstance(ids, range):
        return _Counted(ids)
    try:
        native: Any = importlib.import_module("lsan.runtime._native.ids")
    except ImportError:
        return _Dictionary(ids)
    try:
        found: IdIndex = native.TextIndex(ids.content, ids.ends) if isinstance(ids, Texts) else native.NumberIndex(ids)
    except ValueError as error:
        raise BundleError(str(error)) from error
    return found


class _Counted:
    """Ids that are the items' indices."""

    def __init__(self, ids: range) -> None:
        self._ids = ids

    def get(self, raw: RawId) -> int:
        return int(raw) if not isinstance(raw, str) and raw in self._ids else 0

    def many(self, raws: Iterable[RawId]) -> list[int]:
        return [self.get(raw) for raw in raws]


class _Dictionary:
    """Without the native part."""

    def __init__(self, ids: Sequence[RawId]) -> None:
        self._index = {raw: index for index, raw in enumerate(ids, start=1)}
        if len(self._index) != len(ids):
            raise BundleError("two items have the same id")

    def get(self, raw: RawId) -> int:
        return self._index.get(raw, 0)

    def many(self, raws: Iterable[RawId]) -> list[int]:
        find = self._index.get
        return [find(raw, 0) for raw in raws]
