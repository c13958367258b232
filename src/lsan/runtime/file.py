"""Reads a bundle (docs/bundle.md): tensors by name and the manifest, all lengths checked before anything is made."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.errors import BundleError

SCHEMA = "1"

#: Longest header and manifest, in bytes.
HEADER_LIMIT, MANIFEST_LIMIT = 2**20, 2**24

#: The part of a bundle that is the shop's own, whatever the model.
VOCABULARY = "ids, titles, categories"

#: Parts of a bundle by the beginnings of their tensors' names; the first that fits.
PARTS = {
    "codes": ("codes", "numbers"),
    "item tables": ("table.", "untied"),
    "popularity": ("popularity.", "offered"),
    VOCABULARY: ("ids.", "titles.", "category_names.", "categories"),
    "test vectors": ("check.",),
    "manifest": ("manifest",),
    "encoder": ("",),
}

_TYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F16": np.float16, "F32": np.float32}

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """The content of a bundle."""

    manifest: Mapping[str, Any]
    """The manifest, of which `items`, `history`, `width`, `categories`, `timed`, `exclude_seen` are checked."""
    tensors: Mapping[str, Array]
    """All tensors but the manifest, as views of the file's bytes."""
    manifest_bytes: Array
    """The manifest as it is in the file."""
    data: bytes | memoryview = b""
    """The bytes of all tensors."""
    sha256: str | None = None
    """SHA-256 of `data` in hexadecimal digits, as the header has it; None where it has none."""

    @classmethod
    def parse(cls, content: bytes) -> "BundleFile":
        """Read a bundle's bytes.

        Raises:
            BundleError: with what is wrong.
        """
        tensors, data, sha256 = _tensors(content)
        found = tensors.pop("manifest", None)
        if found is None or found.dtype != np.uint8 or found.ndim != 1 or len(found) > MANIFEST_LIMIT:
            raise BundleError("no tensor 'manifest' of bytes, or it is too long")
        manifest = _json(found.tobytes(), "the manifest")
        for name, least, most in (
            ("items", 1, 2**31 - 1), ("history", 1, 65_536), ("width", 1, 65_536), ("categories", 0, 2**31 - 3),
        ):  # fmt: skip
            whole(manifest, name, least, most, "the manifest")
        for name in ("timed", "exclude_seen"):
            if not isinstance(manifest.get(name), bool):
                raise BundleError(f"the manifest: {name!r} should be true or false")
        for name, kind in (("quantised", dict), ("table", dict), ("program", list), ("output", dict)):
            if not isinstance(manifest.get(name), kind):
                raise BundleError(f"the manifest: {name!r} is missing or of the wrong type")
        return cls(manifest=manifest, tensors=tensors, manifest_bytes=found, data=data, sha256=sha256)

    def check_digest(self) -> None:
        """Raises `BundleError` when the tensors' bytes are not those that were written."""
        if self.sha256 not in (None, hashlib.sha256(self.data).hexdigest()):
            raise BundleError("damaged: its bytes are not those that were written (SHA-256); copy or export it again")

    def tensor(self, name: str, kind: type, shape: tuple[int | None, ...]) -> Array:
        """The tensor of that name; None in `shape` stands for any length.

        Raises:
            BundleError: when there is none, or it has another type or shape.
        """
        found = self.tensors.get(name)
        if found is None:
            raise BundleError(f"there is no tensor {name!r}")
        fits = found.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found.shape, strict=True)
        )
        if found.dtype != kind or not fits:
            wanted = "x".join("n" if size is None else str(size) for size in shape)
            have = f"{found.dtype} of shape {list(found.shape)}"
            raise BundleError(f"{name}: {have}, expected {kind.__name__} [{wanted}]")
        return found

    def packed(self, name: str, bits: int, count: int) -> IntArray:
        """Packed whole numbers.

        Raises:
            BundleError: when there are not so many bytes.
        """
        found = self.tensor(name, np.uint8, (packed_size(count, bits),))
        if count * bits % 8 and found[-1] & (0xFF >> count * bits % 8):
            raise BundleError(f"{name}: its last byte is not filled with zeros")
        return unpack(found, bits, count)

    def quantised(self, name: str, dimensions: int) -> tuple[IntArray, FloatArray] | None:
        """The whole numbers around 0 of a quantised tensor, and their scales: one for each index of the first axis, or
        one in all. None where it is not quantised.

        Raises:
            BundleError: when it is not as the manifest says, or has another number of dimensions.
        """
        described = self.manifest["quantised"].get(name)
        if described is None:
            return None
        shape, bits = described.get("shape") if isinstance(described, dict) else None, None
        if isinstance(shape, list):
            bits = described.get("bits")
        if (
            type(bits) is not int
            or bits not in (4, 8)
            or not shape
            or not all(type(n) is int and 1 <= n < 2**31 for n in shape)
        ):
            raise BundleError(f"quantised {name}: expected a shape and 4 or 8 bits, got {described}")
        if len(shape) != dimensions or math.prod(shape) >= 2**40:
            raise BundleError(f"quantised {name}: shape {shape}, expected {dimensions} dimensions")
        rows = shape[0] if math.prod(shape[1:]) >= 16 else 1
        scales = self.tensor(f"{name}.scale", np.float16, (rows,)).astype(np.float32)
        if not (np.isfinite(scales).all() and (scales >= 0).all()):
            raise BundleError(f"{name}.scale: not finite, or negative")
        return (self.packed(name, bits, math.prod(shape)) - 2 ** (bits - 1)).reshape(shape), scales

    def floats(self, name: Any, dimensions: int) -> FloatArray:
        """A tensor of floats, dequantised where it is quantised.

        Raises:
            BundleError: when there is none of that name with so many dimensions, or it holds what is no number.
        """
        if not isinstance(name, str):
            raise BundleError(f"{name!r} is no name of a tensor")
        found = self.quantised(name, dimensions)
        if found is None:
            tensor = self.tensors.get(name)
            if tensor is None or tensor.dtype.kind != "f" or tensor.ndim != dimensions or tensor.size == 0:
                raise BundleError(f"{name}: no tensor of floats with {dimensions} dimensions")
            values: FloatArray = tensor.astype(np.float32)
        else:
            numbers, scales = found
            rows = numbers.astype(np.float32).reshape(len(scales), -1)
            values = (rows * scales[:, None]).reshape(numbers.shape)
        if not np.isfinite(values).all():
            raise BundleError(f"{name}: holds what is no finite number")
        return values

    def popularity(self) -> IntArray:
        """Training events of each item, entry v - 1 of item v. Shape [V].

        Raises:
            BundleError: when they are not there, or not of these items.
        """
        items = self.manifest["items"]
        popular = whole(self.manifest, "popular", 0, items, "the manifest")
        places = self.packed("popularity.items", items.bit_length(), popular)
        bits = whole(self.manifest, "popular_bits", 1, 31, "the manifest")
        if popular and not ((np.diff(places) > 0).all() and places[0] >= 1 and places[-1] <= items):
            raise BundleError("popularity.items: not increasing, or out of range")
        counts = np.zeros(items, dtype=np.int64)
        counts[places - 1] = self.packed("popularity.counts", bits, popular)
        return counts


def read_bundle(path: str | Path) -> BundleFile:
    """Read a bundle file.

    Raises:
        BundleError: with the file and what is wrong.
    """
    return parse_bundle(read_bytes(path), str(path))


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes. Raises `BundleError` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        advice = "a bundle is what `lsan export` writes"
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {advice}") from error


def parse_bundle(content: bytes, where: str) -> BundleFile:
    """`BundleFile.parse`, with errors that begin with `where`."""
    try:
        return BundleFile.parse(content)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error


def expect(holds: bool, message: str) -> None:
    """Raises `BundleError` with the message unless it holds."""
    if not holds:
        raise BundleError(message)


def whole(entries: Mapping[str, Any], name: str, least: int, most: int, where: str) -> int:
    """A whole number among the entries of a JSON object.

    Raises:
        BundleError: when it is missing, of another type or out of range.
    """
    found = entries.get(name)
    if type(found) is not int or not least <= found <= most:
        raise BundleError(f"{where}: {name!r} is {found!r:.80}, expected a whole number of {least} to {most}")
    return found


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` packed numbers."""
    return -(-count * bits // 8)


def unpack(packed: npt.NDArray[np.uint8], bits: int, count: int) -> IntArray:
    """The first `count` numbers of b bits each, the highest bit of each first."""
    if bits == 8:
        return packed[:count].astype(np.int64)
    numbers = np.empty(count, dtype=np.int64)
    for begin in range(0, count, 2**20):  # a multiple of 8, so that pieces begin at whole bytes
        piece = min(2**20, count - begin)
        flags = np.unpackbits(packed[begin * bits // 8 :][: packed_size(piece, bits)], count=piece * bits)
        numbers[begin : begin + piece] = flags.reshape(piece, bits) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
    return numbers


def _tensors(content: bytes) -> tuple[dict[str, Array], memoryview, str | None]:
    """The tensors by name, the bytes of all, and what the header says is their SHA-256."""
    if len(content) < 8:
        raise BundleError(f"only {len(content)} bytes: not a bundle")
    size = int.from_bytes(content[:8], "little")
    if size > HEADER_LIMIT or size > len(content) - 8:
        raise BundleError(f"a header of {size} bytes does not fit: not a bundle, or truncated")
    header = _json(content[8 : 8 + size], "the header")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != "lsan":
        raise BundleError('no "format": "lsan" in the header: not a bundle')
    if metadata.get("schema") != SCHEMA:
        raise BundleError(f"schema {metadata.get('schema')!r:.80}; this lsan reads schema {SCHEMA}: take a newer lsan")
    sha256 = metadata.get("sha256")
    if not isinstance(sha256, str | None):
        raise BundleError(f"'sha256' of the header is {sha256!r:.80}, expected a text")
    data = memoryview(content)[8 + size :]
    tensors: dict[str, Array] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise BundleError(f"{name}: expected dtype, shape and data_offsets")
        kind, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _TYPES:
            raise BundleError(f"{name}: type {kind!r:.80} is not one of {', '.join(_TYPES)}")
        for numbers, most in ((shape, 8), (ends, 2)):
            if not isinstance(numbers, list) or len(numbers) > most or not all(type(n) is int for n in numbers):
                raise BundleError(f"{name}: shape and data_offsets should be lists of whole numbers")
        dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= len(data) or any(not 0 <= n < 2**40 for n in shape):
            raise BundleError(f"{name}: lies outside the file, which may be truncated")
        if math.prod(shape) * dtype.itemsize != ends[1] - ends[0] or (
            0 in shape and len(shape) > 1 and max(shape) > 2**31
        ):
            raise BundleError(f"{name}: {ends[1] - ends[0]} bytes are not {kind} of shape {shape}")
        tensors[name] = np.frombuffer(data[ends[0] : ends[1]], dtype=dtype).reshape(shape)
        places.append((ends[0], ends[1], name))
    end = 0
    for begin, stop, name in sorted(places):
        if begin != end:
            raise BundleError(f"{name}: overlaps another tensor, or leaves a gap")
        end = stop
    if end != len(data):
        raise BundleError(f"{len(data) - end} bytes after the last tensor")
    return tensors, data, sha256


def _json(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what} is not valid JSON ({error!s:.200})") from error
    if not isinstance(found, dict):
        raise BundleError(f"{what} is no JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same name twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
