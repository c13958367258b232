"""Raw ids as compact codes: a column costs four bytes a row and one copy of each distinct id."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

#: The code of a missing value.
MISSING = np.iinfo(np.uint32).max

Codes = npt.NDArray[np.uint32]
#: "text": from a file without types, so numbers are recognised by their looks.
Kind = Literal["integer", "string", "text"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A column of ids."""

    codes: Codes
    """Position of each row's id in `values`; `MISSING` where it has none. Shape [rows]."""
    values: pl.Series
    """The distinct ids as text (String)."""
    kind: Kind
    """What the ids were in the file."""

    def ids(self) -> pl.Series:
        """The distinct ids as they came: Int64 or String, in the order of `values`."""
        if self.kind == "string":
            return self.values
        if self.kind == "integer":
            return self.values.cast(pl.Int64)
        numbers = self.values.cast(pl.Int64, strict=False)
        canonical = numbers.null_count() == 0 and bool((numbers.cast(pl.String) == self.values).all())
        return numbers if canonical else self.values


class Encoder:
    """Builds an `Encoded` column from pieces."""

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        # Polars forgets categories that no column has any more.
        self._keep_alive = pl.Series([], dtype=pl.Categorical(self._categories))
        self._pieces: list[Codes] = []
        self._kinds: set[Kind] = set()

    def add(self, column: pl.Series, *, typed: bool) -> None:
        """Append a piece: integers or strings; nulls become `MISSING`."""
        self._kinds.add("text" if not typed else "integer" if column.dtype.is_integer() else "string")
        codes = column.cast(pl.String).cast(pl.Categorical(self._categories)).to_physical()
        self._pieces.append(codes.fill_null(MISSING).to_numpy().copy())  # lets Polars reuse its memory

    def finish(self) -> Encoded:
        """The whole column. Integers in one file and strings in another make strings of all."""
        codes = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.uint32)
        self._pieces.clear()
        kind: Kind = next(iter(self._kinds)) if len(self._kinds) == 1 else "string"
        return Encoded(codes=codes, values=self._categories.to_series().alias("id"), kind=kind)
