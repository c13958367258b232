"""Numbers of few bits: what training sees of them, and how they are written.

A matrix becomes whole numbers of 4 or 8 bits and a float16 scale for each of its rows (the output channels of a layer;
Jacob et al. 2018, "Quantization and training of neural networks for integer-arithmetic-only inference", symmetric).
Vectors (biases, LayerNorm) become float16.
"""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

#: Rows of fewer numbers than this share one scale: their own would be a large part of the bytes.
SHORT = 16

#: A scale clips a row at one of these shares of its largest number: the one of least squared error.
_CLIPS = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.52)


def scale_count(shape: torch.Size) -> int:
    """How many scales a matrix of this shape has: one a row (index of the first axis), or one in all where rows are
    short."""
    return shape[0] if shape[1:].numel() >= SHORT else 1


def scales_of(x: Float[Tensor, "*shape"], bits: int) -> Float[Tensor, " scales"]:
    """The scales of a matrix. Each is a float16's value, and a quantised matrix has itself for its quantised form
    (but for rows of 8 bits whose numbers are below .002, where float16 is coarser than rounding)."""
    rows = x.detach().reshape(scale_count(x.shape), -1)
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(1)
    most = torch.finfo(torch.float16).max
    scales = torch.stack([(largest * (clip / top)).clamp(max=most).half().float() for clip in _CLIPS])
    errors = [(_round(rows, scale[:, None], top) * scale[:, None] - rows).square().sum(1) for scale in scales]
    return scales.gather(0, torch.stack(errors).argmin(0, keepdim=True))[0]


def quantise(x: Float[Tensor, "*shape"], scales: Float[Tensor, " scales"], bits: int) -> Int[Tensor, "*shape"]:
    """`round(x / scale)`, cut to -(2^(bits-1) - 1) .. 2^(bits-1) - 1."""
    return _round(x, _beside(scales, x), 2 ** (bits - 1) - 1).to(torch.int8)


def dequantise(numbers: Int[Tensor, "*shape"], scales: Float[Tensor, " scales"]) -> Float[Tensor, "*shape"]:
    """`number * scale`."""
    return numbers.float() * _beside(scales, numbers)


def _round(x: Tensor, scales: Tensor, top: int) -> Tensor:
    rounded: Tensor = (x / torch.where(scales > 0, scales, 1)).round().clamp(-top, top)
    return rounded


def _beside(scales: Tensor, x: Tensor) -> Tensor:
    return scales.view(-1, *[1] * (x.dim() - 1))


class Rounded(nn.Module):
    """What training sees of a matrix: its quantised numbers; the gradient is passed on as if they were the matrix
    (straight-through, Bengio et al. 2013)."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scales = scales_of(x, self.bits)
            change = dequantise(quantise(x, scales, self.bits), scales) - x
        return x + change


def round_in_use(module: nn.Module, bits: dict[str, int]) -> None:
    """From now on parameters of these names are `Rounded` to so many bits wherever they are used."""
    for name, number in bits.items():
        owner, _, parameter = name.rpartition(".")
        parametrize.register_parametrization(module.get_submodule(owner), parameter, Rounded(number))


def pack_bits(numbers: npt.NDArray[np.integer], bits: int) -> npt.NDArray[np.uint8]:
    """Whole numbers 0 .. 2^bits - 1 (bits <= 32) one after the other, the highest bit of each first; zeros fill the
    last byte."""
    if bits == 8:
        return numbers.astype(np.uint8).ravel()
    spread = np.unpackbits(numbers.astype(">u4").reshape(-1, 1).view(np.uint8), axis=1)[:, 32 - bits :]
    return np.packbits(spread)
