"""The two branches of a block, against values worked out by hand and against plain loops."""

import pytest
import torch
from torch.nn import functional as F

from lsan.models.encoders.twin_attention import LightweightConvolution, TwinAttentionBlock


def convolution(*, causal: bool) -> LightweightConvolution:
    """Width 2, one kernel a channel."""
    layer = LightweightConvolution(2, 2, 3, causal=causal)
    with torch.no_grad():
        layer.kernel.copy_(torch.tensor([[1.0, 10.0, 100.0], [2.0, 0.0, -1.0]]))
    return layer


X = torch.tensor([[[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]])


@torch.no_grad()
def test_centred_convolution_by_hand() -> None:
    # channel 0: x[i-1] + 10 x[i] + 100 x[i+1]; channel 1: 2 x[i-1] - x[i+1]
    y = convolution(causal=False)(X)
    assert y[0, :, 0].tolist() == [210, 321, 432, 43]
    assert y[0, :, 1].tolist() == [-6, 3, 4, 14]


@torch.no_grad()
def test_causal_convolution_by_hand() -> None:
    # channel 0: x[i-2] + 10 x[i-1] + 100 x[i]; channel 1: 2 x[i-2] - x[i]
    y = convolution(causal=True)(X)
    assert y[0, :, 0].tolist() == [100, 210, 321, 432]
    assert y[0, :, 1].tolist() == [-5, -6, 3, 4]


@torch.no_grad()
def test_channels_of_a_head_share_one_kernel() -> None:
    layer = LightweightConvolution(6, 2, 5, causal=True)
    x = torch.randn(3, 9, 6)
    kernel = layer.kernel.repeat_interleave(3, dim=0)[:, None]  # depthwise: [channels, 1, window]
    reference = F.conv1d(F.pad(x.transpose(1, 2), (4, 0)), kernel, groups=6).transpose(1, 2)
    torch.testing.assert_close(layer(x), reference)
    assert layer.kernel.numel() == 2 * 5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("time", [1, 2, 3, 7])
@torch.no_grad()
def test_the_last_position_alone(causal: bool, window: int, time: int) -> None:
    layer = LightweightConvolution(4, 2, window, causal=causal)
    x = torch.randn(2, time, 4)
    torch.testing.assert_close(layer.last(x), layer(x)[:, -1:])


@torch.no_grad()
def test_a_block_equals_loops_over_heads_and_positions() -> None:
    torch.manual_seed(0)
    width, heads, time, head = 6, 2, 4, 3
    block = TwinAttentionBlock(width, heads, 3, causal=False)
    x, positions = torch.randn(1, time, width), torch.randn(1, time, width)
    mask = torch.tensor([[[[False, True, True, True]]]])
    placed = (x + positions)[0]
    query, key, value = (placed @ block.attention.qkv.weight.T).split(width, dim=1)
    attended = torch.zeros(time, width)
    for h in range(heads):
        part = slice(h * head, (h + 1) * head)
        for i in range(time):
            weights = torch.stack([query[i, part] @ key[j, part] / head**0.5 for j in (1, 2, 3)]).softmax(0)
            attended[i, part] = sum(
                (w * value[j, part] for w, j in zip(weights, (1, 2, 3), strict=True)), torch.zeros(3)
            )
    both = torch.cat([block.local(x)[0], attended], dim=1)
    expected = F.gelu(both @ block.mix.weight.T + block.mix.bias) @ block.out.weight.T + block.out.bias
    torch.testing.assert_close(block(x, positions, mask, last_only=False)[0], expected)
    torch.testing.assert_close(block(x, positions, mask, last_only=True)[0], expected[-1:])
