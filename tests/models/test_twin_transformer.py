"""The encoder of the preset `lsan`."""

import pytest
import torch
from torch.nn import functional as F

from lsan.config import ModelConfig, TwinTransformerConfig
from lsan.models.encoders.twin_transformer import DepthwiseConvolution, TwinTransformer


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "time"), [(1, 4), (3, 1), (3, 7), (5, 2), (5, 3), (5, 9), (9, 4)])
def test_the_convolution_is_pytorchs(window: int, time: int, causal: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConvolution(6, window, causal=causal)
    x = torch.randn(3, time, 6)
    pad = (window - 1, 0) if causal else (window // 2, window // 2)
    expected = F.conv1d(F.pad(x.transpose(1, 2), pad), layer.kernel[:, None], groups=6).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.last(x), expected[:, -1:])


def test_parameters_by_hand() -> None:
    config = TwinTransformerConfig(heads=2, blocks=3, window=5, feed_forward=4)
    encoder = TwinTransformer(ModelConfig(width=8, history=6, regime="prefix", encoder=config), config)
    # D 8: kernels, attention, mix, feed-forward of 4 D, two norms
    block = 5 * 8 + (8 * 24 + 24) + (16 * 8 + 8) + (8 * 32 + 32 + 32 * 8 + 8) + 2 * 16
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 6 * 8 + 16 + 3 * block


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("time", [1, 2, 7])
def test_the_convolution_goes_back_as_it_came(time: int, causal: bool) -> None:
    torch.manual_seed(0)
    convolution = DepthwiseConvolution(3, 5, causal=causal).double()
    x = torch.randn(2, time, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _kernel: convolution(x), (x, convolution.kernel))
