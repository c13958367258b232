"""SASRec: causal self-attention (Kang and McAuley, ICDM 2018, arXiv 1808.09781)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lsan.config import ModelConfig, SasRecConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.attention import Attention, Positions, PostNormBlock, causal_mask, normal_weights
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class PreNormBlock(nn.Module):
    """Attention and a ReLU layer as in the authors' code: only the queries are normalised, and the residual connections
    start from the normalised vectors.

    `q = LayerNorm(x)`, `y = LayerNorm(q + attention(q, x, x))`, `y + ReLU(y W_1 + b_1) W_2 + b_2`. (Section III-C of
    the paper writes `x + layer(LayerNorm(x))`.) Dropout is on the layers' outputs and after the ReLU (there on
    the softmax of the attention instead of its output).
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), Dropout(dropout), nn.Linear(inner, width))
        self.drop = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch 1 time time"], *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        asking = self.query_norm(x[:, -1:] if last_only else x)
        y = self.feed_forward_norm(asking + self.drop(self.out(self.attention(asking, x, mask))))
        out: Tensor = y + self.drop(self.feed_forward(y))
        return out


class SasRec(Encoder):
    """`norm = "pre"` is the paper's: item vectors times sqrt(D) plus positions, `PreNormBlock`s, a final LayerNorm.
    Heads are mixed by a linear layer, which came with later implementations.

    `norm = "post"` is the variant of RecBole and S3-Rec: LayerNorm on item plus position, blocks as in BERT, GELU.
    """

    def __init__(self, config: ModelConfig, encoder: SasRecConfig) -> None:
        super().__init__()
        self.output_width = width = config.width
        pre, inner = encoder.norm == "pre", encoder.feed_forward * width
        self.scale = width**0.5 if pre else 1.0
        self.positions = Positions(config)
        self.input_norm = nn.Identity() if pre else nn.LayerNorm(width)
        self.drop = Dropout(config.dropout)
        block = PreNormBlock if pre else PostNormBlock
        self.blocks = nn.ModuleList(block(width, encoder.heads, inner, config.dropout) for _ in range(encoder.blocks))
        self.output_norm = nn.LayerNorm(width) if pre else nn.Identity()
        self.apply(_xavier_weights if pre else normal_weights)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        x = self.drop(self.input_norm(x * self.scale + self.positions(histories.present)))
        mask = causal_mask(histories.present)
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x, mask, last_only=False)
        out: Tensor = self.output_norm(final(x, mask, last_only=last_only))
        return out


def _xavier_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | Positions):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
