"""How an item of a bundle becomes a vector."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.runtime.file import BundleFile, FloatArray, IntArray, expect, whole


class ItemTable:
    """Vectors of items from a bundle's weight and codes."""

    def __init__(self, file: BundleFile) -> None:
        table, items, width = file.manifest["table"], file.manifest["items"], file.manifest["width"]
        self.weight = file.floats(table.get("weight"), 2)
        self._turn = None if table.get("turn") is None else file.floats(table["turn"], 2)
        expect(self._turn is None or len(self._turn) == width, "table: turn does not fit the width")
        self.codes: npt.NDArray[np.int32] | None = None  # rows of the matrix, [V, N]
        self.slices = 1
        if table.get("kind") == "vectors":
            expect(self.weight.shape == (items, width), f"table: {self.weight.shape}, expected {items} x {width}")
            return
        expect(table.get("kind") == "codes", f"table of kind {table.get('kind')!r:.80}")
        rows, offsets = table.get("rows"), table.get("offsets")
        for numbers in (rows, offsets):
            whole_numbers = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**31 for n in numbers)
            expect(whole_numbers and 1 <= len(numbers) <= 64, "table: rows and offsets should be whole numbers")
        expect(len(rows) == len(offsets), "table: as many offsets as rows")
        fits = all(m >= 1 and o + m <= len(self.weight) for m, o in zip(rows, offsets, strict=True))
        expect(fits, "table: names rows that do not exist")
        self.slices = whole(table, "slices", 1, 64, "table")
        expect(self.slices in (1, len(rows)), "table: slices should be 1 or the number of tables")
        expect(self.weight.shape[1] * self.slices == width, "table: rows of another width")
        self.codes = _codes(file, table.get("codes"), rows, items)
        self.codes += np.array(offsets, dtype=np.int32)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + (0 if self.codes is None else self.codes.nbytes)

    def turned(self, items: IntArray) -> FloatArray:
        """The vectors of items 1..V as encoders read them, which is how items are compared. Shape [items, width of the
        model]."""
        vectors = self.vectors(items)
        return vectors if self._turn is None else vectors @ self._turn

    def pieces(self, items: IntArray) -> FloatArray:
        """The rows of codes of the items 1..V. Shape [items, N, width / slices]."""
        assert self.codes is not None
        pieces: FloatArray = self.weight[self.codes[items - 1]]
        return pieces

    def vectors(self, items: IntArray) -> FloatArray:
        if self.codes is None:
            vectors: FloatArray = self.weight[items - 1]
            return vectors
        pieces = self.pieces(items)
        return pieces.sum(1) if self.slices == 1 else pieces.reshape(len(items), -1)

    def scores(self, hidden: FloatArray) -> FloatArray:
        if self.codes is None:
            return self.weight @ hidden
        parts = [hidden] * self.codes.shape[1] if self.slices == 1 else np.split(hidden, self.slices)
        scores = np.zeros(len(self.codes), dtype=np.float32)
        for column, part in zip(self.codes.T, parts, strict=True):
            scores += (self.weight @ part)[column]
        return scores


def _codes(file: BundleFile, source: Any, rows: list[int], items: int) -> npt.NDArray[np.int32]:
    """Code of each item in each table. Shape [V, N]."""
    kind = source.get("from") if isinstance(source, dict) else None
    if kind in ("packed", "pairs"):
        bits = whole(source, "bits", 1, 32, "codes")
        if kind == "packed":
            codes = file.packed("codes", bits, items * len(rows)).reshape(items, -1)
        else:
            codes = _of_pairs(file, source, bits, len(rows), items)
        expect(bool((codes < np.array(rows)).all()), "codes: names a row that does not exist")
        return codes.astype(np.int32)
    expect(len(rows) <= (17 if kind == "digits" else 8), f"{len(rows)} tables of codes from {kind!r:.80}")
    if kind == "digits":
        numbers = file.packed("numbers", whole(source, "bits", 1, 32, "codes"), items)
        digits = []
        for radix in rows:
            digits.append((numbers % radix).astype(np.int32))
            numbers = numbers // radix
        return np.stack(digits, axis=1)
    expect(kind == "hash", f"codes from {kind!r:.80}")
    mask = np.uint64(0xFFFFFFFF)
    keys = (np.arange(1, items + 1)[:, None] + np.arange(len(rows)) * 0x9E3779B9).astype(np.uint64) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        keys ^= keys >> np.uint64(shift)
        keys = keys * np.uint64(factor) & mask
    return ((keys ^ (keys >> np.uint64(16))) % np.array(rows, dtype=np.uint64)).astype(np.int32)


def _of_pairs(file: BundleFile, source: dict[str, Any], bits: int, tables: int, items: int) -> IntArray:
    """Codes of which the first items have one number for two. Shape [V, N]."""
    expect(tables % 2 == 0, f"codes: pairs of an odd number of tables, {tables}")
    half, paired, count = (
        tables // 2,
        whole(source, "paired", 0, items, "codes"),
        whole(source, "pairs", 1, 65536, "codes"),
    )
    pairs = file.packed("codes.pairs", bits, half * count * 2).reshape(half, count, 2)
    numbers = file.packed("codes", bits, items * tables - paired * half)
    first, others = numbers[: paired * half].reshape(paired, half), numbers[paired * half :].reshape(-1, tables)
    expect(bool((first < count).all()), "codes: names a pair that does not exist")
    return np.concatenate([pairs[np.arange(half), first].reshape(paired, tables), others])
