"""Codes of which most items use few pairs in every two tables, as a bundle holds them: one number for two."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]

#: A column's pairs are chosen once from all items, and then twice from those that these suit nearly everywhere.
_ROUNDS, _NEARLY = 3, 0.75


@dataclass(frozen=True)
class Pairs:
    """Codes as pairs."""

    rows: npt.NDArray[np.int64]
    """The codes that each pair names. Shape [tables / 2, 2 ** bits, 2]."""
    numbers: npt.NDArray[np.int64]
    """Which pair each item has in every two tables, -1 for one that is not among them. Shape [items, tables / 2]."""
    paired: npt.NDArray[np.bool_]
    """Items whose pairs are all among them. Shape [items]."""


def find_pairs(codes: IntArray, bits: int) -> Pairs | None:
    """The most frequent pairs of every two tables; None where codes [items, tables] take no less room with them."""
    items, tables = codes.shape
    if tables % 2:
        return None
    keys = codes[:, ::2].astype(np.int64) << bits | codes[:, 1::2]
    chosen, suits = [np.zeros(0, dtype=np.int64)] * (tables // 2), np.ones(items, dtype=bool)
    numbers = np.full(keys.shape, -1)
    for _ in range(_ROUNDS):
        for n, column in enumerate(keys.T):
            found, counts = np.unique(column[suits], return_counts=True)
            chosen[n] = np.sort(found[np.argsort(-counts, kind="stable")[: 2**bits]])
            places = np.searchsorted(chosen[n], column).clip(max=len(chosen[n]) - 1)
            numbers[:, n] = np.where(chosen[n][places] == column, places, -1)
        suits = (numbers >= 0).mean(1) >= _NEARLY
        if not suits.any():
            return None
    paired = np.all(numbers >= 0, axis=1)
    rows = np.zeros((tables // 2, 2**bits, 2), dtype=np.int64)
    for row, pairs in zip(rows, chosen, strict=True):
        row[: len(pairs)] = np.stack([pairs >> bits, pairs & 2**bits - 1], axis=1)
    smaller = rows.size < paired.sum() * (tables // 2)
    return Pairs(rows=rows, numbers=numbers, paired=paired) if smaller else None
