"""What every encoder must satisfy."""

import pytest
import torch
from torch import Tensor, nn

from lsan.config import (
    REGIMES,
    Bert4RecConfig,
    BsaRecConfig,
    CaserConfig,
    EncoderConfig,
    FpmcConfig,
    Gru4RecConfig,
    LightSansConfig,
    ModelConfig,
    SasRecConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.models.dropout import Dropout
from lsan.models.encoders import Encoder, make_encoder
from lsan.models.histories import Histories

ITEMS, USERS, HISTORY, WIDTH = 23, 9, 6, 8

ENCODERS: list[EncoderConfig] = [
    TwinAttentionConfig(window=3),
    TwinAttentionConfig(blocks=2, residual=False),
    TwinTransformerConfig(window=3, feed_forward=2),
    SasRecConfig(heads=2),
    SasRecConfig(norm="post", feed_forward=4, blocks=1),
    SasRecConfig(norm="post", feed_forward=2),
    Bert4RecConfig(),
    Gru4RecConfig(),
    Gru4RecConfig(layers=2),
    CaserConfig(order=3, horizontal=5, vertical=2),
    CaserConfig(order=8, horizontal=2, vertical=1),
    FpmcConfig(),
    LightSansConfig(interests=3),
    BsaRecConfig(heads=2, cutoff=3),
]
CONFIGS = [
    ModelConfig(
        regime=regime,
        history=HISTORY,
        width=WIDTH,
        encoder=encoder,
        untied_output=isinstance(encoder, FpmcConfig | CaserConfig),
    )
    for encoder in ENCODERS
    for regime in REGIMES[type(encoder)]
]


def name_of(config: ModelConfig) -> str:
    return f"{config.regime} {config.encoder}"


every_encoder = pytest.mark.parametrize("config", CONFIGS, ids=name_of)

#: Length 1, 2, T, and items that are repeated; as long as the window of the encoders at most.
ROWS = [[5], [7, 3], [1, 2, 3, 4, 5, 6], [11, 11, 11], [4, 20, 4, 20, 4, 23]]


def encoder_of(config: ModelConfig) -> Encoder:
    """An encoder whose every parameter matters: nothing is left at the zero or one that training begins with."""
    torch.manual_seed(7)
    encoder = make_encoder(config, USERS)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return encoder.eval()


def histories_of(*rows: list[int], left: int = 0) -> Histories:
    """Side by side, with `left` columns of padding more than needed. The user follows from the first item."""
    time = max(map(len, rows)) + left
    items = torch.tensor([[0] * (time - len(row)) + row for row in rows])
    unknown = torch.full_like(items, -1)
    users = torch.tensor([row[0] % USERS if row else 0 for row in rows])
    return Histories(items=items, times=unknown, asked=unknown[:, 0], users=users)


def vectors_of(histories: Histories) -> Tensor:
    """Of the items; 0 at padding."""
    table = torch.randn(ITEMS + 1, WIDTH, generator=torch.Generator().manual_seed(3))
    return table[histories.items] * histories.present[..., None]


def run(encoder: Encoder, histories: Histories, *, last_only: bool = False) -> Tensor:
    with torch.no_grad():
        output: Tensor = encoder(vectors_of(histories), histories, last_only=last_only)
    assert output.isfinite().all()
    return output


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "learnt"),
    [
        # D 4, T 6, U 9. LayerNorm 2 D = 8. Block: Q, K, V 3 (D D + D) = 60, output D D + D = 20; a layer of inner width
        # D 2 (D D + D) = 40, of 4D 2 * 4 D D + 4 D + D = 148. Positions T D = 24.
        (TwinAttentionConfig(window=3), 24 + 2 * 3 + 3 * 16 + 36 + 20 + 8),
        (TwinAttentionConfig(window=3, residual=False, blocks=2), 24 + 2 * (2 * 3 + 3 * 16 + 36 + 20)),
        (TwinTransformerConfig(window=3), 24 + 8 + 2 * (4 * 3 + 60 + 36 + 8 + 148 + 8)),
        (SasRecConfig(), 24 + 2 * (8 + 60 + 20 + 8 + 40) + 8),
        (SasRecConfig(norm="post", feed_forward=4, blocks=3), 24 + 8 + 3 * (60 + 20 + 8 + 148 + 8)),
        (Bert4RecConfig(), 24 + 4 + 8 + 2 * (60 + 20 + 8 + 148 + 8) + 20),
        (Gru4RecConfig(), 3 * (16 + 16 + 4 + 4) + 20),
        (Gru4RecConfig(layers=2), 2 * 3 * (16 + 16 + 4 + 4) + 20),
        # filters of heights 1, 2, 3, and 2 vertical ones; (3 * 5 + 2 D) D + D; U D
        (CaserConfig(order=3, horizontal=5, vertical=2), 5 * (5 + 9 + 13) + 2 * (3 + 1) + 23 * 4 + 4 + 36),
        (FpmcConfig(), 36),
        # K and V interests 2 k D; LayerNorm, Q and K of the positions
        (LightSansConfig(interests=3), 24 + 8 + 2 * (60 + 24 + 8 + 2 * 20 + 20 + 8 + 148 + 8)),
        (BsaRecConfig(), 24 + 8 + 2 * (4 + 8 + 60 + 20 + 8 + 148 + 8)),
    ],
    ids=str,
)
def test_parameters_by_hand(encoder: EncoderConfig, learnt: int) -> None:
    untied = isinstance(encoder, FpmcConfig | CaserConfig)
    regime = REGIMES[type(encoder)][0]
    config = ModelConfig(regime=regime, history=6, width=4, encoder=encoder, untied_output=untied)
    assert sum(parameter.numel() for parameter in make_encoder(config, USERS).parameters()) == learnt


@every_encoder
def test_shape(config: ModelConfig) -> None:
    encoder, histories = encoder_of(config), histories_of(*ROWS)
    assert run(encoder, histories).shape == (len(ROWS), HISTORY, encoder.output_width)
    assert run(encoder, histories, last_only=True).shape == (len(ROWS), 1, encoder.output_width)


@every_encoder
def test_batch_equals_single_and_left_padding_changes_nothing(config: ModelConfig) -> None:
    encoder = encoder_of(config)
    together = run(encoder, histories_of(*ROWS))
    for row, output in zip(ROWS, together, strict=True):
        alone = run(encoder, histories_of(row))[0]
        if isinstance(config.encoder, Bert4RecConfig):  # where the outputs before the last depend on what is cut
            output, alone = output[-1:], alone[-1:]
        close(output[-len(alone) :], alone)
        for left in range(1, HISTORY - len(row) + 1):
            close(run(encoder, histories_of(row, left=left), last_only=True)[0], alone[-1:])


@every_encoder
def test_the_last_position_alone_equals_the_last_of_all(config: ModelConfig) -> None:
    encoder = encoder_of(config)
    for histories in (histories_of(*ROWS), histories_of(*ROWS[:2])):
        close(run(encoder, histories, last_only=True), run(encoder, histories)[:, -1:])


def looks_both_ways(config: ModelConfig) -> bool:
    if isinstance(config.encoder, TwinAttentionConfig | TwinTransformerConfig):
        return config.regime == "prefix"
    return isinstance(config.encoder, Bert4RecConfig | LightSansConfig | BsaRecConfig)


@every_encoder
def test_only_those_that_may_look_ahead_do(config: ModelConfig) -> None:
    """The histories differ in the last event alone: places, wherever counted from, are the same."""
    encoder = encoder_of(config)
    one, other = (run(encoder, histories_of([3, 9, 1, 14, last]))[0] for last in (2, 17))
    if looks_both_ways(config):
        assert ((one - other).abs().amax(-1) > 1e-3).all()
    else:
        close(one[:-1], other[:-1])
        assert not torch.allclose(one[-1], other[-1], atol=1e-2)


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.regime == "causal"], ids=name_of)
def test_causal_outputs_are_the_same_whatever_follows(config: ModelConfig) -> None:
    encoder = encoder_of(config)
    row = [3, 9, 1, 9, 22, 6]
    output = run(encoder, histories_of(row))
    for length in range(1, len(row)):
        close(output[:, :length], run(encoder, histories_of(row[:length])))


@pytest.mark.parametrize(
    "config", [config for config in CONFIGS if not isinstance(config.encoder, FpmcConfig)], ids=name_of
)
def test_every_event_and_its_place_matters(config: ModelConfig) -> None:
    """FPMC reads the last event only."""
    encoder = encoder_of(config)
    output = run(encoder, histories_of([3, 9, 1, 14]), last_only=True)
    for other in ([3, 5, 1, 14], [3, 9, 1, 15], [3, 1, 9, 14], [3, 1, 14], [3, 9, 1, 14, 14]):
        assert not torch.allclose(output, run(encoder, histories_of(other), last_only=True), atol=1e-3), other


@every_encoder
def test_gradients_are_finite_and_reach_every_parameter(config: ModelConfig) -> None:
    encoder = encoder_of(config).train()
    histories = histories_of(*ROWS, [])  # one is empty
    x = vectors_of(histories).requires_grad_()
    for last_only in (False, True):
        encoder.zero_grad()
        encoder(x, histories, last_only=last_only).square().sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@every_encoder
def test_dropout_is_for_training_only(config: ModelConfig) -> None:
    encoder, histories = encoder_of(config), histories_of(*ROWS)
    assert torch.equal(run(encoder, histories), run(encoder, histories))
    encoder.train()
    assert not torch.equal(run(encoder, histories), run(encoder, histories))


@pytest.mark.parametrize(
    ("encoder", "places"),
    [
        (TwinAttentionConfig(blocks=3), 1 + 3),  # input, blocks
        (TwinTransformerConfig(blocks=3), 1 + 3 * 2),
        (SasRecConfig(blocks=3), 1 + 3 * 3),  # input, attention, ReLU, layer
        (SasRecConfig(blocks=3, norm="post"), 1 + 3 * 2),
        (Bert4RecConfig(blocks=3), 1 + 3 * 2),
        (Gru4RecConfig(layers=3), 2),  # input, last layer; nn.GRU has its own between layers
        (CaserConfig(), 1),
        (FpmcConfig(), 1),
        (LightSansConfig(blocks=3), 1 + 3 * 2),
        (BsaRecConfig(blocks=3), 1 + 3 * 3),  # input, filter, attention, layer
    ],
    ids=str,
)
def test_where_dropout_is(encoder: EncoderConfig, places: int) -> None:
    untied = isinstance(encoder, FpmcConfig | CaserConfig)
    regime = REGIMES[type(encoder)][0]
    config = ModelConfig(regime=regime, width=WIDTH, encoder=encoder, untied_output=untied, dropout=0.25)
    made, calls = make_encoder(config, USERS), []
    for module in made.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda module, *_: calls.append(module.probability))
        if isinstance(module, nn.GRU):
            assert module.dropout == 0.25
    run(made, histories_of(*ROWS))
    assert calls == [0.25] * places
