"""The whole network: sizes, positions and the weights that training begins with."""

import pytest
import torch

from lsan.config import ModelConfig
from lsan.models.histories import Histories
from lsan.models.recommender import Lsan


def network(config: ModelConfig, items: int = 10, categories: int = 3) -> Lsan:
    of_item = torch.cat([torch.zeros(1), torch.arange(items) % categories + 1]).int()
    return Lsan(config, of_item, torch.arange(items), torch.arange(items))


@pytest.mark.parametrize(
    ("config", "learnt"),
    [
        # D 4, H 2, L 3, T 6, V 10, C 3. Table (2 + 5) D + V biases + W_a D D; context (5 + 5 + 25) D; fusion 2D D + D
        # + D D + D; P T D; block H L + 3 D D + 2D D + D + D D + D; norms 2 * 2D.
        (ModelConfig(width=4, history=6, window=3), 28 + 10 + 16 + 140 + 56 + 24 + 6 + 48 + 36 + 20 + 16),
        (ModelConfig(width=4, history=6, window=3, radices=()), 40 + 10 + 140 + 56 + 24 + 6 + 48 + 36 + 20 + 16),
        (
            ModelConfig(width=4, history=6, window=3, residual=False, untied_output=True),
            28 + 10 + 16 + 140 + 56 + 24 + 6 + 48 + 36 + 20 + 40,
        ),
        (
            ModelConfig(width=4, history=6, window=3, blocks=3),
            28 + 10 + 16 + 140 + 56 + 24 + 3 * (6 + 48 + 36 + 20) + 4 * 8,
        ),
    ],
)
def test_parameters_by_hand(config: ModelConfig, learnt: int) -> None:
    assert sum(parameter.numel() for parameter in network(config).parameters()) == learnt


def test_nothing_learnt_is_as_large_as_the_catalogue_times_the_width() -> None:
    items, width = 5000, 16
    model = network(ModelConfig(width=width, radices=(20, 20)), items=items)
    assert max(parameter.numel() for parameter in model.parameters()) <= items  # the biases
    assert sum(tensor.numel() for tensor in model.state_dict().values()) < items * width / 3


def test_buffers_that_follow_from_the_numbers_are_not_saved() -> None:
    names = set(network(ModelConfig()).state_dict())
    assert {"table.numbers", "popularity", "context.category_of_item"} <= names
    assert not {name for name in names if "codes" in name}


@torch.no_grad()
def test_where_positions_are_counted_from() -> None:
    """In the prefix regime the last event has the last position, in the causal one the first event has the first."""
    rows = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])
    present = Histories(items=rows, hours=torch.zeros_like(rows)).present
    prefix = network(ModelConfig(history=6))
    assert torch.equal(prefix._positions(present), prefix.positions[None, 2:])
    causal = network(ModelConfig(history=6, regime="causal"))
    assert torch.equal(causal._positions(present)[0, 2:], causal.positions[:2])
    assert torch.equal(causal._positions(present)[1], causal.positions[:4])


@torch.no_grad()
def test_dropout_is_for_training_only() -> None:
    model = network(ModelConfig(dropout=0.5))
    histories = Histories(items=torch.tensor([[1, 2, 3]]), hours=torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(model.eval().scores(histories), model.scores(histories))
    model.train()
    assert not torch.equal(model.scores(histories), model.scores(histories))
