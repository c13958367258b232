"""Raw ids, titles and categories of the items, kept as the file has them."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lsan.answers import RawId, find_id
from lsan.errors import BundleError
from lsan.runtime.file import BundleFile
from lsan.runtime.ids import index_of_ids
from lsan.runtime.texts import Texts


class Vocabulary:
    """The map between raw ids and item indices 1..V, and what items are called."""

    def __init__(self, file: BundleFile) -> None:
        """Raises `BundleError` when ids are not distinct or parts do not fit."""
        items, categories = file.manifest["items"], file.manifest["categories"]
        self.ids: Sequence[RawId]
        if "ids.numbers" in file.tensors:
            self.ids = array("q", file.tensor("ids.numbers", np.int64, (items,)).tobytes())
        elif "ids.bytes" in file.tensors:
            self.ids = Texts(file, "ids", items)
        else:
            self.ids = range(1, items + 1)
        self._index = index_of_ids(self.ids)
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
        return find_id(raw, self._index.get)

    def indices_of(self, raw_ids: Iterable[RawId]) -> list[int]:
        """`index_of` for each raw id."""
        raws = list(raw_ids)
        found = self._index.many(raws)
        return [index or self.index_of(raw) for index, raw in zip(found, raws, strict=True)] if 0 in found else found

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
