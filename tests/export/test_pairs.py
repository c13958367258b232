"""Codes in pairs: nothing is lost, less is written, and every engine reads them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsan.compression.sizes import small_run
from lsan.config import CodedTableConfig, ModelConfig, QuantisationConfig, Recipe, TwinTransformerConfig
from lsan.errors import BundleError
from lsan.export.bundle import make_bundle
from lsan.export.pairs import find_pairs
from lsan.models.histories import Histories
from lsan.runs import Run
from lsan.runtime.engine import make_engine
from lsan.runtime.file import BundleFile
from lsan.runtime.item_table import ItemTable


@given(
    items=st.integers(1, 300),
    tables=st.integers(1, 4).map(lambda half: 2 * half),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_pairs_name_the_codes_that_were_there(items: int, tables: int, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 16, (items, tables))
    alike = random.random(items) < share
    chosen = random.integers(0, 16, (items, tables // 2))
    pairs = random.integers(0, 16, (tables // 2, 16, 2))
    codes[alike] = pairs[np.arange(tables // 2), chosen].reshape(items, tables)[alike]
    found = find_pairs(codes, 4)
    if found is None:
        return
    assert tables * 16 < found.paired.sum() * tables // 2  # the list of pairs is worth it
    again = found.rows[np.arange(tables // 2), found.numbers[found.paired]].reshape(-1, tables)
    np.testing.assert_array_equal(again, codes[found.paired])


def test_the_pairs_of_most_items_are_found_among_those_of_the_others() -> None:
    """Rare pairs too, which single items of the others have as often."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (2000, 8))
    pairs = random.integers(0, 16, (4, 16, 2))
    chosen = np.minimum(random.geometric(0.3, (1500, 4)) - 1, 15)
    codes[500:] = pairs[np.arange(4), chosen].reshape(1500, 8)
    found = find_pairs(codes, 4)
    assert found is not None
    assert found.paired[500:].all()


def test_an_odd_number_of_tables_and_unlike_items_have_none() -> None:
    assert find_pairs(np.zeros((500, 3), dtype=np.uint8), 4) is None
    assert find_pairs(np.random.default_rng(0).integers(0, 256, (500, 8)), 8) is None


def run_of(paired: float) -> Run:
    table = CodedTableConfig(tables=8, rows=16, paired=paired)
    model = ModelConfig(
        regime="prefix", width=16, history=10, table=table, encoder=TwinTransformerConfig(),
        quantisation=QuantisationConfig(),
    )  # fmt: skip
    return small_run(Recipe(model=model), 600)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("paired", [0.5, 0.9, 1.0])
def test_every_engine_scores_as_the_network(paired: float, native: bool) -> None:
    if native:
        pytest.importorskip("lsan.runtime._native.engine")
    run = run_of(paired)
    bundle = make_bundle(run)
    file = BundleFile.parse(bundle.content)
    source = file.manifest["table"]["codes"]
    assert source["from"] == "pairs"
    assert source["paired"] >= round(600 * paired)
    engine = make_engine(bundle.content, file, native=native)
    place = np.argsort(bundle.order)
    history = torch.tensor([[1, 600, 17, 302, 599]])
    with torch.no_grad():
        expected = run.network.scores(Histories.of_items(history))[0].numpy()
    items = (place[history[0].numpy() - 1] + 1).astype(np.int32)
    np.testing.assert_allclose(engine.scores(items, None, 0)[place], expected, rtol=2e-5, atol=2e-5)


def test_half_of_the_codes_are_left() -> None:
    sizes = [make_bundle(run_of(paired)).parts["codes"] for paired in (0.0, 1.0)]
    assert sizes == [600 * 8 // 2, 600 * 4 // 2 + 4 * 16 * 2 // 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paired": 601}, "paired"),
        ({"paired": 300}, "codes"),
        ({"pairs": 15}, r"codes\.pairs"),
        ({"pairs": 0}, "pairs"),
        ({"pairs": 10**6}, "pairs"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change: dict[str, int], message: str) -> None:
    file = BundleFile.parse(make_bundle(run_of(1.0)).content)
    file.manifest["table"]["codes"].update(change)
    with pytest.raises(BundleError, match=message):
        ItemTable(file)


def test_a_pair_that_does_not_exist_is_refused() -> None:
    file = BundleFile.parse(make_bundle(run_of(1.0)).content)
    file.manifest["table"]["codes"]["pairs"] = 8
    fewer = {**file.tensors, "codes.pairs": file.tensors["codes.pairs"][: 4 * 8 * 2 // 2]}
    with pytest.raises(BundleError, match="names a pair that does not exist"):
        ItemTable(replace(file, tensors=fewer))
