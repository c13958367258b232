"""Watches the file of the model: a new one is read and verified before it is served."""

from pathlib import Path

from lsan.errors import BundleError
from lsan.files import write_atomically
from lsan.runtime.file import read_bytes
from lsan.serving.model import Model, version_of

_Signature = tuple[int, int, int]


class Watch:
    """One file, which is replaced by renaming a new one to its name. Not to be called by two threads at once."""

    def __init__(self, path: Path, *, keep: Path | None = None) -> None:
        """`keep` is where a copy of the latest good file is kept, for workers that begin while the file is bad."""
        self._path, self._keep = path, keep
        self._seen: _Signature | None = None
        self._version = ""
        self.refused = False
        """Whether the file, as it was when it was last read, cannot be used."""

    def first(self) -> Model:
        """The model to begin with: that of the file, or the latest good one where there is such.

        Raises:
            BundleError: when neither can be used.
        """
        try:
            model = self.check()
        except BundleError:
            if self._keep is None or not self._keep.exists():
                raise
            model = self._load(read_bytes(self._keep))
        assert model is not None, "the first check has nothing to compare with"
        return model

    def check(self, *, again: bool = False) -> Model | None:
        """The model of the file where that has changed since the last check, else None. With `again`, a file that was
        refused is read again even if nothing about it seems to have changed.

        Raises:
            BundleError: when it has changed and cannot be used.
        """
        signature = _signature(self._path)
        if signature == self._seen and not again:
            return None
        self._seen = signature
        self.refused = True
        content = _read(self._path)
        model = None if version_of(content) == self._version else self._load(content)
        self.refused = False
        return model

    def _load(self, content: bytes) -> Model:
        model = Model(content, where=str(self._path))
        if self._keep is not None:
            write_atomically(self._keep, content)
        self._version = model.version  # last: what is not served yet is read again
        return model


def _signature(path: Path) -> _Signature:
    """What changes when a file is replaced; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: Path) -> bytes:
    """Raises `BundleError` when it cannot be read."""
    if path.exists() and not path.is_file():
        raise BundleError(f"{path}: is no file; a bundle is what `lsan export` writes")
    return read_bytes(path)
