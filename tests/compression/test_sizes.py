"""What a bundle costs is known before there is a model."""

import pytest

from lsan.compression.search import MARGIN
from lsan.compression.sizes import shipped_bytes, small_run
from lsan.config import (
    BsaRecConfig,
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    FullTableConfig,
    HashedTableConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    TableConfig,
    TwinTransformerConfig,
)
from lsan.export.bundle import shipped_parts

TABLES: list[TableConfig] = [
    FullTableConfig(),
    HashedTableConfig(rows=300),
    ComposedTableConfig(radices=(2,)),
    CodedTableConfig(tables=8, rows=64),
    CodedTableConfig(codes="additive", tables=3, rows=256),
    CodedTableConfig(tables=8, rows=64, paired=0.8),
]


@pytest.mark.parametrize("table", TABLES, ids=str)
@pytest.mark.parametrize(
    "precision",
    [None, QuantisationConfig(), QuantisationConfig(weights=4, table=4, bias=4), QuantisationConfig(table=16, bias=16)],
)
@pytest.mark.parametrize("items", [700, 5000])
def test_the_size_is_known_before(table: TableConfig, precision: QuantisationConfig | None, items: int) -> None:
    model = ModelConfig(
        regime="prefix", width=16, history=10, table=table, encoder=TwinTransformerConfig(), quantisation=precision
    )
    found = shipped_parts(small_run(Recipe(model=model), items))
    planned = shipped_bytes(Recipe(model=model), items)
    assert sum(planned.values()) == pytest.approx(sum(found.values()), rel=0.01)
    for part in ("codes", "item tables", "encoder"):
        assert planned.get(part) == found.get(part)


def test_an_odd_width_of_items() -> None:
    table = CodedTableConfig(tables=3, rows=16)
    recipe = Recipe(
        model=ModelConfig(regime="prefix", width=16, item_width=15, table=table, encoder=TwinTransformerConfig())
    )
    found, planned = shipped_parts(small_run(recipe, 3000)), shipped_bytes(recipe, 3000)
    assert sum(planned.values()) == pytest.approx(sum(found.values()), rel=0.01)


def test_categories_and_other_encoders() -> None:
    model = ModelConfig(
        regime="prefix",
        width=16,
        history=10,
        table=ComposedTableConfig(),
        context=ContextConfig(),
        encoder=BsaRecConfig(),
    )  # fmt: skip
    found = shipped_parts(small_run(Recipe(model=model), 3000, categories=12))
    planned = shipped_bytes(Recipe(model=model), 3000, categories=12)
    assert sum(planned.values()) == pytest.approx(sum(found.values()), rel=0.01)


def test_which_items_are_offered_takes_a_bit_of_each() -> None:
    recipe = Recipe(model=ModelConfig(regime="prefix", width=16, encoder=TwinTransformerConfig()))
    run = small_run(recipe, 20_000)
    run.network.offered[5] = False
    found, planned = shipped_parts(run), shipped_bytes(recipe, 20_000, all_offered=False)
    assert planned["popularity"] == found["popularity"]
    assert sum(planned.values()) == pytest.approx(sum(found.values()), abs=MARGIN)
