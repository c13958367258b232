"""Compositional item embeddings: N small base tables, and a code of N rows for each item."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.models.item_tables import Codes, OutputFactors


def complete_radices(radices: Sequence[int], items: int) -> tuple[int, ...]:
    """`radices`, with one more when their product is below `items`: m_N = ceil(items / product)."""
    product = math.prod(radices)
    return tuple(radices) if radices and product >= items else (*radices, math.ceil(items / product))


def modulo_digits(indices: Int[Tensor, " items"], radices: Sequence[int]) -> Int[Tensor, "items tables"]:
    """Digits of item indices in the mixed radix m_1, m_2, ... (paper, section 3.1).

    `digit_n(v) = (v div (m_1 * ... * m_{n-1})) mod m_n`. Any `prod(m_n)` consecutive indices get distinct digits.
    """
    digits = []
    for radix in radices:
        digits.append(indices % radix)
        indices = indices // radix
    return torch.stack(digits, dim=1)


def stratified_numbers(popularity: Int[Tensor, " items"], first_radix: int) -> Int[Tensor, " items"]:
    """Numbers 0..prod(m_n) - 1 of the items such that `code_1` is the stratum of popularity (0 = the most popular
    V / m_1 items) and the other digits count through the stratum.

    So the items that differ in `code_1` alone, which a tied output can hardly tell apart, are of different popularity.
    """
    order = (-popularity.long()).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    size = math.ceil(len(order) / first_radix)
    return rank % size * first_radix + rank // size


class ComposedTable(nn.Module):
    """N base tables E_n [m_n, D], composed under the weight of a context vector (paper, section 3.2).

    `alpha = softmax over n of (r . SiLU(W_a e_n))`, `h = sum_n alpha_n e_n`. With N = 1 this is a plain embedding
    table, whatever the context.
    """

    def __init__(self, numbers: Int[Tensor, " items"], radices: Sequence[int], width: int) -> None:
        """`numbers[v - 1]` is the number whose digits are the code of item v; see `complete_radices` for `radices`."""
        super().__init__()
        items = len(numbers)
        self.radices = complete_radices(radices, items)
        offsets = torch.tensor([0, *self.radices[:-1]]).cumsum(0)
        self.codes = Codes(modulo_digits(numbers, self.radices) + offsets, sum(self.radices))
        self.weight = nn.Parameter(torch.randn(sum(self.radices), width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(items))
        self.attention = nn.Linear(width, width, bias=False) if len(self.radices) > 1 else None

    def forward(
        self, items: Int[Tensor, "batch time"], context: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        """h_i, the vector of each item in its context. That of padding (item 0) is some item's: mask it."""
        vectors = F.embedding(self.codes.rows[items - 1], self.weight)
        if self.attention is None:
            return vectors.squeeze(-2)
        keys = F.silu(self.attention(vectors))
        alpha = (keys * context[..., None, :]).sum(-1, keepdim=True).softmax(dim=-2)
        return (alpha * vectors).sum(-2)

    def output(self) -> OutputFactors:
        """The same tables, tied as the output layer."""
        return OutputFactors(weight=self.weight, codes=self.codes, bias=self.bias)
