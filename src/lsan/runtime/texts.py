"""Texts as a bundle has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsan.errors import BundleError
from lsan.runtime.file import BundleFile


class Texts(Sequence[str]):
    """Texts of UTF-8 bytes, decoded when asked for. `content` is one after the other, `ends` where each ends, [V]."""

    def __init__(self, file: BundleFile, name: str, count: int) -> None:
        """Raises `BundleError` when the tensors are missing, do not fit each other, or are no UTF-8."""
        self.content = file.tensor(f"{name}.bytes", np.uint8, (None,)).tobytes()
        self.ends = file.tensor(f"{name}.ends", np.int64, (count,)).copy()
        begins = np.concatenate([[0], self.ends[:-1]])
        if count and not ((self.ends >= begins).all() and self.ends[0] >= 0 and self.ends[-1] == len(self.content)):
            raise BundleError(f"{name}.ends: not increasing, or outside {name}.bytes")
        try:
            self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{name}.bytes: not UTF-8 ({error})") from error
        inside = self.ends[self.ends < len(self.content)]
        if (np.frombuffer(self.content, np.uint8)[inside] & 0xC0 == 0x80).any():
            raise BundleError(f"{name}.ends: cuts a character in two")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: Any) -> Any:
        begin = self.ends.item(place - 1) if place else 0
        return self.content[begin : self.ends.item(place)].decode("utf-8")

    def all(self) -> list[str]:
        """Every text."""
        ends = self.ends.tolist()
        return [self.content[begin:end].decode("utf-8") for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
