"""What a teacher's word adds to the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lsan.models.item_tables import Codes, OutputFactors
from lsan.training.distillation import Teaching, teachers_loss
from lsan.training.losses import full_cross_entropy


@pytest.mark.parametrize(("tables", "slices"), [(0, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_target_is_mixed_of_the_item_that_came_next_and_the_teachers_items(
    weight: float, tables: int, slices: int
) -> None:
    torch.manual_seed(0)
    items, rows = 9, 5
    shapes = (6, 4), (rows * tables or items, 4 // slices), (items,)
    hidden, base, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    codes = Codes(torch.randint(rows, (items, tables)) + torch.arange(tables) * rows, len(base)) if tables else None
    output = OutputFactors(weight=base, codes=codes, bias=bias, slices=slices)
    targets = torch.randint(1, items + 1, (6,))
    best = torch.stack([torch.randperm(items)[:3] + 1 for _ in range(6)])
    shares = torch.rand(6, 3, dtype=torch.float64).softmax(1)
    mixed = (1 - weight) * F.one_hot(targets - 1, items) + weight * torch.zeros(6, items).double().scatter(
        1, best - 1, shares
    )
    expected = F.cross_entropy(output.scores(hidden), mixed)
    found = full_cross_entropy(hidden, output, targets) + weight * teachers_loss(hidden, output, targets, best, shares)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, (hidden, base, bias))
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, base, bias)), wanted)


def test_a_word_is_found_by_its_event(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", np.arange(12, dtype=np.int32).reshape(4, 3))
    np.save(tmp_path / "shares.npy", np.full((4, 3), 0.25, dtype=np.float16))
    items, shares = Teaching.open(tmp_path).of(np.array([2, 0]))
    assert items.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert items.dtype == torch.int64
    assert shares.tolist() == [[0.25] * 3] * 2
