"""GRU4Rec: a recurrent network (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsan.config import Gru4RecConfig, ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.encoder import Encoder
from lsan.models.histories import Histories


class Gru4Rec(Encoder):
    """Stacked GRUs of the model's width, then a linear layer, which the paper leaves optional: a state is inside
    (-1, 1), and a tied table should not have to make up for that. Dropout on the input and on each GRU's output."""

    def __init__(self, config: ModelConfig, encoder: Gru4RecConfig) -> None:
        super().__init__()
        self.output_width = width = config.width
        between = config.dropout if encoder.layers > 1 else 0.0
        self.gru = nn.GRU(width, width, encoder.layers, batch_first=True, dropout=between)
        self.out = nn.Linear(width, width)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out width"]:
        """Rows are moved to the left for the GRU, which then starts with the first event, and the states back."""
        time = x.shape[1]
        padding = time - histories.present.sum(1, keepdim=True)
        places = torch.arange(time, device=x.device)
        there = (places + padding).clamp(max=time - 1)
        back = ((places[-1:] if last_only else places) - padding).clamp(min=0)
        states, _ = self.gru(torch.take_along_dim(self.drop(x), there[..., None], dim=1))
        out: Tensor = self.out(self.drop(torch.take_along_dim(states, back[..., None], dim=1)))
        return out
