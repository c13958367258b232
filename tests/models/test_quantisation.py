"""Numbers of few bits: rounding, scales, and bits one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsan.models.quantisation import (
    dequantise,
    pack_bits,
    quantise,
    round_in_use,
    scales_of,
)
from lsan.runtime.file import packed_size, unpack


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    scales = scales_of(x, bits)
    return dequantise(quantise(x, scales, bits), scales)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.006), (4, 0.11)])
@pytest.mark.parametrize("shape", [(32, 64), (7, 16), (5, 4), (3, 8, 4)])
def test_the_error_is_a_small_part_of_the_largest_number(bits: int, most: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    error = (rounded(x, bits) - x).norm() / x.norm()
    assert 0 < error < most * 1.5


def test_each_row_has_a_scale_of_its_own_unless_rows_are_short() -> None:
    assert scales_of(torch.randn(6, 16), 8).shape == (6,)
    assert scales_of(torch.randn(6, 15), 8).shape == (1,)
    assert scales_of(torch.randn(6, 4, 4), 8).shape == (6,)


def test_a_row_by_hand() -> None:
    row = torch.tensor([[1.27] + [0.634] * 14 + [-0.004]])
    scales = scales_of(row, 8)
    assert scales.item() == pytest.approx(0.01, rel=1e-3)
    assert quantise(row, scales, 8).tolist() == [[127] + [63] * 14 + [0]]


@pytest.mark.parametrize("bits", [4, 8])
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 100.0]), heavy=st.booleans())
@settings(max_examples=30)
def test_what_is_rounded_stays_as_it_is(bits: int, seed: int, scale: float, heavy: bool) -> None:
    """A file that is read and written again does not drift."""
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(seed)) * scale
    once = rounded(x**3 if heavy else x, bits)
    torch.testing.assert_close(rounded(once, bits), once, rtol=1e-6, atol=0)


def test_a_row_of_zeros_stays_zero() -> None:
    assert torch.equal(rounded(torch.zeros(2, 16), 4), torch.zeros(2, 16))


def test_heavy_tails_are_clipped_where_that_is_the_smaller_error() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 512)
    x[0, 0] = 7.0
    assert scales_of(x, 4).item() < 0.95  # 1.0 would keep the 7


def test_a_rounded_parameter_is_used_rounded_and_trained_straight_through() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 3)
    before = layer.weight.detach().clone()
    round_in_use(layer, {"weight": 4})
    torch.testing.assert_close(layer.weight, rounded(before, 4))
    x = torch.randn(5, 32)
    layer(x).square().sum().backward()
    (original,) = (p for name, p in layer.named_parameters() if name != "bias")
    expected = 2 * (x @ rounded(before, 4).T + layer.bias).T @ x
    torch.testing.assert_close(original.grad, expected.detach())
    assert torch.equal(original, before)


@given(bits=st.integers(1, 32), data=st.data())
@settings(max_examples=80)
def test_packed_numbers_come_back(bits: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack_bits(np.array(numbers, dtype=np.int64), bits)
    assert packed.dtype == np.uint8
    assert len(packed) == packed_size(len(numbers), bits)
    assert unpack(packed, bits, len(numbers)).tolist() == numbers


def test_packed_numbers_by_hand() -> None:
    assert pack_bits(np.array([1, 2, 15]), 4).tolist() == [0x12, 0xF0]
    assert pack_bits(np.array([1, 63, 0, 32]), 6).tolist() == [0b00000111, 0b11110000, 0b00100000]
