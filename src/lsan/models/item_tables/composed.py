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
    return (*radices, math.ceil(items / product)) if product < items else tuple(radices)


def modulo_digits(indices: Int[Tensor, " items"], radices: Sequence[int]) -> Int[Tensor, "items tables"]:
    """Digits of item indices in the mixed radix m_1, m_2, ... (paper, section 3.1; equation 1 of docs/model.md).

    `digit_n(v) = (v div (m_1 * ... * m_{n-1})) mod m_n`. Any `prod(m_n)` consecutive indices get distinct digits.
    """
    digits = []
    for radix in radices:
        digits.append(indices % radix)
        indices = indices // radix
    return torch.stack(digits, dim=1)


class ComposedTable(nn.Module):
    """N base tables E_n [m_n, D], composed under the weight of a context vector (paper, section 3.2; equation 3 of
    docs/model.md).

    `alpha = softmax over n of (r . SiLU(W_a e_n))`, `h = sum_n alpha_n e_n`; without a context `h` is the plain mean.
    """

    numbers: Tensor

    def __init__(self, numbers: Int[Tensor, " items"], radices: Sequence[int], width: int, *, contextual: bool) -> None:
        """`numbers[v - 1]` is the number whose digits are the code of item v; see `complete_radices` for `radices`.
        `contextual`: a context will be given."""
        super().__init__()
        items = len(numbers)
        self.radices = complete_radices(radices, items)
        self.weight = nn.Parameter(torch.randn(sum(self.radices), width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(items))
        self.register_buffer("numbers", numbers.to(torch.int32))
        offsets = torch.tensor([0, *self.radices[:-1]]).cumsum(0)
        self.codes = Codes(modulo_digits(numbers, self.radices) + offsets, sum(self.radices))
        self.attention = nn.Linear(width, width, bias=False) if contextual else None

    def forward(
        self, items: Int[Tensor, "batch time"], context: Float[Tensor, "batch time width"] | None
    ) -> Float[Tensor, "batch time width"]:
        """h_i, the vector of each item in its context. That of padding (item 0) is some item's: mask it."""
        vectors = F.embedding(self.codes.rows[items - 1], self.weight)
        if context is None or self.attention is None:
            return vectors.mean(-2)
        keys = F.silu(self.attention(vectors))
        alpha = (keys * context[..., None, :]).sum(-1, keepdim=True).softmax(dim=-2)
        return (alpha * vectors).sum(-2)

    def output(self) -> OutputFactors:
        """The same tables, tied as the output layer."""
        return OutputFactors(weight=self.weight, codes=self.codes, bias=self.bias)
