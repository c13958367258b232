"""Caser against loops over windows, filters and users."""

import pytest
import torch
from torch import Tensor, nn

from lsan.config import CaserConfig, ModelConfig
from lsan.models.encoders.caser import Caser
from lsan.models.histories import Histories

ORDER, WIDTH = 3, 4


@pytest.fixture(scope="module")
def encoder() -> Caser:
    torch.manual_seed(0)
    config = ModelConfig(width=WIDTH, encoder=CaserConfig(order=ORDER, horizontal=2, vertical=3), untied_output=True)
    assert isinstance(config.encoder, CaserConfig)
    return Caser(config, config.encoder, users=2).eval()


def histories_of(*users: int, time: int) -> Histories:
    items = torch.ones(len(users), time, dtype=torch.int64)
    return Histories(items=items, times=-items, asked=-items[:, 0], users=torch.tensor(users))


def sequence_vector(encoder: Caser, window: Tensor) -> Tensor:
    """z of one window [L, D]."""
    features = []
    for channel in range(WIDTH):
        for weight, bias in zip(encoder.vertical.weight, encoder.vertical.bias, strict=True):
            features.append(sum(weight[i] * window[i, channel] for i in range(ORDER)) + bias)
    for height, convolution in enumerate(encoder.horizontal, start=1):
        assert isinstance(convolution, nn.Conv1d)
        assert convolution.bias is not None
        for weight, bias in zip(convolution.weight, convolution.bias, strict=True):  # [D, h]
            found = [(weight.T * window[i : i + height]).sum() + bias for i in range(ORDER - height + 1)]
            features.append(torch.stack(found).relu().max())
    return (encoder.fuse.weight @ torch.stack(features) + encoder.fuse.bias).relu()


@torch.no_grad()
def test_equals_loops(encoder: Caser) -> None:
    x = torch.randn(1, 5, WIDTH)
    output = encoder(x, histories_of(2, time=5), last_only=False)[0]
    padded = torch.cat([torch.zeros(ORDER - 1, WIDTH), x[0]])
    for event in range(5):
        torch.testing.assert_close(output[event, :WIDTH], sequence_vector(encoder, padded[event : event + ORDER]))
        assert torch.equal(output[event, WIDTH:], encoder.users.weight[1])


@torch.no_grad()
def test_users_matter_and_a_stranger_has_no_vector(encoder: Caser) -> None:
    x = torch.randn(1, 2, WIDTH).expand(3, -1, -1)
    first, second, stranger = encoder(x, histories_of(1, 2, 0, time=2), last_only=True)[:, 0]
    assert torch.equal(first[:WIDTH], stranger[:WIDTH])
    assert not torch.equal(first, second)
    assert not stranger[WIDTH:].any()
