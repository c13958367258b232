"""LightSANs: self-attention to a few latent interests (Fan et al., SIGIR 2021).

What the paper leaves open is as in RecBole's LightTransformerEncoder. There the softmax over interests runs over the
queries instead; here it is the paper's.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lsan.config import LightSansConfig, ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import (
    FeedForward,
    Positions,
    attend,
    merge_heads,
    normal_weights,
    padding_mask,
    split_heads,
)
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class Interests(nn.Module):
    """Item-to-interest aggregation: `H~ = softmax over items (Theta H') H`, padding left out."""

    def __init__(self, width: int, interests: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(interests, width))

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch 1 1 time"]
    ) -> Float[Tensor, "batch interests width"]:
        theta, x = self.theta.to(x.dtype).expand(len(x), 1, -1, -1), x.unsqueeze(1)
        return attend(theta, x, x, mask, scale=1.0).squeeze(1)


class LightAttention(nn.Module):
    """`softmax(Q K~' / sqrt(d)) V~ + softmax(Q_p K_p' / (sqrt(2) d)) V` in each head of width d.

    K~ and V~ are interests; Q_p and K_p come from the positions alone (decoupled position encoding). The scale of the
    second term is RecBole's.
    """

    def __init__(self, width: int, heads: int, interests: int) -> None:
        super().__init__()
        self.heads = heads
        self.position_scale = 0.5**0.5 * heads / width
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.key_interests = Interests(width, interests)
        self.value_interests = Interests(width, interests)
        self.position_norm = nn.LayerNorm(width)
        self.position_query = nn.Linear(width, width)
        self.position_key = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        asking: Float[Tensor, "batch queries width"],
        x: Float[Tensor, "batch time width"],
        positions: Float[Tensor, "1 time width"],
        mask: Bool[Tensor, "batch 1 1 time"],
    ) -> Float[Tensor, "batch queries width"]:
        """`asking` is `x` or its last position."""
        batch, queries, heads = len(x), asking.shape[1], self.heads
        key, value = self.key_value(x).chunk(2, dim=-1)
        of_items = attend(
            split_heads(self.query(asking), heads),
            split_heads(self.key_interests(key, mask), heads),
            split_heads(self.value_interests(value, mask), heads),
        )
        positions = self.position_norm(positions)
        of_positions = attend(
            split_heads(self.position_query(positions[:, -queries:]), heads).expand(batch, -1, -1, -1),
            split_heads(self.position_key(positions), heads).expand(batch, -1, -1, -1),
            split_heads(value, heads),
            mask,
            scale=self.position_scale,
        )
        out: Tensor = self.out(merge_heads(of_items + of_positions))
        return out


class LightBlock(nn.Module):
    """A post-norm block (see `PostNormBlock`) around `LightAttention`; inner width 4D."""

    def __init__(self, width: int, heads: int, interests: int, dropout: float) -> None:
        super().__init__()
        self.attention = LightAttention(width, heads, interests)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, 4 * width, dropout)
        self.drop = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        positions: Float[Tensor, "1 time width"],
        mask: Bool[Tensor, "batch 1 1 time"],
        *,
        last_only: bool,
    ) -> Float[Tensor, "batch out width"]:
        asking = x[:, -1:] if last_only else x
        out: Tensor = self.feed_forward(self.norm(asking + self.drop(self.attention(asking, x, positions, mask))))
        return out


class LightSans(Encoder):
    """LayerNorm and dropout on the item vectors, then blocks. Attention looks both ways: for the prefix regime."""

    def __init__(self, config: ModelConfig, encoder: LightSansConfig) -> None:
        super().__init__()
        self.output_width = width = config.width
        self.positions = Positions(config)
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            LightBlock(width, encoder.heads, encoder.interests, config.dropout) for _ in range(encoder.blocks)
        )
        self.apply(normal_weights)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        positions, mask = self.positions(histories.present), padding_mask(histories.present)
        x = self.drop(self.norm(x))
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x, positions, mask, last_only=False)
        out: Tensor = final(x, positions, mask, last_only=last_only)
        return out
