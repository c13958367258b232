"""What a teacher's word adds to the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lsan.models.item_tables import OutputFactors
from lsan.training.distillation import Teaching, teachers_loss
from lsan.training.losses import full_cross_entropy


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_target_is_mixed_of_the_item_that_came_next_and_the_teachers_items(weight: float) -> None:
    torch.manual_seed(0)
    items, hidden = 9, torch.randn(6, 4, dtype=torch.float64)
    output = OutputFactors(
        weight=torch.randn(items, 4, dtype=torch.float64), codes=None, bias=torch.randn(items, dtype=torch.float64)
    )
    targets = torch.randint(1, items + 1, (6,))
    best = torch.stack([torch.randperm(items)[:3] + 1 for _ in range(6)])
    shares = torch.rand(6, 3, dtype=torch.float64).softmax(1)
    mixed = (1 - weight) * F.one_hot(targets - 1, items) + weight * torch.zeros(6, items).double().scatter(
        1, best - 1, shares
    )
    expected = F.cross_entropy(output.scores(hidden), mixed)
    found = full_cross_entropy(hidden, output, targets) + weight * teachers_loss(hidden, output, targets, best, shares)
    torch.testing.assert_close(found, expected)


def test_a_word_is_found_by_its_event(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", np.arange(12, dtype=np.int32).reshape(4, 3))
    np.save(tmp_path / "shares.npy", np.full((4, 3), 0.25, dtype=np.float16))
    items, shares = Teaching.open(tmp_path).of(np.array([2, 0]))
    assert items.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert items.dtype == torch.int64
    assert shares.tolist() == [[0.25] * 3] * 2
