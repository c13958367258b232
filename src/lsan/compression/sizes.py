"""What a model costs before there is one: bytes of its file, by part."""

import json

import torch

from lsan.config import Recipe
from lsan.models.network import Network
from lsan.models.packing import layout

#: Parts of a model by the beginnings of their tensors' names; the first that fits.
PARTS = {
    "codes": ("table.codes", "table.numbers"),
    "item tables": ("table.", "untied"),
    "popularity": ("popularity",),
    "encoder": ("",),
}


def part_of(name: str) -> str:
    """The part that a tensor belongs to."""
    return next(part for part, begins in PARTS.items() if name.startswith(begins))


def file_bytes(recipe: Recipe, items: int, *, categories: int = 0, users: int = 0) -> dict[str, int]:
    """Bytes of each part of `model.safetensors`, for a catalogue of so many items; allocates nothing.

    Codes and rows are the items' own, `encoder` is all that a catalogue does not change, `header` is the file's.
    """
    with torch.device("meta"):
        none = torch.zeros(items, dtype=torch.int64)
    category = torch.zeros(items + 1, dtype=torch.int64)
    category[1] = categories
    network = _shape_of(recipe, category, none, users)
    held = layout(network.state_dict(), recipe.model)
    parts = dict.fromkeys(PARTS, 0)
    for name, tensor in held.items():
        parts[part_of(name)] += tensor.nbytes
    return {part: size for part, size in parts.items() if size} | {"header": _header_bytes(held)}


def _header_bytes(held: dict[str, torch.Tensor]) -> int:
    """What safetensors writes before the tensors: a length of 8 bytes and JSON, filled up to a multiple of 8."""
    entries, place = {}, 0
    for name, tensor in held.items():
        kind = f"{str(tensor.dtype).removeprefix('torch.')[0].upper()}{8 * tensor.element_size()}"  # U8, F16, ...
        places = [place, place + tensor.nbytes]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": places}
        place += tensor.nbytes
    return 8 + -(-len(json.dumps(entries, separators=(",", ":"))) // 8) * 8


def _shape_of(recipe: Recipe, category: torch.Tensor, none: torch.Tensor, users: int) -> Network:
    with torch.device("meta"):
        return Network(recipe.model, category, none, none, users)
