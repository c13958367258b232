"""Digits, the composition and the factored output, against values worked out by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lsan.models.item_tables import Codes, OutputFactors
from lsan.models.item_tables.composed import ComposedTable, complete_radices, modulo_digits


def test_digits_of_the_mixed_radix_3_4_2() -> None:
    # 23 = 2 + 3 * (3 + 4 * 1); 12 = 0 + 3 * (0 + 4 * 1); 7 = 1 + 3 * 2
    digits = modulo_digits(torch.tensor([0, 1, 2, 3, 7, 12, 23, 24]), (3, 4, 2))
    assert digits.tolist() == [
        [0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [1, 2, 0], [0, 0, 1], [2, 3, 1], [0, 0, 0],
    ]  # fmt: skip


def test_digits_of_the_papers_example_radix() -> None:
    assert modulo_digits(torch.arange(1, 6), (2, 3)).tolist() == [[1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("radices", "items", "complete"),
    [
        ((), 7, (7,)),
        ((2,), 7, (2, 4)),
        ((2,), 2, (2,)),
        ((2,), 1, (1,)),
        ((9,), 7, (7,)),
        ((3, 4), 2, (3, 4)),
        ((3, 4), 12, (3, 4)),
        ((3, 4), 13, (3, 4, 2)),
        ((5, 5, 5), 100, (5, 5, 5)),
        ((2,), 12101, (2, 6051)),
    ],
)
def test_one_more_radix_where_the_others_do_not_reach(
    radices: tuple[int, ...], items: int, complete: tuple[int, ...]
) -> None:
    assert complete_radices(radices, items) == complete


@settings(max_examples=60)
@given(items=st.integers(1, 5000), radices=st.lists(st.integers(2, 40), max_size=5), first=st.integers(0, 10**6))
def test_digits_are_distinct_for_consecutive_indices(items: int, radices: list[int], first: int) -> None:
    complete = complete_radices(radices, items)
    assert math.prod(complete) >= items
    digits = modulo_digits(torch.arange(first, first + items), complete)
    assert len(digits.unique(dim=0)) == items
    assert (digits >= 0).all()
    assert (digits < torch.tensor(complete)).all()


@pytest.mark.parametrize("radices", [(), (2,), (3,), (7, 11), (4, 4, 4)])
def test_digits_are_distinct_for_every_catalogue_size_up_to_5000(radices: tuple[int, ...]) -> None:
    # The last radix follows from V. Digits of 1..V are distinct exactly when no two rows are equal.
    for items in range(1, 5001):
        complete = complete_radices(radices, items)
        index, place, key = np.arange(1, items + 1), 1, np.zeros(items, dtype=np.int64)
        for radix in complete:
            key += index % radix * place
            index, place = index // radix, place * radix
        assert np.bincount(key, minlength=1).max() == 1, items
    assert key.tolist() == key_of(modulo_digits(torch.arange(1, 5001), complete), complete)


def key_of(digits: torch.Tensor, radices: Sequence[int]) -> list[int]:
    places = torch.tensor([math.prod(radices[:n]) for n in range(len(radices))])
    keys: list[int] = (digits * places).sum(1).tolist()
    return keys


def hand_table() -> ComposedTable:
    """Three items in two tables of two rows; items 1, 2, 3 have the numbers 0, 1, 2, so the codes 00, 10, 01."""
    table = ComposedTable(torch.tensor([0, 1, 2]), (2,), 2)
    assert table.attention is not None
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0], [0.5, 0.5]]))
        table.attention.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        table.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    return table


@torch.no_grad()
def test_composition_weights_by_hand() -> None:
    def silu(x: float) -> float:
        return x / (1 + math.exp(-x))

    context = torch.tensor([[[2.0, 1.0]]])
    # item 2 = rows 1 and 2: e_1 = (0, 2), e_2 = (3, -1); W_a e = (sum, 2 * second) = (2, 4) and (2, -2)
    first = 2 * silu(2) + silu(4)
    second = 2 * silu(2) + silu(-2)
    alpha = math.exp(first) / (math.exp(first) + math.exp(second))
    expected = [(1 - alpha) * 3, alpha * 2 - (1 - alpha)]
    assert alpha == pytest.approx(0.98473, abs=1e-5)  # 1 / (1 + e^-(3.92806 + 0.23841))
    assert hand_table()(torch.tensor([[2]]), context)[0, 0].tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_without_context_the_rows_count_alike() -> None:
    vectors = hand_table()(torch.tensor([[1, 2, 3]]), torch.zeros(1, 3, 2))[0]
    assert vectors.tolist() == [[2.0, -0.5], [1.5, 0.5], [0.75, 0.25]]


@torch.no_grad()
def test_scores_by_hand() -> None:
    # rows times z = (1, 2): 1, 4, 1, 1.5; items are rows 0+2, 1+2, 0+3
    scores = hand_table().output().scores(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    assert scores[0].tolist() == pytest.approx([2.1, 5.2, 2.8])
    assert scores[1].tolist() == pytest.approx([0.1, 0.2, 0.3])


@torch.no_grad()
def test_a_single_table_is_a_plain_embedding_whatever_the_context() -> None:
    table = ComposedTable(torch.tensor([4, 0, 2, 1, 3]), (), 3)
    assert table.weight.shape == (5, 3)
    items = torch.tensor([[3, 1, 5]])
    for context in (torch.zeros(1, 3, 3), torch.ones(1, 3, 3)):
        assert torch.equal(table(items, context), table.weight[items - 1])
    assert "numbers" not in table.state_dict()


@settings(max_examples=40)
@given(items=st.integers(1, 60), radices=st.lists(st.integers(2, 6), max_size=3), seed=st.integers(0, 999))
def test_the_factored_scores_equal_an_explicit_table(items: int, radices: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    numbers = torch.randperm(items)
    table = ComposedTable(numbers, radices, 4)
    hidden = torch.randn(3, 4)
    offsets = np.cumsum([0, *table.radices[:-1]])
    with torch.no_grad():
        table.bias.normal_()
        if len(table.radices) == 1:
            explicit = table.weight.detach()
        else:
            explicit = torch.stack(
                [
                    sum((table.weight[o + d] for o, d in zip(offsets, digits, strict=True)), torch.zeros(4))
                    for digits in modulo_digits(numbers, table.radices).tolist()
                ]
            )
        torch.testing.assert_close(table.output().scores(hidden), hidden @ explicit.T + table.bias)


@settings(max_examples=40)
@given(items=st.integers(1, 40), tables=st.integers(1, 4), unused=st.integers(0, 5), seed=st.integers(0, 999))
def test_collect_is_the_transpose_of_spread(items: int, tables: int, unused: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = 7 + unused  # some rows belong to no item
    rows = torch.randint(0, 7, (items, tables), generator=generator)
    matrix = torch.zeros(items, total, dtype=torch.float64)
    for item in range(items):
        for row in rows[item].tolist():
            matrix[item, row] += 1
    codes = Codes(rows, total)
    x = torch.randn(total, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(items, 3, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(codes.spread(x), matrix @ x)
    torch.testing.assert_close(codes.collect(y), matrix.T @ y)


def test_an_untied_output_is_a_linear_layer() -> None:
    weight, bias, hidden = torch.randn(5, 3), torch.randn(5), torch.randn(2, 3)
    scores = OutputFactors(weight=weight, codes=None, bias=bias).scores(hidden)
    torch.testing.assert_close(scores, F.linear(hidden, weight, bias))
