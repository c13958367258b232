"""The prepared dataset: a folder that training and evaluation read through memory maps.

dataset.json    format, version, counts, content hash, the summary of the preparation
offsets.npy     int64 [U + 1]; the events of user u are offsets[u] .. offsets[u + 1] - 1, oldest first
items.npy       int32 [E]; item indices 1..V
timestamps.npy  int64 [E]; milliseconds since 1970-01-01 UTC (absent when the log had no times)
catalogue.arrow id, title, category of the items 1..V (Arrow IPC)
users.arrow     id of the users 0..U-1 (Arrow IPC)
"""

import hashlib
import json
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.catalogue import Catalogue
from lsan.errors import DataError
from lsan.files import new_folder

FORMAT = "lsan-dataset"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Histories of U users over V items, E events in all. Opened from a folder, arrays are memory-mapped."""

    path: Path
    """The folder."""
    offsets: npt.NDArray[np.int64]
    """Shape [U + 1]."""
    items: npt.NDArray[np.int32]
    """Item indices 1..V, users one after the other, each oldest first. Shape [E]."""
    timestamps: npt.NDArray[np.int64] | None
    """Milliseconds since 1970 UTC, None when the log had no times. Shape [E]."""
    summary: dict[str, Any]
    """What the preparation read, dropped and kept (the `summary` of dataset.json)."""
    content_hash: str
    """SHA-256 over offsets, items, timestamps, catalogue and user ids: equal hashes mean equal data."""

    @property
    def users(self) -> int:
        return len(self.offsets) - 1

    @property
    def events(self) -> int:
        return len(self.items)

    @cached_property
    def catalogue(self) -> Catalogue:
        frame = _read_table(self.path / "catalogue.arrow", ("id", "title", "category"))
        return Catalogue(
            ids=frame["id"].to_list(), titles=frame["title"].to_list(), categories=frame["category"].to_list()
        )

    def user_ids(self) -> pl.Series:
        """Raw user ids, in index order. Shape [U]."""
        return _read_table(self.path / "users.arrow", ("id",))["id"]

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Open a dataset folder without reading its events.

        Raises:
            DataError: when the folder is not a dataset, is of a newer version, or its files disagree.
        """
        path = Path(path)
        description = path / "dataset.json"
        try:
            header = json.loads(description.read_bytes())
        except OSError as error:
            raise DataError(
                f"{path} is not a dataset folder: {error.strerror} ({description}); make one with `lsan prepare`"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{description}: not valid JSON ({error})") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise DataError(f'{description}: expected "format": "{FORMAT}"; make a dataset with `lsan prepare`')
        if header.get("version") != VERSION:
            raise DataError(
                f"{description}: version {header.get('version')}, this lsan reads version {VERSION}; "
                "prepare the log again"
            )
        offsets = _map(path / "offsets.npy", np.int64)
        items = _map(path / "items.npy", np.int32)
        timestamps = _map(path / "timestamps.npy", np.int64) if header.get("has_timestamps") else None
        counts = {"users": len(offsets) - 1, "events": len(items)}
        for name, count in counts.items():
            if header.get(name) != count:
                raise DataError(
                    f"{description}: says {header.get(name)} {name}, the arrays hold {count}; prepare the log again"
                )
        if timestamps is not None and len(timestamps) != len(items):
            raise DataError(f"{path}: {len(timestamps)} timestamps for {len(items)} items; prepare the log again")
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items):
            raise DataError(f"{path / 'offsets.npy'}: does not cover the events; prepare the log again")
        if (np.diff(offsets) < 0).any():
            raise DataError(f"{path / 'offsets.npy'}: offsets go backwards; prepare the log again")
        return cls(
            path=path,
            offsets=offsets,
            items=items,
            timestamps=timestamps,
            summary=header.get("summary", {}),
            content_hash=str(header.get("content_hash", "")),
        )


def write_dataset(
    path: Path,
    *,
    offsets: npt.NDArray[np.int64],
    items: npt.NDArray[np.int32],
    timestamps: npt.NDArray[np.int64] | None,
    catalogue: pl.DataFrame,
    users: pl.DataFrame,
    summary: dict[str, Any],
) -> None:
    """Write a dataset folder atomically. `catalogue` has columns id, title, category; `users` has id.

    Raises:
        DataError: when `path` exists already.
    """
    digest = hashlib.sha256()
    for array in (offsets, items, *(() if timestamps is None else (timestamps,))):
        digest.update(np.ascontiguousarray(array).data)
    for frame, names in ((catalogue, ("id", "title", "category")), (users, ("id",))):
        for name in names:
            _update_digest(digest, frame[name])
    try:
        with new_folder(Path(path)) as folder:
            np.save(folder / "offsets.npy", offsets)
            np.save(folder / "items.npy", items)
            if timestamps is not None:
                np.save(folder / "timestamps.npy", timestamps)
            _write_table(folder / "catalogue.arrow", catalogue.select("id", "title", "category"))
            _write_table(folder / "users.arrow", users.select("id"))
            header = {
                "format": FORMAT,
                "version": VERSION,
                "users": len(offsets) - 1,
                "items": catalogue.height,
                "events": len(items),
                "has_timestamps": timestamps is not None,
                "content_hash": digest.hexdigest(),
                "summary": summary,
            }
            text = json.dumps(header, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            (folder / "dataset.json").write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        reason = error.strerror or f"{error}; is the disk full?"  # NumPy does not say why it wrote less
        raise DataError(f"cannot write {path}: {reason}") from error


def _update_digest(digest: "hashlib._Hash", column: pl.Series) -> None:
    """Add a column: its type and length, and its integers, or the lengths (-1: null) and bytes of its texts."""
    if column.dtype == pl.String:
        digest.update(b"string" + len(column).to_bytes(8, "little"))
        digest.update(column.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy().tobytes())
        digest.update("".join(text for text in column.to_list() if text is not None).encode())
    else:
        digest.update(b"integer" + len(column).to_bytes(8, "little"))
        digest.update(column.cast(pl.Int64).to_numpy().tobytes())


def _write_table(path: Path, frame: pl.DataFrame) -> None:
    # The oldest layout: strings in one buffer, so equal tables give equal files whatever they were cut from.
    frame.rechunk().write_ipc(path, compat_level=pl.CompatLevel.oldest())


def is_dataset(path: Path) -> bool:
    """Whether this is a dataset's folder, whole or not."""
    return (path / "dataset.json").is_file()


def _map(path: Path, dtype: type[np.generic]) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # as NumPy reads the header
        raise DataError(f"{path}: cannot be read ({error}); prepare the log again") from error
    if array.dtype != dtype or array.ndim != 1:
        raise DataError(f"{path}: expected a one-dimensional {np.dtype(dtype)} array, got {array.ndim}-d {array.dtype}")
    return np.asarray(array)


def _read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        return pl.read_ipc(path, columns=list(columns))
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the log again") from error
