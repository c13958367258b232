"""Learnt codes: the table, how first codes are found, and that no two items share one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsan.config import CodedTableConfig
from lsan.models.item_tables.coded import CodedTable, ItemCodes, distinct
from lsan.models.item_tables.codes import _Loss, _settled, make_codes
from lsan.models.quantisation import dequantise, quantise, scales_of

KINDS = ["product", "additive", "quantiles", "random"]


def vectors_of(items: int, width: int) -> torch.Tensor:
    """Vectors whose components differ in size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(items, width, generator=generator) * torch.linspace(3, 0.1, width)


def config_of(kind: str, tables: int = 4, rows: int = 16) -> CodedTableConfig:
    return CodedTableConfig(codes=kind, tables=tables, rows=rows)  # type: ignore[arg-type]


def table_of(codes: ItemCodes, width: int, config: CodedTableConfig) -> CodedTable:
    table = CodedTable(
        len(codes.codes), config.tables, config.rows, width, additive=config.codes == "additive", contextual=False
    )
    table.start(codes)
    return table


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_vectors_that_histories_read(kind: str) -> None:
    config, width = config_of(kind), 8
    table = table_of(make_codes(vectors_of(60, width), config, 0), width, config)
    table.bias.normal_()
    items = torch.arange(1, 61)
    vectors = table(items[None], None)[0]
    hidden = torch.randn(5, width)
    output = table.output()
    expected = hidden @ vectors.T + table.bias
    torch.testing.assert_close(output.scores(table.facing(hidden)), expected, rtol=1e-4, atol=1e-4)
    chosen = torch.tensor([[3, 60], [1, 2], [7, 7], [9, 10], [60, 59]])
    torch.testing.assert_close(
        output.scores_of(table.facing(hidden), chosen), expected.gather(1, chosen - 1), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        output.only(items[5:9]).scores(table.facing(hidden)), expected[:, 5:9], rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_under_a_context_give_the_plain_vector(kind: str) -> None:
    config, width = config_of(kind), 8
    codes = make_codes(vectors_of(40, width), config, 0)
    table = CodedTable(40, 4, 16, width, additive=kind == "additive", contextual=True)
    table.start(codes)
    items = torch.tensor([[1, 7, 40]])
    plain = table(items, None)
    torch.testing.assert_close(table(items, torch.zeros(1, 3, width)), plain)
    assert not torch.allclose(table(items, torch.ones(1, 3, width)), plain)


@torch.no_grad()
def test_a_product_code_is_weighed_as_if_its_parts_were_rows_with_zeros() -> None:
    torch.manual_seed(0)
    table = CodedTable(5, 2, 16, 4, additive=False, contextual=True)
    table.codes.random_(0, 16)
    table.weight.normal_()
    assert table.attention is not None
    context = torch.randn(1, 1, 4)
    rows = torch.zeros(2, 4)
    rows[0, :2] = table.weight[int(table.codes[2, 0])]
    rows[1, 2:] = table.weight[16 + int(table.codes[2, 1])]
    alpha = (torch.nn.functional.silu(table.attention(rows)) * context[0]).sum(1).softmax(0)
    torch.testing.assert_close(table(torch.tensor([[3]]), context)[0, 0], 2 * (alpha[:, None] * rows).sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_first_codes_are_distinct_in_range_and_the_same_again(kind: str) -> None:
    vectors = vectors_of(300, 8)
    codes = make_codes(vectors, config_of(kind), 3)
    assert codes.codes.min() >= 0
    assert codes.codes.max() < 16
    assert len(codes.codes.unique(dim=0)) == 300
    assert codes.weight.isfinite().all()
    again = make_codes(vectors, config_of(kind), 3)
    assert torch.equal(again.codes, codes.codes)
    assert torch.equal(again.weight, codes.weight)


@pytest.mark.parametrize("kind", ["quantiles", "random"])
def test_codes_by_rank_are_balanced(kind: str) -> None:
    codes = make_codes(vectors_of(320, 8), config_of(kind), 0).codes
    for column in codes.unbind(1):
        uses = torch.bincount(column, minlength=16)
        assert uses.min() >= 19
        assert uses.max() <= 21


@torch.no_grad()
@pytest.mark.parametrize("kind", ["product", "additive"])
def test_found_codes_are_near_the_vectors_and_every_row_is_used(kind: str) -> None:
    vectors, config = vectors_of(2000, 8), config_of(kind)
    codes = make_codes(vectors, config, 0)
    found = table_of(codes, 8, config)(torch.arange(1, 2001)[None], None)[0]
    assert (found - vectors).square().sum() < 0.08 * vectors.square().sum()  # 2 bits for each component
    for column in codes.codes.unbind(1):
        assert len(column.unique()) == 16


@torch.no_grad()
def test_rows_of_8_bits_keep_the_smallest_components() -> None:
    """Rows are too short for scales of their own: one is for all of them."""
    vectors = vectors_of(2000, 16) * 1.5 ** -torch.arange(16)
    codes = make_codes(vectors, config_of("product", 8), 0)
    scale = scales_of(codes.weight, 8)
    rounded = replace(codes, weight=dequantise(quantise(codes.weight, scale, 8), scale))
    exact, found = (
        table_of(some, 16, config_of("product", 8))(torch.arange(1, 2001)[None], None)[0] for some in (codes, rounded)
    )
    assert ((found - exact).square().mean(0) < 1e-3 * exact.square().mean(0)).all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["product", "additive"])
def test_hidden_vectors_say_which_errors_matter(kind: str) -> None:
    """All hidden vectors lie in the last two components, which are the smallest of the vectors."""
    vectors, config, items = vectors_of(200, 8), config_of(kind, tables=2), torch.arange(1, 201)[None]
    hidden = torch.zeros(50, 8)
    hidden[:, 6:] = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))

    def error(codes: ItemCodes) -> float:
        found = table_of(codes, 8, config)(items, None)[0]
        return float(((found - vectors) @ hidden.T).square().mean())

    assert error(make_codes(vectors, config, 0, hidden=hidden)) < 0.7 * error(make_codes(vectors, config, 0))


@torch.no_grad()
def test_weights_say_which_items_matter() -> None:
    vectors, config = vectors_of(1000, 8), config_of("product")
    weights = torch.ones(1000)
    weights[:50] = 1000

    def error(codes: ItemCodes) -> float:
        found = table_of(codes, 8, config)(torch.arange(1, 51)[None], None)[0]
        return float((found - vectors[:50]).square().mean())

    assert error(make_codes(vectors, config, 0, weights=weights)) < 0.5 * error(make_codes(vectors, config, 0))


def divergence(vectors: torch.Tensor, coded: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of what coded items predict from what they should."""
    wanted, found = ((hidden @ items.T + bias).log_softmax(1) for items in (vectors, coded))
    return float((wanted.exp() * (wanted - found)).sum(1).mean())


@torch.no_grad()
@pytest.mark.parametrize("paired", [0.0, 0.8])
def test_codes_that_know_the_loss_predict_better_where_they_did_not_look(paired: float) -> None:
    """Contexts of few kinds, so that an item comes into question in some of them only."""
    generator = torch.Generator().manual_seed(2)
    kinds = torch.randn(12, 16, generator=generator)
    vectors = kinds[torch.arange(800) % 12] + 0.7 * torch.randn(800, 16, generator=generator)
    hidden = 0.5 * (kinds[torch.arange(1200) % 12] + 0.3 * torch.randn(1200, 16, generator=generator))
    looked, others = hidden[:600], hidden[600:]
    bias, weights = 0.3 * torch.randn(800, generator=generator), torch.arange(800.0)
    config = CodedTableConfig(tables=8, rows=16, paired=paired)

    def predicts(codes: ItemCodes) -> float:
        coded = table_of(codes, 16, config)(torch.arange(1, 801)[None], None)[0]
        return divergence(vectors, coded, bias, others)

    plain = make_codes(vectors, config, 0, hidden=looked, weights=weights)
    better = make_codes(vectors, config, 0, hidden=looked, bias=bias, weights=weights)
    assert predicts(better) < 0.8 * predicts(plain)
    assert len(better.codes.unique(dim=0)) == 800
    assert torch.equal(better.weight, plain.weight)
    if paired:
        for codes in better.codes.split(2, dim=1):
            assert len(codes[:640].unique(dim=0)) <= 16 + 4
            assert len(codes[640:].unique(dim=0)) > 40


@torch.no_grad()
def test_each_choice_makes_the_error_of_the_loss_smaller() -> None:
    """The error that is made small is the one whose second derivative autograd finds."""
    vectors, bias = vectors_of(30, 4), torch.linspace(-1, 1, 30)
    hidden = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    loss = _Loss.of(vectors, bias, hidden, torch.eye(4))
    item = 7

    def total(vector: torch.Tensor) -> torch.Tensor:
        scores = hidden @ vectors.index_copy(0, torch.tensor([item]), vector[None]).T + bias
        return scores.logsumexp(1).sum()

    exact = torch.autograd.functional.hessian(total, vectors[item])
    found = loss.curvature(torch.tensor([item]))[0] - loss.prior
    torch.testing.assert_close(found, exact / exact.trace(), rtol=1e-3, atol=1e-4)
    tables = torch.randn(2, 16, 2, generator=torch.Generator().manual_seed(4))
    codes = torch.zeros(30, 2, dtype=torch.int64)
    better = _settled(loss, torch.arange(30), tables, codes)
    curvature = loss.curvature(torch.arange(30))

    def errors(codes: torch.Tensor) -> torch.Tensor:
        error = vectors - torch.cat([table[codes[:, n]] for n, table in enumerate(tables)], dim=1)
        return torch.einsum("iv,ivw,iw->i", error, curvature, error)

    assert (errors(better) <= errors(codes) + 1e-5).all()
    for n in range(2):
        for row in range(16):  # no single change does better
            other = better.clone()
            other[:, n] = row
            assert (errors(better) <= errors(other) + 1e-4 * errors(other)).all()


def test_unpopular_items_choose_among_few_pairs() -> None:
    vectors, weights = vectors_of(1000, 8), torch.arange(1000.0)
    config = CodedTableConfig(tables=8, rows=16, paired=0.8)
    found = make_codes(vectors, config, 0, weights=weights)
    for codes in found.codes.split(2, dim=1):
        assert len(codes[:800].unique(dim=0)) <= 16 + 4  # but for pairs of the same rows, whose items are told apart
        assert len(codes[800:].unique(dim=0)) > 40

    def errors(codes: ItemCodes, config: CodedTableConfig) -> torch.Tensor:
        found = table_of(codes, 8, config)(torch.arange(1, 1001)[None], None)[0]
        return torch.as_tensor((found - vectors).square().sum(1))

    half = errors(make_codes(vectors, config_of("product"), 0, weights=weights), config_of("product"))
    assert errors(found, config)[800:].mean() < 0.6 * half[800:].mean()
    assert errors(found, config)[:800].mean() < 1.5 * half[:800].mean()
    for share, count in ((0.01, 10), (0.0001, 0)):
        with pytest.raises(ValueError, match=f"{count} items cannot fill 16 pairs of rows"):
            make_codes(vectors, CodedTableConfig(tables=4, rows=16, paired=share), 0, weights=weights)


@pytest.mark.parametrize("change", [{"codes": "additive"}, {"codes": "random"}, {"tables": 3}])
def test_pairs_are_for_product_codes_of_an_even_number_of_tables(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="paired is for product codes and an even number of tables"):
        CodedTableConfig(**{"tables": 4, "paired": 0.5, **change})


def test_more_items_than_codes_or_fewer_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="1 tables of 16 rows make 16 codes, and there are 17 items"):
        make_codes(vectors_of(17, 8), config_of("random", tables=1), 0)
    with pytest.raises(ValueError, match="15 items cannot fill 16 rows"):
        make_codes(vectors_of(15, 8), config_of("product"), 0)
    with pytest.raises(ValueError, match="20 items cannot fill a width of 32"):
        make_codes(vectors_of(20, 32), config_of("product"), 0)


@settings(max_examples=40)
@given(items=st.integers(1, 64), seed=st.integers(0, 1000))
def test_distinct_changes_only_what_it_must(items: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn(3, 4, 2, generator=generator)
    wanted = [torch.randn(items, 2, generator=generator) for _ in range(3)]
    codes = torch.randint(0, 4, (items, 3), generator=generator)
    result = distinct(codes, tables, wanted)
    assert len(result.unique(dim=0)) == items
    assert result.min() >= 0
    assert result.max() < 4
    seen = set[tuple[int, ...]]()
    for before, after in zip(codes.tolist(), result.tolist(), strict=True):
        if tuple(before) not in seen:
            assert after == before
        seen.add(tuple(before))


def test_thousands_of_items_alike_get_codes_of_their_own() -> None:
    tables = torch.randn(8, 64, 2)
    result = distinct(torch.zeros(5000, 8, dtype=torch.int64), tables, [torch.zeros(5000, 2)] * 8)
    assert len(result.unique(dim=0)) == 5000


def test_an_item_that_loses_its_code_takes_the_nearest_free_one() -> None:
    tables = torch.tensor([[[0.0], [1.0], [5.0]], [[0.0], [2.0], [9.0]]])
    codes = torch.tensor([[0, 0], [0, 0], [1, 0]])
    wanted = [torch.zeros(3, 1), torch.zeros(3, 1)]
    # (1, 0) costs 1 but is the third item's; (0, 1) costs 4
    assert distinct(codes, tables, wanted).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_groups_of_items_alike_take_turns() -> None:
    """The group with the lower code chooses first, whatever the order of the items."""
    tables = torch.tensor([[[0.0], [1.0], [5.0]], [[0.0], [2.0], [9.0]]])
    codes = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0]])
    wanted = [torch.tensor([[1.0], [0.0], [1.0], [0.0]]), torch.zeros(4, 1)]
    # the nearest to (0, 0) is (1, 0), which is taken, then (0, 1); the nearest to (1, 0) is (0, 0), then (1, 1)
    assert distinct(codes, tables, wanted).tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]
