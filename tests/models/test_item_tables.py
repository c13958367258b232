"""Item tables: digits, hashes, the composition and the factored output, against values worked out by hand."""

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
from lsan.models.item_tables.full import FullTable
from lsan.models.item_tables.hashed import HashedTable, hash_rows


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
        ((2,), 7, (2, 4)),
        ((2,), 2, (2,)),
        ((2,), 1, (2,)),
        ((9,), 7, (9,)),
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
@given(
    items=st.integers(1, 5000),
    radices=st.lists(st.integers(2, 40), min_size=1, max_size=5),
    first=st.integers(0, 10**6),
)
def test_digits_are_distinct_for_consecutive_indices(items: int, radices: list[int], first: int) -> None:
    complete = complete_radices(radices, items)
    assert math.prod(complete) >= items
    digits = modulo_digits(torch.arange(first, first + items), complete)
    assert len(digits.unique(dim=0)) == items
    assert (digits >= 0).all()
    assert (digits < torch.tensor(complete)).all()


@pytest.mark.parametrize("radices", [(2,), (3,), (7, 11), (4, 4, 4)])
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
    table = ComposedTable(torch.tensor([0, 1, 2]), (2,), 2, contextual=True)
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
    for context in (None, torch.zeros(1, 3, 2)):
        vectors = hand_table()(torch.tensor([[1, 2, 3]]), context)[0]
        assert vectors.tolist() == [[2.0, -0.5], [1.5, 0.5], [0.75, 0.25]]


def test_a_table_that_will_get_no_context_learns_no_weights_for_it() -> None:
    names = set(ComposedTable(torch.arange(5), (2,), 3, contextual=False).state_dict())
    assert names == {"weight", "bias", "numbers"}
    assert set(hand_table().state_dict()) == names | {"attention.weight"}


@torch.no_grad()
def test_scores_by_hand() -> None:
    # rows times z = (1, 2): 1, 4, 1, 1.5; items are rows 0+2, 1+2, 0+3
    scores = hand_table().output().scores(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    assert scores[0].tolist() == pytest.approx([2.1, 5.2, 2.8])
    assert scores[1].tolist() == pytest.approx([0.1, 0.2, 0.3])


@torch.no_grad()
def test_a_full_table_is_a_plain_embedding_whatever_the_context() -> None:
    table = FullTable(5, 3)
    assert table.weight.shape == (5, 3)
    items = torch.tensor([[3, 1, 5]])
    for context in (None, torch.zeros(1, 3, 3), torch.ones(1, 3, 3)):
        assert torch.equal(table(items, context), table.weight[items - 1])
    assert table(torch.tensor([[0, 1]]), None).isfinite().all()
    assert set(table.state_dict()) == {"weight", "bias"}
    table.bias.normal_()
    hidden = torch.randn(2, 3)
    torch.testing.assert_close(table.output().scores(hidden), F.linear(hidden, table.weight, table.bias))


def murmur_finaliser(key: int) -> int:
    """`fmix32` of MurmurHash3, as Appleby published it."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        key = ((key ^ (key >> shift)) * factor) % 2**32
    return key ^ (key >> 16)


@settings(max_examples=60)
@given(items=st.integers(1, 300), rows=st.integers(1, 65_536), hashes=st.integers(1, 8))
def test_rows_are_murmur_hashes_of_the_item(items: int, rows: int, hashes: int) -> None:
    """Nothing of them is saved with a model, so they may never change."""
    expected = [
        [murmur_finaliser((item + n * 0x9E3779B9) % 2**32) % rows for n in range(hashes)]
        for item in range(1, items + 1)
    ]
    assert hash_rows(items, rows, hashes).tolist() == expected


def test_a_hash_by_hand() -> None:
    assert hash_rows(1, 2**32, 1).tolist() == [[0x514E28B7]]  # fmix32(1), as it is known


def test_hash_functions_spread_items_evenly_and_independently() -> None:
    items, rows = 40_000, 40
    both = hash_rows(items, rows, 2)
    for column in both.unbind(1):
        expected = items / rows
        chi_square = float(((column.bincount(minlength=rows) - expected) ** 2 / expected).sum())
        assert chi_square < 39 + 5 * (2 * 39) ** 0.5  # 39 degrees of freedom
    pairs = (both[:, 0] * rows + both[:, 1]).bincount(minlength=rows**2)
    expected = items / rows**2
    assert float(((pairs - expected) ** 2 / expected).sum()) < 1599 + 5 * (2 * 1599) ** 0.5


@torch.no_grad()
def test_a_hashed_vector_is_the_sum_of_its_rows() -> None:
    table = HashedTable(23, 5, 2, 3)
    assert table.weight.shape == (5, 3)
    assert set(table.state_dict()) == {"weight", "bias"}
    rows = hash_rows(23, 5, 2)
    items = torch.tensor([[4, 1, 23]])
    expected = torch.stack([table.weight[rows[item - 1]].sum(0) for item in items[0].tolist()])
    for context in (None, torch.ones(1, 3, 3)):
        torch.testing.assert_close(table(items, context)[0], expected)
    assert table(torch.tensor([[0, 1]]), None).isfinite().all()


@torch.no_grad()
def test_items_that_collide_differ_in_their_bias_alone() -> None:
    table = HashedTable(23, 3, 2, 4)
    rows = hash_rows(23, 3, 2).sort(1).values.tolist()
    twin = rows[1:].index(rows[0]) + 2
    scores = table.output().scores(torch.randn(5, 4))
    assert torch.equal(scores[:, 0], scores[:, twin - 1])
    table.bias[0] = 1
    scores = table.output().scores(torch.randn(5, 4))
    torch.testing.assert_close(scores[:, 0], scores[:, twin - 1] + 1)


@settings(max_examples=40)
@given(items=st.integers(1, 60), radices=st.lists(st.integers(2, 6), min_size=1, max_size=3), seed=st.integers(0, 999))
def test_the_factored_scores_equal_an_explicit_table(items: int, radices: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    numbers = torch.randperm(items)
    table = ComposedTable(numbers, radices, 4, contextual=False)
    hidden = torch.randn(3, 4)
    offsets = np.cumsum([0, *table.radices[:-1]])
    with torch.no_grad():
        table.bias.normal_()
        explicit = torch.stack(
            [
                sum((table.weight[o + d] for o, d in zip(offsets, digits, strict=True)), torch.zeros(4))
                for digits in modulo_digits(numbers, table.radices).tolist()
            ]
        )
        torch.testing.assert_close(table.output().scores(hidden), hidden @ explicit.T + table.bias)


@settings(max_examples=40)
@given(items=st.integers(1, 60), rows=st.integers(1, 9), hashes=st.integers(1, 4), seed=st.integers(0, 999))
def test_the_hashed_scores_equal_an_explicit_table(items: int, rows: int, hashes: int, seed: int) -> None:
    torch.manual_seed(seed)
    table = HashedTable(items, rows, hashes, 4)
    hidden = torch.randn(3, 4)
    with torch.no_grad():
        table.bias.normal_()
        explicit = table(torch.arange(1, items + 1)[None], None)[0]
        torch.testing.assert_close(table.output().scores(hidden), hidden @ explicit.T + table.bias)


def every_table() -> list[FullTable | HashedTable | ComposedTable]:
    torch.manual_seed(5)
    return [FullTable(23, 4), HashedTable(23, 6, 3, 4), ComposedTable(torch.randperm(23), (3, 4), 4, contextual=True)]


@pytest.mark.parametrize("table", every_table(), ids=lambda table: type(table).__name__)
@torch.no_grad()
def test_some_scores_are_those_of_all(table: FullTable | HashedTable | ComposedTable) -> None:
    table.bias.normal_()
    hidden = torch.randn(3, 4)
    output = table.output()
    scores = output.scores(hidden)
    items = torch.tensor([[23, 1], [7, 7], [2, 22]])
    torch.testing.assert_close(output.scores_of(hidden, items), scores.gather(1, items - 1))
    torch.testing.assert_close(output.only(torch.tensor([9, 1, 23])).scores(hidden), scores[:, [8, 0, 22]])


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
