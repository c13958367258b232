"""Vectors of the users that training knows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class UserVectors(nn.Module):
    """A learnt vector for each of the users 1..U; zero for anyone else, whose number is 0."""

    def __init__(self, users: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(users, width) * width**-0.5)

    def forward(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 width"]:
        vectors = F.embedding((users - 1).clamp(min=0), self.weight)
        return (vectors * (users > 0)[:, None]).unsqueeze(1)
