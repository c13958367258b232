"""Writes a bundle (docs/bundle.md): one safetensors file with all that recommending takes."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from lsan.config import Recipe, recipe_to
from lsan.data.windows import Window
from lsan.errors import ConfigError
from lsan.export.pairs import Pairs, find_pairs
from lsan.export.program import Arithmetic, Parameter, Program, program_of
from lsan.models.histories import Histories
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.composed import ComposedTable
from lsan.models.item_tables.hashed import HashedTable
from lsan.models.item_tables.turned import TurnedTable
from lsan.models.network import Network
from lsan.models.quantisation import dequantise, pack_bits
from lsan.runs import Run
from lsan.runtime.file import PARTS, SCHEMA, VOCABULARY, Array, IntArray

#: Made-up histories in a bundle, their longest, and how many of their best items are kept.
CHECKS, CHECK_LENGTH, CHECK_BEST = 8, 16, 10

#: How far a right engine's scores may be from the network's, as a share of the largest absolute score, by arithmetic.
TOLERANCES: dict[Arithmetic, float] = {"float32": 1e-4, "int8": 0.05}

_KINDS = {"uint8": "U8", "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle in memory."""

    content: bytes
    """The file."""
    parts: dict[str, int]
    """Its bytes by part; their sum is the length of the file."""
    order: IntArray
    """Index 1..V in the run of each of the bundle's items. Shape [V]."""


def make_bundle(run: Run, *, arithmetic: Arithmetic = "float32", metrics: dict[str, Any] | None = None) -> Bundle:
    """Everything of a run that recommending takes. The same run gives the same bytes.

    Args:
        run: what `load_run` gave.
        arithmetic: as in `program_of`.
        metrics: figures that are kept in the bundle, for people.

    Raises:
        ConfigError: when the network cannot be written in the bundle's operations.
    """
    network = run.network.cpu().eval()
    program = program_of(network, arithmetic)
    pairs = _pairs(network)
    order = _order(network, pairs)
    tensors: dict[str, Array] = {}
    quantised: dict[str, Any] = {}
    for name, parameter in program.parameters.items():
        tensors |= _parameter(name, _in_order(name, parameter, program, network, order), quantised)
    table = _table(network, tensors, order, pairs)
    popular, popular_bits = _popularity(network, order, tensors)
    if not network.offered.all():
        tensors["offered"] = pack_bits(network.offered.numpy()[order - 1].astype(np.int64), 1)
    tensors |= _vocabulary(run, order)
    recipe, timed = run.header.recipe, program.timed and run.header.timed
    tensors |= _checks(network, order, timed=timed)
    manifest = {
        "items": len(order),
        "history": recipe.model.history,
        "width": recipe.model.vector_width,
        "timed": timed,
        "exclude_seen": recipe.exclude_seen,
        "categories": len(run.catalogue.category_names),
        "popular": popular,
        "popular_bits": popular_bits,
        "quantised": quantised,
        "table": table,
        "program": program.operations,
        "output": program.output,
        "tolerance": TOLERANCES[arithmetic],
        "provenance": {
            "lsan": version("lsan"),
            "torch": torch.__version__,
            "dataset": {name: entry for name, entry in run.header.dataset.items() if name != "path"},
            "recipe": _beyond(recipe_to(recipe), recipe_to(Recipe())),
            "metrics": metrics or {},
        },
    }
    content = bundle_bytes(tensors, manifest)
    parts = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        parts[next(part for part, begins in PARTS.items() if name.startswith(begins))] += tensor.nbytes
    parts["header"] = len(content) - sum(parts.values())
    return Bundle(content=content, parts={part: size for part, size in parts.items() if size}, order=order)


def shipped_parts(run: Run) -> dict[str, int]:
    """Bytes by part of a run's bundle, all but its `VOCABULARY`."""
    return {part: size for part, size in make_bundle(run).parts.items() if part != VOCABULARY}


def _beyond(table: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says beyond the defaults; reading it gives the same recipe."""
    found = {}
    for name, entry in table.items():
        other = default.get(name)
        if isinstance(entry, dict) and isinstance(other, dict) and entry.get("kind") == other.get("kind"):
            inside = _beyond(entry, other)
            if inside:
                found[name] = ({"kind": entry["kind"]} if "kind" in entry else {}) | inside
        elif entry != other:
            found[name] = entry
    return found


def _pairs(network: Network) -> Pairs | None:
    table = network.table
    return find_pairs(table.codes.numpy(), _code_bits(table)) if isinstance(table, CodedTable) else None


def _order(network: Network, pairs: Pairs | None) -> IntArray:
    """Items with codes stand in the order of their first two, so that engines can pass over many at once; those whose
    codes are held as pairs before the others."""
    items = np.arange(1, len(network.popularity) + 1)
    if not isinstance(network.table, CodedTable):
        return items
    codes = network.table.codes.numpy()
    second = codes[:, min(1, codes.shape[1] - 1)]
    alone = np.zeros(len(items), dtype=bool) if pairs is None else ~pairs.paired
    return items[np.lexsort((items, second, codes[:, 0], alone))]


def _code_bits(table: CodedTable) -> int:
    return (table.rows - 1).bit_length()


def _in_order(name: str, parameter: Parameter, program: Program, network: Network, order: IntArray) -> Parameter:
    """A parameter with a row for each item in the bundle's order."""
    of_items = name in ("table.bias", "untied") or (name == "table.weight" and _has_vectors(network))
    if not of_items:
        return parameter
    places = torch.from_numpy(order - 1)
    scales = parameter.scales
    if scales is not None and len(scales) > 1:
        scales = scales[places]
    return Parameter(values=parameter.values[places].contiguous(), bits=parameter.bits, scales=scales)


def _has_vectors(network: Network) -> bool:
    return not isinstance(network.table, CodedTable | ComposedTable | HashedTable)


def _parameter(name: str, parameter: Parameter, quantised: dict[str, Any]) -> dict[str, Array]:
    """A parameter as it is written; what is quantised is added to the manifest's `quantised`."""
    values, bits, scales = parameter.values, parameter.bits, parameter.scales
    if bits is not None and scales is not None:
        if parameter.is_quantised:
            quantised[name] = {"shape": list(values.shape), "bits": bits}
            packed = pack_bits(values.numpy().astype(np.int64).ravel() + 2 ** (bits - 1), bits)
            return {name: packed, f"{name}.scale": scales.half().numpy()}
        values = dequantise(values, scales)  # some columns of a matrix, too few for scales of their own
    half = values.half()
    exact = bool((half.float() == values).all())
    return {name: (half if exact else values).contiguous().numpy()}


def _table(network: Network, tensors: dict[str, Array], order: IntArray, pairs: Pairs | None) -> dict[str, Any]:
    """The manifest's `table`; adds what it needs to the tensors."""
    table = network.table
    entry: dict[str, Any] = {"kind": "codes", "weight": "table.weight"}
    if isinstance(table, TurnedTable) and table.turn is not None:
        entry["turn"] = "table.turn"
    if isinstance(table, CodedTable):
        bits, codes = _code_bits(table), table.codes.numpy()[order - 1].astype(np.int64)
        source: dict[str, Any] = {"from": "packed", "bits": bits}
        numbers = codes.ravel()
        if pairs is not None:
            count = int(pairs.paired.sum())
            source = {"from": "pairs", "bits": bits, "paired": count, "pairs": pairs.rows.shape[1]}
            tensors["codes.pairs"] = pack_bits(pairs.rows.ravel(), bits)
            numbers = np.concatenate([pairs.numbers[order[:count] - 1].ravel(), codes[count:].ravel()])
        tensors["codes"] = pack_bits(numbers, bits)
        rows = [table.rows] * table.tables
        offsets = [table.rows * number for number in range(table.tables)]
        return entry | {"rows": rows, "offsets": offsets, "slices": table.slices, "codes": source}
    if isinstance(table, ComposedTable):
        numbers = table.numbers.numpy().astype(np.int64)
        bits = max(1, int(numbers.max()).bit_length())
        tensors["numbers"] = pack_bits(numbers, bits)
        rows = list(table.radices)
        offsets = np.cumsum([0, *rows[:-1]]).tolist()
        return entry | {"rows": rows, "offsets": offsets, "slices": 1, "codes": {"from": "digits", "bits": bits}}
    if isinstance(table, HashedTable):
        hashes = table.codes.rows.shape[1]
        rows = [len(table.weight)] * hashes
        return entry | {"rows": rows, "offsets": [0] * hashes, "slices": 1, "codes": {"from": "hash"}}
    return entry | {"kind": "vectors"}


def _popularity(network: Network, order: IntArray, tensors: dict[str, Array]) -> tuple[int, int]:
    """The manifest's `popular` and `popular_bits`; adds the tensors."""
    counts = network.popularity.numpy()[order - 1].astype(np.int64)
    places = np.flatnonzero(counts)
    bits = max(1, int(counts.max()).bit_length())
    tensors["popularity.items"] = pack_bits(places + 1, len(order).bit_length())
    tensors["popularity.counts"] = pack_bits(counts[places], bits)
    return len(places), bits


def _vocabulary(run: Run, order: IntArray) -> dict[str, Array]:
    catalogue, places = run.catalogue, (order - 1).tolist()
    tensors: dict[str, Array] = {}
    ids = [catalogue.ids[place] for place in places]
    if all(isinstance(raw, int) for raw in ids):
        tensors["ids.numbers"] = np.array(ids, dtype=np.int64)
    else:
        tensors |= _texts("ids", [str(raw) for raw in ids])
    if any(title is not None for title in catalogue.titles):
        tensors |= _texts("titles", [catalogue.titles[place] or "" for place in places])
    names = catalogue.category_names
    if names:
        of_item = catalogue.category_of_item[order].astype(np.int64)
        tensors["categories"] = pack_bits(of_item, len(names).bit_length())
        tensors |= _texts("category_names", names)
        context = run.network.context
        if context is not None:
            expected = np.where(of_item == 0, len(names) + 1, of_item)
            if not np.array_equal(context.category_of_item.numpy()[order], expected):
                raise ConfigError("the model's categories are not those of its catalogue, so it cannot be exported")
    return tensors


def _texts(name: str, texts: list[str]) -> dict[str, Array]:
    pieces = [text.encode("utf-8", "replace") for text in texts]
    return {
        f"{name}.bytes": np.frombuffer(b"".join(pieces), dtype=np.uint8),
        f"{name}.ends": np.cumsum([len(piece) for piece in pieces]).astype(np.int64),
    }


def _checks(network: Network, order: IntArray, *, timed: bool) -> dict[str, Array]:
    """Made-up histories and what the network answers."""
    random = np.random.default_rng(0)
    offered = np.flatnonzero(network.offered.numpy()[order - 1]) + 1  # in the bundle's numbers
    length = min(CHECK_LENGTH, network.config.history)
    items = random.choice(offered, size=(CHECKS, length)).astype(np.int64)
    times = np.cumsum(random.integers(1, 400_000_000, size=(CHECKS, length + 1)), axis=1) + 1_000_000_000_000
    times, asked = times[:, :-1], times[:, -1]
    for row in range(CHECKS):
        events = 1 + (length - 1) * row // max(1, CHECKS - 1)
        items[row, : length - events], times[row, : length - events] = 0, -1
    if not timed:
        times, asked = np.full_like(times, -1), np.full_like(asked, -1)
    theirs = np.where(items > 0, order[items - 1], 0)
    window = Window(items=theirs, times=times, asked=asked)
    with torch.inference_mode():
        scores = network.scores(Histories.of(window, np.zeros(CHECKS, dtype=np.int64))).numpy()[:, order - 1]
    scores[:, ~network.offered.numpy()[order - 1]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, : min(CHECK_BEST, len(offered))]
    of_times = {"check.times": times, "check.asked": asked} if timed else {}
    return {
        "check.items": items.astype(np.int32),
        **of_times,
        "check.top": (best + 1).astype(np.int32),
        "check.scores": np.take_along_axis(scores, best, 1),
    }


def bundle_bytes(tensors: dict[str, Array], manifest: dict[str, Any]) -> bytes:
    """The file of these tensors and this manifest, which is added to the tensors. Written here, since the safetensors
    library orders its metadata by chance."""
    text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    tensors["manifest"] = np.frombuffer(text, dtype=np.uint8)
    header: dict[str, Any] = {}
    pieces, place = [], 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):  # so that all are aligned
        tensor = np.ascontiguousarray(tensors[name])
        ends = [place, place + tensor.nbytes]
        header[name] = {"dtype": _KINDS[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": ends}
        pieces.append(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        place += tensor.nbytes
    about = {"format": "lsan", "schema": SCHEMA, "sha256": hashlib.sha256(b"".join(pieces)).hexdigest()}
    header = {"__metadata__": about} | header
    start = json.dumps(header, separators=(",", ":")).encode()
    start += b" " * (-len(start) % 8)
    return b"".join([len(start).to_bytes(8, "little"), start, *pieces])
