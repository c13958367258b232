"""Raw ids, titles and categories of the items, kept as the file has them: one text after the other."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.answers import RawId, find_id
from lsan.errors import BundleError
from lsan.runtime.file import BundleFile


class Texts(Sequence[str]):
    """Texts of UTF-8 bytes, decoded when asked for."""

    def __init__(self, file: BundleFile, name: str, count: int) -> None:
        """Raises `BundleError` when the tensors are missing, do not fit each other, or are no UTF-8."""
        self._bytes = file.tensor(f"{name}.bytes", np.uint8, (None,)).tobytes()
        self._ends = file.tensor(f"{name}.ends", np.int64, (count,)).copy()
        begins = np.concatenate([[0], self._ends[:-1]])
        if count and not ((self._ends >= begins).all() and self._ends[0] >= 0 and self._ends[-1] == len(self._bytes)):
            raise BundleError(f"{name}.ends: not increasing, or outside {name}.bytes")
        try:
            self._bytes.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{name}.bytes: not UTF-8 ({error})") from error
        inside = self._ends[self._ends < len(self._bytes)]
        if (np.frombuffer(self._bytes, np.uint8)[inside] & 0xC0 == 0x80).any():
            raise BundleError(f"{name}.ends: cuts a character in two")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: Any) -> Any:
        begin = self._ends.item(place - 1) if place else 0
        return self._bytes[begin : self._ends.item(place)].decode("utf-8")

    def all(self) -> list[str]:
        """Every text."""
        ends = self._ends.tolist()
        return [self._bytes[begin:end].decode("utf-8") for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


class Vocabulary:
    """The map between raw ids and item indices 1..V, and what items are called."""

    def __init__(self, file: BundleFile) -> None:
        """Raises `BundleError` when ids are not distinct or parts do not fit."""
        items, categories = file.manifest["items"], file.manifest["categories"]
        self.ids: Sequence[RawId]
        if "ids.numbers" in file.tensors:
            self.ids = file.tensor("ids.numbers", np.int64, (items,)).tolist()
        elif "ids.bytes" in file.tensors:
            self.ids = Texts(file, "ids", items).all()
        else:
            self.ids = range(1, items + 1)
        self._index_by_id = {raw: index for index, raw in enumerate(self.ids, start=1)}
        if len(self._index_by_id) != items:
            raise BundleError("two items have the same id")
        self._titles = Texts(file, "titles", items) if "titles.bytes" in file.tensors else None
        self.category_names = Texts(file, "category_names", categories).all() if categories else []
        self.category_of_item: npt.NDArray[np.int32] | None = None  # [V], entry v - 1; 0 where unknown
        if categories:
            found = file.packed("categories", categories.bit_length(), items)
            if found.max(initial=0) > categories:
                raise BundleError("categories: names a category that does not exist")
            self.category_of_item = found.astype(np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, raw: RawId) -> int:
        """The index (1..V) of a raw id, 0 if there is no such item. 17 and "17" both find either of them."""
        found = self._index_by_id.get(raw)
        return found if found is not None else find_id(raw, lambda other: self._index_by_id.get(other, 0))

    def indices_of(self, raw_ids: Iterable[RawId]) -> list[int]:
        """`index_of` for each raw id."""
        find = self._index_by_id.get
        return [find(raw) or self.index_of(raw) for raw in raw_ids]

    def in_categories(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Which items are of one of these categories. Shape [V]."""
        number_of = {name: number for number, name in enumerate(self.category_names, start=1)}
        chosen = np.zeros(len(self.category_names) + 1, dtype=bool)
        chosen[[number_of[name] for name in names if name in number_of]] = True
        if self.category_of_item is None:
            return np.zeros(len(self), dtype=bool)
        found: npt.NDArray[np.bool_] = chosen[self.category_of_item]
        return found

    def describe(self, index: int) -> tuple[RawId, str, str | None]:
        """Id, title and category of an item."""
        return self.ids[index - 1], self.title_of(index), self.category_name(index)

    def title_of(self, index: int) -> str:
        """The title of an item, its raw id where it has none."""
        return (self._titles[index - 1] if self._titles is not None else "") or str(self.ids[index - 1])

    def category_name(self, index: int) -> str | None:
        """The category of an item, None where unknown."""
        if self.category_of_item is None:
            return None
        category = self.category_of_item.item(index - 1)
        return self.category_names[category - 1] if category else None
