"""Caser: convolutions over the latest events as an image (Tang and Wang, WSDM 2018, arXiv 1809.07426)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import CaserConfig, ModelConfig
from lsan.models.dropout import Dropout
from lsan.models.encoders.encoder import Encoder
from lsan.models.encoders.users import UserVectors
from lsan.models.histories import Histories


class Caser(Encoder):
    """The network of the paper's section 3, at every position over its latest L events (zeros before the first).

    Horizontal filters of each height h = 1..L give `max over the window of ReLU(filter * events)`, vertical ones a
    weighted sum over the window. Both together, with dropout as in the authors' code: `z = ReLU(. W + b)`. The output
    is `[z ; vector of the user]`, so the output table is twice as wide as the input's. (The
    paper trains each window on its next T events; here every position has one target, the next.)
    """

    def __init__(self, config: ModelConfig, encoder: CaserConfig, users: int) -> None:
        super().__init__()
        width, self.order = config.width, encoder.order
        self.output_width = 2 * width
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, encoder.horizontal, height) for height in range(1, self.order + 1)
        )
        self.vertical = nn.Linear(self.order, encoder.vertical)
        self.fuse = nn.Linear(self.order * encoder.horizontal + width * encoder.vertical, width)
        self.users = UserVectors(users, width)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out {self.output_width}"]:
        out = 1 if last_only else x.shape[1]
        x = x[:, -(self.order - 1 + out) :]
        columns = F.pad(x, (0, 0, self.order - 1 + out - x.shape[1], 0)).transpose(1, 2)  # [batch, width, L - 1 + out]
        vertical = self.vertical(columns.unfold(2, self.order, 1))  # [batch, width, out, filters]
        features = [vertical.transpose(1, 2).flatten(2)]
        for height, convolution in enumerate(self.horizontal, start=1):
            found = F.relu(convolution(columns))  # [batch, filters, L - h + out]
            features.append(F.max_pool1d(found, self.order - height + 1, stride=1).transpose(1, 2))
        z = F.relu(self.fuse(self.drop(torch.cat(features, dim=-1))))
        return torch.cat([z, self.users(histories.users).expand_as(z)], dim=-1)
