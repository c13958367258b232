"""Small networks of every kind, for tests of what all of them must do."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import torch
from torch import Tensor

from lsan.config import (
    REGIMES,
    Bert4RecConfig,
    BsaRecConfig,
    CaserConfig,
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    EncoderConfig,
    FpmcConfig,
    FullTableConfig,
    Gru4RecConfig,
    HashedTableConfig,
    LightSansConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    Regime,
    SasRecConfig,
    TableConfig,
    TimeConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.data.catalogue import Catalogue
from lsan.models.histories import Histories
from lsan.models.item_tables.coded import CodedTable
from lsan.models.network import Network
from lsan.models.packing import pack, settled_state, unpack
from lsan.runs import Run, RunHeader

ITEMS, LONGEST, USERS = 23, 6, 13
CATEGORIES = [None if item % 5 == 0 else f"category {item % 3}" for item in range(ITEMS)]
CATALOGUE = Catalogue(
    ids=[f"id-{index}" for index in range(1, ITEMS + 1)], titles=[None] * ITEMS, categories=CATEGORIES
)

TABLES: list[TableConfig] = [
    FullTableConfig(),
    HashedTableConfig(rows=11),
    ComposedTableConfig(radices=(2,)),
    CodedTableConfig(tables=2, rows=16),
    CodedTableConfig(codes="additive", tables=2, rows=16),
]


#: Encoders with a vector for each user of the training data, beside which they rank.
PERSONAL: set[type] = {FpmcConfig, CaserConfig}


def encoder_in(kind: type, regime: Regime) -> EncoderConfig:
    """A small encoder of a kind, with what differs between the regimes."""
    encoders: dict[type, EncoderConfig] = {
        TwinAttentionConfig: TwinAttentionConfig(window=3 if regime == "prefix" else 4),
        TwinTransformerConfig: TwinTransformerConfig(window=3 if regime == "prefix" else 4),
        SasRecConfig: SasRecConfig(heads=2, norm="post" if regime == "prefix" else "pre"),
        Bert4RecConfig: Bert4RecConfig(),
        Gru4RecConfig: Gru4RecConfig(layers=2 if regime == "prefix" else 1),
        CaserConfig: CaserConfig(order=3, horizontal=4, vertical=2),
        FpmcConfig: FpmcConfig(),
        LightSansConfig: LightSansConfig(interests=3),
        BsaRecConfig: BsaRecConfig(cutoff=3),
    }
    return encoders[kind]


def model_of(kind: type, regime: Regime, table: TableConfig, **changes: Any) -> ModelConfig:
    return ModelConfig(
        regime=regime,
        table=table,
        encoder=changes.pop("encoder", encoder_in(kind, regime)),
        history=LONGEST,
        width=8,
        untied_output=changes.pop("untied_output", kind in PERSONAL),
        **changes,
    )


def networks() -> list[ModelConfig]:
    """Every pair of table and encoder in each of its regimes; then what else can be chosen, where it matters."""
    full, _, composed, product, additive = TABLES
    found = [
        model_of(kind, regime, table, context=ContextConfig() if kind is TwinAttentionConfig else None)
        for kind, regimes in REGIMES.items()
        for regime in regimes
        for table in TABLES
    ]
    # the paper's model: deep, bare, with more digits, untied, without its context
    for regime in REGIMES[TwinAttentionConfig]:
        plain = encoder_in(TwinAttentionConfig, regime)
        for blocks, residual in ((2, True), (1, False), (2, False)):
            encoder = msgspec.structs.replace(plain, blocks=blocks, residual=residual)
            found.append(
                model_of(
                    TwinAttentionConfig, regime, ComposedTableConfig(radices=(3, 4)),
                    encoder=encoder, context=ContextConfig(residual=residual), untied_output=not residual,
                )
            )  # fmt: skip
        found.append(model_of(TwinAttentionConfig, regime, composed))
    # the context with the other encoders
    found += [
        model_of(kind, regimes[0], composed, context=ContextConfig())
        for kind, regimes in REGIMES.items()
        if kind is not TwinAttentionConfig
    ]
    # codes weighed by a context
    found += [model_of(SasRecConfig, "prefix", table, context=ContextConfig()) for table in (product, additive)]
    # item vectors narrower than the model
    found += [model_of(TwinTransformerConfig, "prefix", table, item_width=4) for table in (full, product, additive)]
    # time signals
    found += [
        model_of(SasRecConfig, "causal", full, time=TimeConfig()),
        model_of(Gru4RecConfig, "causal", full, time=TimeConfig(calendar=False)),
        model_of(Gru4RecConfig, "prefix", full, time=TimeConfig(gaps=False)),
        model_of(Bert4RecConfig, "cloze", full, time=TimeConfig()),
        model_of(TwinAttentionConfig, "prefix", composed, context=ContextConfig(), time=TimeConfig()),
        model_of(TwinAttentionConfig, "causal", composed, context=ContextConfig(), time=TimeConfig()),
    ]
    return found


NETWORKS = networks()


def kind_of(config: EncoderConfig | TableConfig) -> str:
    return str(type(config).__struct_config__.tag)


def name_of(config: ModelConfig) -> str:
    parts = [kind_of(config.encoder), config.regime, kind_of(config.table)]
    if isinstance(config.table, CodedTableConfig):
        parts.append(config.table.codes)
    if isinstance(config.encoder, TwinAttentionConfig):
        parts += [f"{config.encoder.blocks} blocks"] + ["bare"] * (not config.encoder.residual)
    if config.item_width is not None:
        parts.append(f"items of {config.item_width}")
    parts += ["context"] * (config.context is not None) + ["untied"] * config.untied_output
    if config.time is not None:
        parts += ["gaps"] * config.time.gaps + ["calendar"] * config.time.calendar
    return " ".join(parts)


@cache
def shared_network(config: ModelConfig) -> Network:
    """A network whose every parameter matters: nothing is left at the zero or one that training begins with. Not to be
    changed."""
    generator = torch.Generator().manual_seed(7)
    popularity = torch.randint(0, 50, (ITEMS,), generator=generator)
    numbers = torch.randperm(ITEMS, generator=generator)
    torch.manual_seed(7)
    network = Network(config, torch.from_numpy(CATALOGUE.category_of_item.copy()), popularity, numbers, USERS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        if isinstance(network.table, CodedTable):
            network.table.codes.copy_(torch.stack([numbers % 16, numbers // 16], dim=1))
            network.table.weight.normal_()
    return network.eval()


def network_of(config: ModelConfig) -> Network:
    """The same, to be changed."""
    return shared_network.__wrapped__(config)


def run_of(config: ModelConfig) -> Run:
    header = RunHeader(
        recipe=Recipe(model=config),
        timed=True,
        dataset={"name": "d", "path": "/nowhere", "content_hash": "", "users": USERS, "items": ITEMS, "events": 1},
        progress={"finished": True},
    )
    return Run(header=header, catalogue=CATALOGUE, network=shared_network(config))


#: Of a bundle; None is float32.
PRECISIONS = (None, QuantisationConfig(weights=8, table=8), QuantisationConfig(weights=4, table=4))

#: An item that no history of ROWS has.
NOT_OFFERED = 13


def settled_run(config: ModelConfig, precision: QuantisationConfig | None) -> Run:
    """A run as it comes from its folder: a quantised network's numbers are those of its file."""
    quantised = msgspec.structs.replace(config, quantisation=precision)
    network = network_of(config)
    if precision is not None:
        state = settled_state(network)
        rounded = network_of(config)
        rounded.config = quantised
        rounded.load_state_dict(unpack(pack(state, quantised), state, quantised))
        network = rounded
    network.offered[NOT_OFFERED - 1] = False
    run = run_of(config)
    header = msgspec.structs.replace(run.header.recipe, model=quantised)
    return Run(
        header=type(run.header)(
            recipe=header, timed=run.header.timed, dataset=run.header.dataset, progress=run.header.progress
        ),
        catalogue=run.catalogue,
        network=network,
    )


HOUR = 3_600_000
ASKED = 1000 * HOUR


def histories_of(*rows: list[int], left: int = 0, users: Sequence[int] | None = None, asked: int = ASKED) -> Histories:
    """Side by side, with `left` columns of padding more than needed. The time of an event follows from the item."""
    time = max(map(len, rows)) + left
    items = torch.tensor([[0] * (time - len(row)) + row for row in rows])
    return Histories(
        items=items,
        times=torch.where(items > 0, times_of(items), -1),
        asked=torch.full((len(rows),), asked),
        users=torch.tensor([0] * len(rows) if users is None else list(users)),
    )


def times_of(items: Tensor) -> Tensor:
    return items * 31 * HOUR


#: Length 1, 2, T, more than T, and items that are repeated; and users, some of them unknown.
ROWS = [[5], [7, 3], [1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3, 2, 1], [11, 11, 11], [4, 20, 4, 20, 4, 23]]
WHO = [1, 0, 5, USERS, 5, 0]
