"""The temporal context: a sum of three tables, defined for every tuple."""

import torch

from lsan.models.context import HOUR_SLOTS, TemporalContext


def context() -> TemporalContext:
    """Items 1..4 of categories 1, 2, none, 2; every table entry is its own power of ten times its index."""
    layer = TemporalContext(torch.tensor([0, 1, 2, 0, 2], dtype=torch.int32), 1)
    with torch.no_grad():
        layer.previous_category.copy_(torch.arange(4.0)[:, None] * 10000)
        layer.category.copy_(torch.arange(4.0)[:, None] * 1000)
        layer.hour.copy_(torch.arange(25.0)[:, None])
    return layer


@torch.no_grad()
def test_vectors_by_hand() -> None:
    # padding, then items 1, 3 (no category: 3 = C + 1), 2 at hours 5, 24 and unknown
    vectors = context()(torch.tensor([[0, 1, 3, 2]]), torch.tensor([[0, 5, 24, 0]]))
    assert vectors[0, :, 0].tolist() == [0, 1005, 13024, 32000]


@torch.no_grad()
def test_the_first_event_has_no_category_before_it() -> None:
    layer = context()
    items = torch.tensor([[4, 1]])
    padded = torch.tensor([[0, 0, 4, 1]])
    zeros = torch.zeros_like
    assert torch.equal(layer(items, zeros(items)), layer(padded, zeros(padded))[:, 2:])


@torch.no_grad()
def test_tuples_that_training_never_met_add_nothing() -> None:
    layer = TemporalContext(torch.tensor([0, 1, 2, 0], dtype=torch.int32), 3)
    items = torch.tensor([[1, 2, 3, 0]])
    assert not layer(items, torch.tensor([[1, 24, 0, 0]])).any()


def test_data_without_categories_or_hours_is_well_defined() -> None:
    layer = TemporalContext(torch.zeros(4, dtype=torch.int32), 3)
    items = torch.tensor([[0, 1, 2, 3]])
    vectors = layer(items, torch.zeros_like(items))
    assert vectors.shape == (1, 4, 3)
    assert layer.category.shape == (2, 3)  # padding and unknown
    assert layer.hour.shape == (HOUR_SLOTS + 1, 3)


def test_the_callers_array_is_left_alone() -> None:
    categories = torch.tensor([0, 1, 0], dtype=torch.int32)
    TemporalContext(categories, 2)
    assert categories.tolist() == [0, 1, 0]
