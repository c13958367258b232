"""The whole network: sizes, positions and the weights that training begins with."""

import pytest
import torch

from lsan.config import (
    CaserConfig,
    ComposedTableConfig,
    ContextConfig,
    FpmcConfig,
    Gru4RecConfig,
    HashedTableConfig,
    ModelConfig,
    SasRecConfig,
    TimeConfig,
    TwinAttentionConfig,
)
from lsan.models.encoders.attention import Positions
from lsan.models.histories import Histories
from lsan.models.network import Network

TWIN, COMPOSED = TwinAttentionConfig(window=3), ComposedTableConfig()


def network(config: ModelConfig, items: int = 10, categories: int = 3) -> Network:
    of_item = torch.cat([torch.zeros(1), torch.arange(items) % categories + 1]).int()
    return Network(config, of_item, torch.arange(items), torch.arange(items), 7)


def paper(**changes: object) -> ModelConfig:
    """LSAN, small: D 4, H 2, L 3, T 6."""
    parts = {"table": COMPOSED, "encoder": TWIN, "context": ContextConfig(), **changes}
    return ModelConfig(width=4, history=6, regime="prefix", **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "learnt"),
    [
        # V 10, C 3. Table (2 + 5) D + V biases + W_a D D; context (5 + 5 + 25) D; fusion 2D D + D + D D + D, norm 2D;
        # P T D; block H L + 3 D D + 2D D + D + D D + D, norm 2D.
        (paper(), 28 + 10 + 16 + 140 + 56 + 8 + 24 + 6 + 48 + 36 + 20 + 8),
        (paper(table=ModelConfig().table), 40 + 10 + 140 + 56 + 8 + 24 + 6 + 48 + 36 + 20 + 8),
        (paper(table=HashedTableConfig(rows=7)), 28 + 10 + 140 + 56 + 8 + 24 + 6 + 48 + 36 + 20 + 8),
        (paper(context=None), 28 + 10 + 24 + 6 + 48 + 36 + 20 + 8),
        (
            paper(
                encoder=TwinAttentionConfig(window=3, residual=False),
                context=ContextConfig(residual=False),
                untied_output=True,
            ),
            28 + 10 + 16 + 140 + 56 + 24 + 6 + 48 + 36 + 20 + 40,
        ),
        (
            paper(encoder=TwinAttentionConfig(window=3, blocks=3)),
            28 + 10 + 16 + 140 + 56 + 8 + 24 + 3 * (6 + 48 + 36 + 20 + 8),
        ),
        # gaps 2 * 31 D, calendar (24 + 7) D
        (paper(context=None, time=TimeConfig()), 28 + 10 + 248 + 124 + 24 + 6 + 48 + 36 + 20 + 8),
        # full table V D + V; a GRU 3 (D D + D D + 2 D), linear D D + D
        (ModelConfig(width=4, history=6, encoder=Gru4RecConfig()), 50 + 120 + 20),
        # users U D, and an output table that is twice as wide as the input's
        (ModelConfig(width=4, history=6, encoder=FpmcConfig(), untied_output=True), 50 + 28 + 80),
    ],
)
def test_parameters_by_hand(config: ModelConfig, learnt: int) -> None:
    assert sum(parameter.numel() for parameter in network(config).parameters()) == learnt


@pytest.mark.parametrize("table", [ComposedTableConfig(radices=(20, 20)), HashedTableConfig(rows=60)])
def test_nothing_learnt_is_as_large_as_the_catalogue_times_the_width(
    table: ComposedTableConfig | HashedTableConfig,
) -> None:
    items, width = 5000, 16
    config = ModelConfig(width=width, table=table, context=ContextConfig(), encoder=TwinAttentionConfig())
    model = network(config, items=items)
    assert max(parameter.numel() for parameter in model.parameters()) <= items  # the biases
    assert sum(tensor.nbytes for tensor in model.state_dict().values()) < 4 * items * width / 3


def test_buffers_that_follow_from_the_numbers_are_not_saved() -> None:
    names = set(network(paper()).state_dict())
    assert {"table.numbers", "popularity", "context.category_of_item"} <= names
    assert not {name for name in names if "codes" in name}


@pytest.mark.parametrize("encoder", [FpmcConfig(), CaserConfig()])
def test_users_are_as_many_as_in_the_training_data(encoder: FpmcConfig | CaserConfig) -> None:
    model = network(ModelConfig(width=4, encoder=encoder, untied_output=True))
    assert model.state_dict()["encoder.users.weight"].shape == (7, 4)
    assert model.output().weight.shape == (10, 8)
    assert not [name for name in network(ModelConfig(width=4)).state_dict() if "users" in name]


@torch.no_grad()
def test_where_positions_are_counted_from() -> None:
    """In the prefix regime the last event has the last position, in the causal one the first event has the first."""
    present = Histories.of_items(torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])).present
    prefix = Positions(ModelConfig(history=6, regime="prefix"))
    assert torch.equal(prefix(present), prefix.weight[None, 2:])
    causal = Positions(ModelConfig(history=6))
    assert torch.equal(causal(present)[0, 2:], causal.weight[:2])
    assert torch.equal(causal(present)[1], causal.weight[:4])


@pytest.mark.parametrize("config", [paper(), ModelConfig(), ModelConfig(encoder=Gru4RecConfig(layers=2))])
@torch.no_grad()
def test_dropout_is_for_training_only(config: ModelConfig) -> None:
    assert config.dropout == 0.5
    model = network(config)
    histories = Histories.of_items(torch.tensor([[1, 2, 3]]))
    assert torch.equal(model.eval().scores(histories), model.scores(histories))
    model.train()
    assert not torch.equal(model.scores(histories), model.scores(histories))


@pytest.mark.parametrize("encoder", [SasRecConfig(), TWIN, Gru4RecConfig()])
@torch.no_grad()
def test_time_signals_add_nothing_before_training(encoder: SasRecConfig | TwinAttentionConfig | Gru4RecConfig) -> None:
    items = torch.tensor([[1, 2, 3]])
    known = Histories(
        items=items, times=torch.tensor([[0, 10**9, 10**12]]), asked=torch.tensor([2 * 10**12]), users=torch.tensor([0])
    )
    model = network(ModelConfig(width=4, encoder=encoder, time=TimeConfig())).eval()
    assert torch.equal(model.scores(known), model.scores(Histories.of_items(items)))
    assert model.time is not None
    assert model.time.hour is not None
    model.time.hour.normal_()
    assert not torch.equal(model.scores(known), model.scores(Histories.of_items(items)))
