"""A network for engines that want all shapes in advance: one history, padded on the left to what the network reads."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lsan.models.histories import Histories
from lsan.models.item_tables import Codes, row_scores
from lsan.models.item_tables.coded import CodedTable
from lsan.models.network import Network


class StaticNetwork(nn.Module):
    """Scores of all items after one history."""

    def __init__(self, network: Network, *, timed: bool) -> None:
        """`timed` is whether times are read."""
        super().__init__()
        self.network, self.timed, self.history = deepcopy(network).cpu().eval(), timed, network.config.history
        for module in self.network.modules():
            if isinstance(module, Codes):
                module.rows = module.rows.int()
            for name, buffer in module.named_buffers(recurse=False):  # ExecuTorch loses those that are not saved
                module.register_buffer(name, buffer)
        self.coded: _SignedCodes | None = None
        if isinstance(self.network.table, CodedTable):
            self.coded = self.network.table = _SignedCodes(self.network.table)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes and types."""
        items = torch.ones(1, self.history, dtype=torch.int32)
        times = torch.zeros(1, self.history, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        return (items, *times) if self.timed else (items,)

    def forward(self, items: Tensor, times: Tensor | None = None, asked: Tensor | None = None) -> Tensor:
        """Scores [1, V] after items [1, history], int32 1..V, 0 = padding on the left; times [1, history] and when it
        is asked [1], int64 milliseconds, -1 = unknown."""
        if times is None or asked is None:
            times, asked = torch.full_like(items, -1, dtype=torch.int64), torch.full((1,), -1)
        histories = Histories(items=items.long(), times=times, asked=asked, users=torch.zeros_like(asked))
        with _KnownFunctions():
            scores = self._scores(self.network.last_hidden(histories))
        popularity = (self.network.popularity + 1).to(scores.dtype).log()
        return torch.where(histories.present.any(1, keepdim=True), scores, popularity)

    def _scores(self, hidden: Tensor) -> Tensor:
        table, untied = self.coded, self.network.untied
        if table is None:
            return self.network.output().scores(hidden)
        if untied is not None:
            return hidden @ untied.T + table.bias
        products = row_scores(table.weight, hidden.T, table.slices)
        of_items = F.embedding(table.numbered(table.codes), products)  # in ExecuTorch twice as fast as an index
        return (of_items[..., 0].sum(-1) + table.bias)[None]


class _SignedCodes(CodedTable):
    """A table whose codes are less by 128 and in int8: LiteRT has no constants of uint8."""

    def __init__(self, table: CodedTable) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(table.__dict__)
        self._buffers = {"codes": (table.codes.int() - 128).to(torch.int8)}

    def numbered(self, codes: Tensor) -> Tensor:
        """Rows of codes, all tables' numbered through."""
        return codes.int() + (128 + torch.arange(self.tables, dtype=torch.int32) * self.rows)

    def _rows_of(self, places: Tensor) -> Tensor:
        return self.numbered(self.codes[places])


class _KnownFunctions(TorchFunctionMode):
    """What these engines do not know, as what it computes: bags of embeddings, and the matrices of masks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.embedding_bag:
            return F.embedding(args[0], args[1]).sum(-2)
        if func is Tensor.tril:
            return args[0] & torch.tensor(np.tri(len(args[0]), dtype=bool).tolist())
        if func is torch.eye:
            return torch.tensor(np.eye(args[0], dtype=bool).tolist())
        return func(*args, **(kwargs or {}))
