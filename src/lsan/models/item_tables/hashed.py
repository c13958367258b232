"""Hash embeddings: every item is the sum of a few rows of one small table, chosen by hash functions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.models.item_tables import Codes, OutputFactors
from lsan.models.item_tables.full import INITIAL

_MASK = (1 << 32) - 1


def hash_rows(items: int, rows: int, hashes: int) -> Int[Tensor, "items hashes"]:
    """Row of each item 1..V under each hash function: the finaliser of MurmurHash3 over `item + constant * function`.

    A fixed function of the item index, so nothing of it is saved with a model.
    """
    keys = torch.arange(1, items + 1)[:, None] + torch.arange(hashes) * 0x9E3779B9
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        keys = keys & _MASK
        keys = (keys ^ (keys >> shift)) & _MASK
        keys = (keys * factor) & _MASK
    return (keys ^ (keys >> 16)) % rows


class HashedTable(nn.Module):
    """`v -> sum_n E[hash_n(v)]`, one table `E [rows, D]` (Serra and Karatzoglou 2017, "Getting deep recommenders fit"),
    tied with the output. Items whose rows all collide differ in their bias alone."""

    def __init__(self, items: int, rows: int, hashes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) * INITIAL)
        self.bias = nn.Parameter(torch.zeros(items))
        self.codes = Codes(hash_rows(items, rows, hashes), rows)

    def forward(
        self, items: Int[Tensor, "batch time"], context: Float[Tensor, "batch time width"] | None
    ) -> Float[Tensor, "batch time width"]:
        """The vector of each item, whatever the context. That of padding (item 0) is some item's: mask it."""
        return F.embedding(self.codes.rows[items - 1], self.weight).sum(-2)

    def output(self) -> OutputFactors:
        """The same rows as the output layer."""
        return OutputFactors(weight=self.weight, codes=self.codes, bias=self.bias)
