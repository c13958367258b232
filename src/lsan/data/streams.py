"""Text files, gzipped or not, in any encoding, as blocks of whole UTF-8 lines: never a file at once."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lsan.errors import ConfigError, DataError

#: Bytes read at a time.
BLOCK = 8 << 20
_LONGEST_LINE = 64 << 20
_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, unpacked if it is gzipped.

    Raises:
        DataError: when the file cannot be read.
    """
    with reading(path), _open(path) as file:
        return file.read(count)


def all_bytes(path: Path) -> bytes:
    """The whole of a file, unpacked if it is gzipped.

    Raises:
        DataError: when the file cannot be read.
    """
    with reading(path), _open(path) as file:
        return file.read()


class reading:  # noqa: N801 - a context manager, used as one
    """Turn the errors of reading a file into `DataError`s that name it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            raise DataError(f"{self._path}: the gzip file is damaged or cut short ({error})") from error
        if isinstance(error, IsADirectoryError):
            raise DataError(f"{self._path}: is a folder, expected a file") from error
        if isinstance(error, OSError):
            raise DataError(f"{self._path}: cannot be read: {error.strerror or error}") from error


class TextBlocks:
    """The lines of a text file, many at a time: iterate once, front to back."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        """Open a file.

        Raises:
            ConfigError: when there is no such encoding.
            DataError: when the file cannot be read, or is empty.
        """
        self._path = path
        self._encoding = _encoding_name(encoding)
        self._blocks = self._read()
        self._ahead = next(self._blocks, (b"", True))
        if self._ahead[0].startswith(codecs.BOM_UTF8):
            self._ahead = (self._ahead[0][len(codecs.BOM_UTF8) :], self._ahead[1])
        self._skipped = 0
        if not self._ahead[0].strip():
            raise DataError(f"{path}: the file is empty")
        if self._encoding == "utf-8" and self._ahead[0].startswith(_UTF_16):
            raise DataError(f"{path}, line 1: is encoded as UTF-16, not UTF-8: pass --encoding utf-16")

    def first_line(self) -> tuple[str, int]:
        """The first line that is not blank, without its end, and its number.

        Raises:
            DataError: when the line is not valid UTF-8.
        """
        block, is_last = self._ahead
        while True:
            line, _, rest = block.partition(b"\n")
            if line.strip():
                break
            self._skipped += 1
            block = rest
        self._ahead = (block, is_last)
        number = self._skipped + 1
        try:
            return line.decode("utf-8").rstrip("\r"), number
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._path}, line {number}: byte 0x{line[error.start]:02X} is not valid UTF-8: "
                "name the file's encoding, as in --encoding latin-1"
            ) from error

    def skip_first_line(self) -> None:
        """Leave the line that `first_line` gave out of the blocks."""
        block, is_last = self._ahead
        self._ahead = (block.partition(b"\n")[2], is_last)

    def __iter__(self) -> Iterator[tuple[bytes, bool]]:
        """Yield blocks of whole lines, the last one marked. Blank lines at the very end are left out."""
        block, is_last = self._ahead
        self._ahead = (b"", True)
        while not is_last:
            following, is_last = next(self._blocks)
            if is_last and not following.strip(b"\r\n"):
                break
            if block:
                yield block, False
            block = following
        end = b"\r\n" if b"\r\n" in block else b"\n"
        block = block.rstrip(b"\r\n")
        if block:
            yield block + end, True

    def _read(self) -> Iterator[tuple[bytes, bool]]:
        decoder = None if self._encoding == "utf-8" else codecs.getincrementaldecoder(self._encoding)()
        rest = b""
        with reading(self._path), _open(self._path) as file:
            while True:
                octets = file.read(BLOCK)
                at_end = not octets
                if decoder is not None:
                    octets = self._recode(decoder, octets, at_end=at_end)
                if at_end:
                    yield rest + octets, True
                    return
                end = octets.rfind(b"\n") + 1
                if end == 0:
                    rest += octets
                    if len(rest) > _LONGEST_LINE:
                        raise DataError(f"{self._path}: a line of more than 64 MiB: this is not a text file of rows")
                    continue
                block, rest = rest + octets[:end], octets[end:]
                yield block, False

    def _recode(self, decoder: codecs.IncrementalDecoder, octets: bytes, *, at_end: bool) -> bytes:
        try:
            return decoder.decode(octets, at_end).encode("utf-8")
        except UnicodeError as error:
            raise DataError(f"{self._path}: is not valid {self._encoding}: {error}") from error


def is_gzipped(path: Path) -> bool:
    """Whether a file starts as gzip files do.

    Raises:
        DataError: when the file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return file.read(2) == _GZIP


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if is_gzipped(path) else path.open("rb", buffering=0)  # type: ignore[return-value]


def _encoding_name(encoding: str) -> str:
    try:
        info = codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"--encoding {encoding}: no such text encoding; usual ones are utf-8, latin-1, cp1252"
        ) from error
    return "utf-8" if info.name in ("utf-8", "utf-8-sig", "ascii") else info.name
