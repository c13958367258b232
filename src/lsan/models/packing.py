"""A quantised network as tensors of few bits, and back.

Matrices and items' biases: whole numbers of 4 or 8 bits, bit-packed, and `NAME.scale`. Vectors: float16. Codes and
other whole numbers: as many bits as the largest of them needs. Popularity: that of the most popular items, as an empty
history asks for it.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from lsan.config import CodedTableConfig, ComposedTableConfig, ModelConfig
from lsan.models.item_tables.composed import complete_radices
from lsan.models.quantisation import dequantise, pack_bits, quantise, scale_count, scales_of
from lsan.runtime.file import packed_size
from lsan.runtime.file import unpack as unpack_bits

#: Items whose popularity is kept.
POPULAR = 500

State = dict[str, Tensor]


def settled_state(network: nn.Module) -> State:
    """The state of a network with rounded matrices instead of those that training has behind them."""
    state = {}
    for name, tensor in network.state_dict().items():
        owner, inside, _ = f".{name}".partition(".parametrizations.")
        if inside:
            parameter = name.split(".")[-2]
            tensor = getattr(network.get_submodule(owner[1:]), parameter)
            name = f"{owner}.{parameter}"[1:]
        state[name] = tensor.detach().cpu().contiguous()
    return state


def matrix_bits(state: State, config: ModelConfig) -> dict[str, int]:
    """Bits of each matrix under the recipe's quantisation; those that are small or that all goes through have 8."""
    if config.quantisation is None:
        return {}
    bits: dict[str, int] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and (tensor.dim() > 1 or name == "table.bias"):
            if name in ("table.weight", "untied"):
                bits[name] = config.quantisation.table
            elif name == "table.bias":
                bits[name] = config.quantisation.bias
            elif name in ("table.turn", "encoder.positions.weight") or name.endswith(".kernel"):
                bits[name] = 8
            else:
                bits[name] = config.quantisation.weights
    return {name: number for name, number in bits.items() if number < 16}


def pack(state: State, config: ModelConfig) -> State:
    """What is written of a quantised network."""
    matrices, packed = matrix_bits(state, config), {}
    for name, tensor in state.items():
        if name in matrices:
            bits = matrices[name]
            scales = scales_of(tensor, bits)
            shifted = quantise(tensor, scales, bits).numpy().astype(np.int64) + 2 ** (bits - 1)
            packed[name] = torch.from_numpy(pack_bits(shifted.ravel(), bits))
            packed[f"{name}.scale"] = scales.half()
        elif tensor.is_floating_point():
            packed[name] = tensor.half()
        elif name == "popularity":
            best = tensor.argsort(descending=True, stable=True)[:POPULAR].sort().values
            packed["popularity.items"], packed["popularity.counts"] = best.to(torch.int32), tensor[best]
        else:
            packed[name] = torch.from_numpy(
                pack_bits(tensor.numpy().astype(np.int64).ravel(), _whole_bits(name, state, config))
            )
    return packed


def layout(like: State, config: ModelConfig) -> State:
    """What the file of a network with these names, shapes and types holds, as tensors on the meta device: what `pack`
    makes, or the network's own tensors where the recipe asks for no quantisation."""
    matrices, items, held = matrix_bits(like, config), len(like["popularity"]), {}

    def row(name: str, count: int, dtype: torch.dtype) -> None:
        held[name] = torch.empty(count, dtype=dtype, device="meta")

    for name, tensor in like.items():
        if config.quantisation is None:
            held[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        elif name in matrices:
            row(name, packed_size(tensor.numel(), matrices[name]), torch.uint8)
            row(f"{name}.scale", scale_count(tensor.shape), torch.float16)
        elif tensor.is_floating_point():
            held[name] = torch.empty(tensor.shape, dtype=torch.float16, device="meta")
        elif name == "popularity":
            row("popularity.items", min(POPULAR, items), torch.int32)
            row("popularity.counts", min(POPULAR, items), torch.int32)
        else:
            row(name, packed_size(tensor.numel(), _whole_bits(name, like, config)), torch.uint8)
    return held


def unpack(held: State, like: State, config: ModelConfig) -> State:
    """The state of a network with the names, shapes and types of `like`, which may be on the meta device, from what a
    file holds. What that is must be is compared with `layout` before anything is made.

    Raises:
        ValueError: when a tensor is missing, one too many, or of another shape or type, or names an item that does not
            exist.
    """
    expected = layout(like, config)
    for name, tensor in expected.items():
        found = _described(held[name]) if name in held else "missing"
        if found != _described(tensor):
            raise ValueError(
                f"{name} should be {_described(tensor)}, going by what run.json and catalogue.json say, and is {found}"
            )
    if more := sorted(set(held) - set(expected)):
        raise ValueError(f"{', '.join(more)}: no part of the network that run.json and catalogue.json describe")
    if config.quantisation is None:
        return held
    matrices, state = matrix_bits(like, config), {}
    for name, tensor in like.items():
        count = tensor.numel()
        if name in matrices:
            bits = matrices[name]
            whole = unpack_bits(held[name].numpy(), bits, count) - 2 ** (bits - 1)
            state[name] = dequantise(torch.from_numpy(whole).view(tensor.shape), held[f"{name}.scale"].float())
        elif tensor.is_floating_point():
            state[name] = held[name].float()
        elif name == "popularity":
            places = held["popularity.items"].long()
            if count and (places.min() < 0 or places.max() >= count):
                raise ValueError("popularity.items names an item that does not exist")
            state[name] = torch.zeros(count, dtype=tensor.dtype).index_copy_(0, places, held["popularity.counts"])
        else:
            whole = unpack_bits(held[name].numpy(), _whole_bits(name, like, config), count)
            state[name] = torch.from_numpy(whole).to(tensor.dtype).view(tensor.shape)
    return state


def _described(tensor: Tensor) -> str:
    return f"of shape {list(tensor.shape)} and type {str(tensor.dtype).removeprefix('torch.')}"


def _whole_bits(name: str, state: State, config: ModelConfig) -> int:
    """Bits of the whole numbers in a tensor."""
    table, items = config.table, len(state["popularity"])
    if name == "table.codes" and isinstance(table, CodedTableConfig):
        return (table.rows - 1).bit_length()
    if name == "table.numbers" and isinstance(table, ComposedTableConfig):
        return min(31, math.prod(complete_radices(table.radices, items)).bit_length())  # they are int32
    if name == "offered":
        return 1
    if name == "context.category_of_item":
        return (len(state["context.category"]) - 1).bit_length()
    raise AssertionError(name)
