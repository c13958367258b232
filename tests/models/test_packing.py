"""A quantised network in few bytes: what comes back, how many bytes it takes, and damage."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lsan.config import (
    BsaRecConfig,
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    FullTableConfig,
    Gru4RecConfig,
    HashedTableConfig,
    LightSansConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    SasRecConfig,
    TableConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.data.catalogue import Catalogue
from lsan.errors import DataError
from lsan.models.histories import Histories
from lsan.models.network import Network
from lsan.models.packing import POPULAR, layout, matrix_bits, pack, settled_state, unpack
from lsan.models.quantisation import round_in_use
from lsan.runs import MODEL, Run, RunHeader, load_run, write_model, write_run

ITEMS = 600
TABLES: list[TableConfig] = [
    FullTableConfig(),
    HashedTableConfig(rows=50),
    ComposedTableConfig(radices=(2, 5)),
    CodedTableConfig(tables=4, rows=64),
    CodedTableConfig(codes="additive", tables=3, rows=16),
]


def model_of(table: TableConfig, weights: int = 8) -> ModelConfig:
    return ModelConfig(
        regime="prefix",
        width=16,
        history=10,
        table=table,
        encoder=TwinTransformerConfig(),
        context=ContextConfig(),
        quantisation=QuantisationConfig(weights=weights, table=8),  # type: ignore[arg-type]
    )


def network_of(config: ModelConfig) -> Network:
    torch.manual_seed(0)
    popularity = torch.randint(0, 10_000, (ITEMS,))
    network = Network(config, torch.arange(ITEMS + 1) % 12, popularity, torch.randperm(ITEMS), 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        for name, buffer in network.named_buffers():
            if name == "table.codes":
                buffer.random_(0, 16)
    return network.eval()


HISTORIES = Histories.of_items(torch.tensor([[0, 0, 1, 5, 600], [9, 8, 7, 6, 5]]))


@torch.no_grad()
@pytest.mark.parametrize("weights", [4, 8])
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_what_is_unpacked_scores_as_the_rounded_network_did(table: TableConfig, weights: int) -> None:
    config = model_of(table, weights)
    network = network_of(config)
    round_in_use(network, matrix_bits(network.state_dict(), config))
    packed = pack(settled_state(network), config)
    like = {name: tensor.to("meta") for name, tensor in network_of(config).state_dict().items()}
    again = network_of(config)
    again.load_state_dict(unpack(packed, like, config))
    torch.testing.assert_close(again.scores(HISTORIES), network.scores(HISTORIES), rtol=5e-3, atol=5e-3)
    # and from there on nothing changes any more
    twice = pack(settled_state(again), config)
    assert packed.keys() == twice.keys()
    assert all(torch.equal(packed[name], twice[name]) for name in packed)
    held = layout(like, config)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in held.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in packed.items()
    }


@torch.no_grad()
def test_popularity_is_kept_where_it_is_asked_for() -> None:
    config = model_of(TABLES[0])
    network = network_of(config)
    state = settled_state(network)
    kept = unpack(pack(state, config), state, config)["popularity"]
    best = network.popularity.argsort(descending=True, stable=True)
    assert torch.equal(kept[best[:POPULAR]], network.popularity[best[:POPULAR]])
    assert not kept[best[POPULAR:]].any()


ENCODERS = [SasRecConfig(), LightSansConfig(heads=1), BsaRecConfig(), TwinAttentionConfig(heads=1), Gru4RecConfig()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "run", model_of(TABLES[3], 4))


def write(folder: Path, config: ModelConfig) -> Path:
    ids = [f"id-{index}" for index in range(ITEMS)]
    catalogue = Catalogue(ids=ids, titles=[None] * ITEMS, categories=[f"c{(v + 1) % 12}" for v in range(ITEMS)])
    header = RunHeader(
        recipe=Recipe(model=config),
        timed=False,
        dataset={"name": "d", "path": "/", "content_hash": "", "users": 3, "items": ITEMS, "events": 1},
        progress={"finished": True},
    )
    folder.mkdir()
    torch.manual_seed(0)
    network = Network(
        config, torch.from_numpy(catalogue.category_of_item.copy()), torch.arange(ITEMS), torch.randperm(ITEMS), 3
    ).eval()
    write_run(folder, Run(header=header, catalogue=catalogue, network=network))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
def test_a_run_of_any_encoder_is_written_and_read(encoder: object, tmp_path: Path) -> None:
    config = ModelConfig(
        regime="causal" if isinstance(encoder, Gru4RecConfig) else "prefix",
        width=16,
        encoder=encoder,  # type: ignore[arg-type]
        quantisation=QuantisationConfig(),
    )
    folder = write(tmp_path / "run", config)
    scores = load_run(folder, device=torch.device("cpu")).network.scores(HISTORIES)
    assert scores.isfinite().all()
    assert torch.equal(load_run(folder, device=torch.device("cpu")).network.scores(HISTORIES), scores)


Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("table.codes"), r"table.codes should be of shape \[1800\] and type uint8, .* and is missing"),
        (
            lambda t: t.update({"table.codes": t["table.codes"][:-1]}),
            r"table.codes should be of shape \[1800\] .* and is of shape \[1799\]",
        ),
        (
            lambda t: t.update({"table.weight.scale": t["table.weight.scale"].float()}),
            "and type float16, .* and type float32",
        ),
        (lambda t: t["table.weight.scale"].fill_(torch.nan), "table.weight holds numbers that are not finite"),
        (lambda t: t["popularity.items"].fill_(600), "popularity.items names an item that does not exist"),
        (lambda t: t["popularity.items"].fill_(-1), "popularity.items names an item that does not exist"),
        (lambda t: t["popularity.counts"].fill_(-1), "popularity is negative"),
        (lambda t: t.update({"more": torch.zeros(1)}), "more: no part of the network"),
        (lambda t: t["context.category_of_item"].fill_(255), "names a category that does not exist"),
    ],
)
def test_damage_is_one_clear_error(folder: Path, change: Change, reason: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file(tensors, folder / MODEL)
    with pytest.raises(DataError, match=reason):
        load_run(folder, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(untied_output=True, quantisation=QuantisationConfig()),
        ModelConfig(table=ComposedTableConfig(radices=(256,) * 4), quantisation=QuantisationConfig()),
    ],
    ids=["untied", "radices beyond 32 bits"],
)
def test_what_training_writes_is_read(config: ModelConfig, tmp_path: Path) -> None:
    folder = write(tmp_path / "run", config)
    network = load_run(folder, device=torch.device("cpu")).network
    round_in_use(network, matrix_bits(network.state_dict(), config))  # as in training
    write_model(folder, network)
    again = load_run(folder, device=torch.device("cpu")).network
    torch.testing.assert_close(again.scores(HISTORIES), network.scores(HISTORIES))


def test_all_256_rows_of_a_table_may_be_named(tmp_path: Path) -> None:
    config = ModelConfig(table=CodedTableConfig(tables=4, rows=256), quantisation=QuantisationConfig())
    folder = write(tmp_path / "run", config)
    run = load_run(folder, device=torch.device("cpu"))
    codes = (torch.arange(ITEMS)[:, None] % 256).expand(-1, 4)
    run.network.get_buffer("table.codes").copy_(codes)
    write_model(folder, run.network)
    again = load_run(folder, device=torch.device("cpu")).network.get_buffer("table.codes")
    assert torch.equal(again, codes.to(torch.uint8))


def test_a_code_beyond_the_rows_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", ModelConfig(table=CodedTableConfig(tables=4, rows=64)))
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / MODEL)
    tensors["table.codes"].fill_(64)
    save_file(tensors, folder / MODEL)
    with pytest.raises(DataError, match=r"table\.codes names a row that does not exist"):
        load_run(folder, device=torch.device("cpu"))
