"""BSARec: a frequency filter beside self-attention (Shin et al., AAAI 2024, arXiv 2312.10325)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lsan.config import BsaRecConfig, ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import Attention, FeedForward, Positions, causal_mask, normal_weights
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


def low_pass(history: int, cutoff: int) -> Float[Tensor, "history history"]:
    """The matrix that keeps the lowest `cutoff // 2 + 1` frequencies of a window: a projection, whose entries depend on
    the distance of row and column only."""
    spectrum = torch.fft.rfft(torch.eye(history, dtype=torch.float64), dim=0, norm="ortho")
    spectrum[cutoff // 2 + 1 :] = 0
    matrix: Tensor = torch.fft.irfft(spectrum, n=history, dim=0, norm="ortho")
    return matrix.float()


class FrequencyFilter(nn.Module):
    """`low + beta^2 high` with a learnt beta for each channel: `low` are the lowest frequencies of the whole window,
    `high` is the rest.

    Before the first event the window is zero, so the last rows and columns of the matrix are enough. (The authors'
    code has position vectors there.)
    """

    matrix: Tensor

    def __init__(self, width: int, history: int, cutoff: int) -> None:
        super().__init__()
        self.register_buffer("matrix", low_pass(history, cutoff), persistent=False)
        self.beta = nn.Parameter(torch.randn(width))

    def forward(self, x: Float[Tensor, "batch time width"], *, last_only: bool) -> Float[Tensor, "batch out width"]:
        time = x.shape[1]
        low = self.matrix[-1 if last_only else -time :, -time:] @ x
        return low + self.beta**2 * ((x[:, -1:] if last_only else x) - low)


class BsaRecBlock(nn.Module):
    """`y = alpha LayerNorm(x + filter(x)) + (1 - alpha) LayerNorm(x + attention(x))`, then the feed-forward layer
    of inner width 4D. Dropout on what is added to x."""

    def __init__(self, config: ModelConfig, encoder: BsaRecConfig) -> None:
        super().__init__()
        width = config.width
        self.alpha = encoder.alpha
        self.filter = FrequencyFilter(width, config.history, encoder.cutoff)
        self.filter_norm = nn.LayerNorm(width)
        self.attention = Attention(width, encoder.heads)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, 4 * width, config.dropout)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch 1 time time"], *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        """`x` is 0 at padding."""
        asking = x[:, -1:] if last_only else x
        filtered = self.filter_norm(asking + self.drop(self.filter(x, last_only=last_only)))
        attended = self.attention_norm(asking + self.drop(self.out(self.attention(asking, x, mask))))
        out: Tensor = self.feed_forward(self.alpha * filtered + (1 - self.alpha) * attended)
        return out


class BsaRec(Encoder):
    """LayerNorm and dropout on item plus position, then blocks. Attention is causal, but the filter looks both ways:
    for the prefix regime."""

    def __init__(self, config: ModelConfig, encoder: BsaRecConfig) -> None:
        super().__init__()
        self.output_width = config.width
        self.positions = Positions(config)
        self.norm = nn.LayerNorm(config.width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(BsaRecBlock(config, encoder) for _ in range(encoder.blocks))
        self.apply(normal_weights)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        present = histories.present[..., None]
        x = self.drop(self.norm(x + self.positions(histories.present)))
        mask = causal_mask(histories.present)
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x * present, mask, last_only=False)
        out: Tensor = final(x * present, mask, last_only=last_only)
        return out
