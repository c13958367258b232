"""FPMC: factorised personalised Markov chains (Rendle et al., WWW 2010)."""

import torch
from jaxtyping import Float
from torch import Tensor

from lsan.config import ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.encoder import Encoder
from lsan.models.encoders.users import UserVectors
from lsan.models.histories import Histories


class Fpmc(Encoder):
    """`[user factors ; factors of the last item]`. With an output table of its own, `[V^IU ; V^IL]`, the product is
    `<v_u^UI, v_i^IU> + <v_l^LI, v_i^IL>`: the paper's equation 5 for a basket of one item, without the term of user and
    last item, which ranks nothing."""

    def __init__(self, config: ModelConfig, users: int) -> None:
        super().__init__()
        self.output_width = 2 * config.width
        self.users = UserVectors(users, config.width)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out {self.output_width}"]:
        x = x[:, -1:] if last_only else x
        out: Tensor = self.drop(torch.cat([self.users(histories.users).expand_as(x), x], dim=-1))
        return out
