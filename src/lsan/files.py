"""Atomic writes: a file or folder appears complete under its name, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsan.errors import DataError


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, fsync it, and rename it to `path`.

    Raises:
        DataError: when the folder does not exist or cannot be written to, or `path` is a folder itself.
    """
    refuse_folder(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        DataError: when `path` already exists (unless it is an empty folder) or cannot be made.
    """
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise DataError(f"cannot make the folder {path}: {error.strerror}") from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _fsync(file)
        temporary.chmod(0o755)
        refuse_existing(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(path.parent)


def refuse_folder(path: Path) -> None:
    """Raise `DataError` when `path` is a folder, where a file is to be written."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected the name of a file to write")


def refuse_existing(path: Path) -> None:
    """Raise `DataError` when `path` exists and is not an empty folder: nothing of the user's is overwritten."""
    if path.is_dir():
        if any(path.iterdir()):
            raise DataError(f"{path} already exists and is not empty: name another folder, or delete this one")
    elif path.exists():
        raise DataError(f"{path} already exists and is a file: name a folder that does not exist yet")
