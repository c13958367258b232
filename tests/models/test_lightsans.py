"""LightSANs against its equations, written with loops over heads, queries and interests."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import LightSansConfig, ModelConfig
from lsan.models.encoders.lightsans import LightAttention, LightBlock, LightSans
from lsan.models.histories import Histories

WIDTH, HEADS, INTERESTS, HISTORY = 6, 2, 3, 5
HEAD = WIDTH // HEADS


def interests(vectors: Tensor, theta: Tensor) -> Tensor:
    """Each interest is a mean of the items, weighted by the softmax over items of their affinity."""
    rows = []
    for direction in theta:
        affinity = torch.stack([vector @ direction for vector in vectors]).exp()
        rows.append(sum((a * vector for a, vector in zip(affinity, vectors, strict=True)), torch.zeros(WIDTH)))
        rows[-1] = rows[-1] / affinity.sum()
    return torch.stack(rows)


def attention(layer: LightAttention, x: Tensor, positions: Tensor) -> Tensor:
    """Of the events of one history [time, D]; no padding."""
    query = x @ layer.query.weight.T + layer.query.bias
    key, value = (x @ layer.key_value.weight.T + layer.key_value.bias).split(WIDTH, dim=-1)
    few_keys, few_values = interests(key, layer.key_interests.theta), interests(value, layer.value_interests.theta)
    positions = layer.position_norm(positions)
    asking = positions @ layer.position_query.weight.T + layer.position_query.bias
    asked = positions @ layer.position_key.weight.T + layer.position_key.bias
    out = torch.zeros(len(x), WIDTH)
    for h in range(HEADS):
        part = slice(h * HEAD, (h + 1) * HEAD)
        for i in range(len(x)):
            of_items = torch.stack([query[i, part] @ few[part] / HEAD**0.5 for few in few_keys]).softmax(0)
            # RecBole: (2 d)^-1/2 on the queries, then d^-1/2
            scores = [asking[i, part] * (2 * HEAD) ** -0.5 @ other[part] / HEAD**0.5 for other in asked]
            of_positions = torch.stack(scores).softmax(0)
            out[i, part] = of_items @ few_values[:, part] + of_positions @ value[:, part]
    return out @ layer.out.weight.T + layer.out.bias


def encode(encoder: LightSans, x: Tensor) -> Tensor:
    """One history [time, D]."""
    positions = encoder.positions.weight[-len(x) :]
    x = encoder.norm(x)
    for block in encoder.blocks:
        assert isinstance(block, LightBlock)
        y = block.norm(x + attention(block.attention, x, positions))
        layer = block.feed_forward
        inner = F.gelu(y @ layer.inner.weight.T + layer.inner.bias)
        x = layer.norm(y + inner @ layer.out.weight.T + layer.out.bias)
    return x


@torch.no_grad()
def test_equals_loops() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        regime="prefix",
        history=HISTORY,
        width=WIDTH,
        encoder=LightSansConfig(heads=HEADS, blocks=2, interests=INTERESTS),
    )
    assert isinstance(config.encoder, LightSansConfig)
    encoder = LightSans(config, config.encoder).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    lengths = [1, 3, 5]
    items = torch.tensor([[0] * (HISTORY - length) + [1] * length for length in lengths])
    x = torch.randn(3, HISTORY, WIDTH) * items[..., None]
    output = encoder(x, Histories.of_items(items), last_only=False)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(output[row, -length:], encode(encoder, x[row, -length:]), rtol=1e-4, atol=1e-5)
