"""Positions and masks by hand; attention and the post-norm block against PyTorch's own."""

import pytest
import torch
from torch import nn

from lsan.config import Bert4RecConfig, ModelConfig, TwinAttentionConfig
from lsan.models.encoders.attention import Attention, Positions, PostNormBlock, causal_mask, padding_mask

PRESENT = torch.tensor([[False, False, True, True], [True, True, True, True], [False, False, False, False]])


@torch.no_grad()
def test_where_positions_are_counted_from() -> None:
    """The last event has the last position, but in the causal regime the first event has the first."""
    causal = Positions(ModelConfig(history=6, regime="causal"))
    assert torch.equal(causal(PRESENT)[0, 2:], causal.weight[:2])
    assert torch.equal(causal(PRESENT)[1], causal.weight[:4])
    for config in (
        ModelConfig(history=6, regime="prefix", encoder=TwinAttentionConfig()),
        ModelConfig(history=6, regime="cloze", encoder=Bert4RecConfig()),
    ):
        latest = Positions(config)
        assert torch.equal(latest(PRESENT), latest.weight[None, 2:])


def test_masks_by_hand() -> None:
    assert padding_mask(PRESENT)[:, 0, 0].int().tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]]
    short, full, empty = causal_mask(PRESENT)[:, 0].int().tolist()
    assert short == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert full == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert empty == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_attention_equals_pytorch(bias: bool) -> None:
    torch.manual_seed(0)
    mine, theirs = Attention(8, 2, bias=bias), nn.MultiheadAttention(8, 2, bias=bias, batch_first=True).eval()
    if bias:
        mine.qkv.bias.normal_()
        theirs.in_proj_bias.copy_(mine.qkv.bias)
    theirs.in_proj_weight.copy_(mine.qkv.weight)
    theirs.out_proj.weight.copy_(torch.eye(8))
    x, asking, mask = torch.randn(3, 4, 8), torch.randn(3, 4, 8), causal_mask(PRESENT)
    forbidden = ~mask.expand(-1, 2, -1, -1).flatten(0, 1)
    torch.testing.assert_close(mine(x, x, mask), theirs(x, x, x, attn_mask=forbidden)[0])
    torch.testing.assert_close(mine(asking, x, mask), theirs(asking, x, x, attn_mask=forbidden)[0])
    torch.testing.assert_close(mine(asking[:, -1:], x, mask), mine(asking, x, mask)[:, -1:])
    torch.testing.assert_close(mine(x[:, -1:], x, padding_mask(PRESENT)), mine(x, x, padding_mask(PRESENT))[:, -1:])


@torch.no_grad()
def test_post_norm_block_equals_pytorch() -> None:
    torch.manual_seed(0)
    mine = PostNormBlock(8, 2, 24, 0.0)
    theirs = nn.TransformerEncoderLayer(8, 2, 24, 0.0, "gelu", batch_first=True)
    for parameter in mine.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    for here, there in (
        (mine.out, theirs.self_attn.out_proj),
        (mine.norm, theirs.norm1),
        (mine.feed_forward.inner, theirs.linear1),
        (mine.feed_forward.out, theirs.linear2),
        (mine.feed_forward.norm, theirs.norm2),
    ):
        there.load_state_dict(here.state_dict())
    theirs.self_attn.in_proj_weight.copy_(mine.attention.qkv.weight)
    assert theirs.self_attn.in_proj_bias is not None
    theirs.self_attn.in_proj_bias.copy_(mine.attention.qkv.bias)
    x, mask = torch.randn(3, 4, 8), causal_mask(PRESENT)
    expected = theirs(x, ~mask.expand(-1, 2, -1, -1).flatten(0, 1))
    torch.testing.assert_close(mine(x, mask, last_only=False), expected)
    torch.testing.assert_close(mine(x, mask, last_only=True), expected[:, -1:])
