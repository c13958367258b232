"""The items of a dataset: raw id, title and category of each, and the map between raw ids and indices."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.answers import RawId, find_id
from lsan.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Items are numbered 1..V in the order of their first appearance in the log; index 0 is padding."""

    ids: Sequence[RawId]
    """Raw ids, all of one type (int or str); `ids[v - 1]` belongs to item index v. Length V."""
    titles: Sequence[str | None]
    """Titles, None where unknown. Length V."""
    categories: Sequence[str | None]
    """Category names, None where unknown. Length V."""

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.titles) == len(self.categories):
            raise DataError(
                f"catalogue columns differ in length: {len(self.ids)} ids, {len(self.titles)} titles, "
                f"{len(self.categories)} categories"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _index_by_id(self) -> dict[RawId, int]:
        index_by_id = {raw: index for index, raw in enumerate(self.ids, start=1)}
        if len(index_by_id) != len(self.ids):
            raise DataError("catalogue has the same item id twice")
        return index_by_id

    def index_of(self, raw_id: RawId) -> int:
        """The index (1..V) of a raw id, 0 if there is no such item. 17 and "17" both find either of them."""
        return find_id(raw_id, lambda raw: self._index_by_id.get(raw, 0))

    def indices_of(self, raw_ids: Iterable[RawId]) -> list[int]:
        """`index_of` for each raw id."""
        return [self.index_of(raw_id) for raw_id in raw_ids]

    @cached_property
    def category_names(self) -> list[str]:
        """Distinct category names in the order of first appearance; category index c (1..C) is `[c - 1]`."""
        return list(dict.fromkeys(name for name in self.categories if name is not None))

    @cached_property
    def category_of_item(self) -> npt.NDArray[np.int32]:
        """Category index of each item index, 0 where unknown and for padding. Shape [V + 1]."""
        index_by_name = {name: index for index, name in enumerate(self.category_names, start=1)}
        column = np.zeros(len(self) + 1, dtype=np.int32)
        column[1:] = [0 if name is None else index_by_name[name] for name in self.categories]
        return column

    def title_of(self, index: int) -> str:
        """The title of an item index, its raw id where it has none."""
        title = self.titles[index - 1]
        return str(self.ids[index - 1]) if title is None else title

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into this catalogue; columns that are all unknown are
        left out."""
        columns: dict[str, Any] = {"ids": list(self.ids)}
        if any(title is not None for title in self.titles):
            columns["titles"] = list(self.titles)
        if self.category_names:
            columns["categories"] = list(self.categories)
        return columns

    @classmethod
    def from_json(cls, columns: Any, *, where: str) -> "Catalogue":
        """Read what `to_json` gave. `where` names the file in errors.

        Raises:
            DataError: when the columns are not lists of equal length and of one type each.
        """
        if not isinstance(columns, dict) or not isinstance(columns.get("ids"), list):
            raise DataError(f"{where}: expected an object with a list 'ids'")
        ids = columns["ids"]
        if not (all(type(raw) is int for raw in ids) or all(type(raw) is str for raw in ids)):
            raise DataError(f"{where}: 'ids' must be all integers or all strings")
        absent: list[str | None] = [None] * len(ids)
        texts = {}
        for name in ("titles", "categories"):
            column = columns.get(name, absent)
            if not isinstance(column, list) or not all(text is None or isinstance(text, str) for text in column):
                raise DataError(f"{where}: '{name}' must be a list of strings and nulls")
            texts[name] = column
        return cls(ids=ids, titles=texts["titles"], categories=texts["categories"])
