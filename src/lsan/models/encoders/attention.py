"""What the attention encoders share: positions, masks, attention, and the post-norm block."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import ModelConfig
from lsan.models.dropout import Dropout


class Positions(nn.Module):
    """P: a learnt vector for each place in a history.

    In the causal regime places are counted from the first event, so that an event looks the same whatever follows. In
    the others they are counted from the latest event, which has the last vector.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.history, config.width) * config.width**-0.5)
        self.from_first = config.regime == "causal"

    def forward(self, present: Bool[Tensor, "batch time"]) -> Float[Tensor, "#batch time width"]:
        if self.from_first:
            return F.embedding((present.cumsum(1) - 1).clamp(min=0), self.weight)
        return self.weight[-present.shape[1] :].unsqueeze(0)


def padding_mask(present: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch 1 1 time"]:
    """True where any query may look: at the events. In an empty history, at its last position: a softmax over nothing
    is not a number."""
    mask = present.clone()
    mask[:, -1] = True
    return mask[:, None, None]


def causal_mask(present: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch 1 time time"]:
    """True where a query (third axis) may look: at the events up to its own. Padding looks at itself."""
    time = present.shape[1]
    past = torch.ones(time, time, dtype=torch.bool, device=present.device).tril()
    itself = torch.eye(time, dtype=torch.bool, device=present.device)
    return torch.logical_or(present[:, None, None] & past, itself)


def split_heads(x: Float[Tensor, "batch time width"], heads: int) -> Float[Tensor, "batch heads time head_width"]:
    """Side by side in the last axis to an axis of their own."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def merge_heads(x: Float[Tensor, "batch heads time head_width"]) -> Float[Tensor, "batch time width"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


def attend(
    query: Float[Tensor, "#batch heads queries head_width"],
    key: Float[Tensor, "#batch heads keys head_width"],
    value: Float[Tensor, "#batch heads keys value_width"],
    mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries value_width"]:
    """`softmax(Q K' scale) V` where `mask` is True; `scale` is 1 / sqrt(head_width) if not given. On the CPU always in
    float32: the way back through bfloat16 attention takes three times as long there."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


class Attention(nn.Module):
    """`softmax(Q K' / sqrt(D / H)) V` in each of H heads, side by side (Vaswani et al. 2017, equation 1). What mixes
    the heads is the caller's. The weights of the softmax get no dropout."""

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)

    def forward(
        self,
        asking: Float[Tensor, "batch queries width"],
        x: Float[Tensor, "batch time width"],
        mask: Bool[Tensor, "batch 1 #time time"],
    ) -> Float[Tensor, "batch queries width"]:
        """Queries are made of `asking`: `x` itself, its last position, or a normalised `x`. `mask` is for all of x."""
        if asking is x:  # one product instead of two
            query, key, value = self.qkv(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            bias: Tensor | None = self.qkv.bias
            query = F.linear(asking, self.qkv.weight[:width], bias if bias is None else bias[:width])
            both = F.linear(x, self.qkv.weight[width:], bias if bias is None else bias[width:])
            key, value = both.chunk(2, dim=-1)
        attended = attend(
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(value, self.heads),
            mask[:, :, -asking.shape[1] :],
        )
        return merge_heads(attended)


class FeedForward(nn.Module):
    """`LayerNorm(x + GELU(x W_1 + b_1) W_2 + b_2)` with dropout on what is added to x."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        out: Tensor = self.norm(x + self.drop(self.out(F.gelu(self.inner(x)))))
        return out


class PostNormBlock(nn.Module):
    """BERT's block (Devlin et al. 2019): `LayerNorm(x + attention(x))` with dropout on what is added, and the
    feed-forward layer."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.drop = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch 1 #time time"], *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        asking = x[:, -1:] if last_only else x
        out: Tensor = self.feed_forward(self.norm(asking + self.drop(self.out(self.attention(asking, x, mask)))))
        return out


def normal_weights(module: nn.Module) -> None:
    """BERT's initial weights, for `nn.Module.apply`: normal with deviation 0.02, biases 0."""
    if isinstance(module, nn.Linear | Positions):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
