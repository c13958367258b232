"""First item vectors from co-occurrence."""

import numpy as np
import torch
from torch.nn import functional as F

from lsan.models.item_tables.warm_start import DEVIATION, cooccurrence_vectors


def test_items_that_were_near_are_near() -> None:
    """Two groups of items that no user mixes."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 8)
    events = np.where(users % 2 == 0, random.integers(1, 11, 480), random.integers(11, 21, 480))
    torch.manual_seed(0)
    vectors = F.normalize(cooccurrence_vectors(users, events, 20, 6), dim=1)
    likeness = vectors @ vectors.T
    same = (torch.arange(20) < 10)[:, None] == (torch.arange(20) < 10)[None]
    assert likeness[same].mean() > likeness[~same].mean() + 0.2


def test_size_and_scale_and_reproducibility() -> None:
    users, events = np.repeat(np.arange(50), 6), np.random.default_rng(1).integers(1, 31, 300)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(cooccurrence_vectors(users, events, 30, 8))
    assert torch.equal(*drawn)
    assert drawn[0].shape == (30, 8)
    assert abs(drawn[0].std().item() / DEVIATION - 1) < 0.05


def test_nothing_to_learn_from_gives_random_vectors() -> None:
    torch.manual_seed(0)
    vectors = cooccurrence_vectors(np.arange(5), np.arange(1, 6), 5, 4)  # no user has two events
    assert 0.3 * DEVIATION < vectors.std().item() < 3 * DEVIATION


def test_a_table_wider_than_the_catalogue_is_filled_up() -> None:
    torch.manual_seed(0)
    vectors = cooccurrence_vectors(np.repeat(np.arange(20), 5), np.tile(np.arange(1, 6), 20), 5, 16)
    assert vectors.shape == (5, 16)
    assert vectors.isfinite().all()
    assert (vectors[:, 5:].std(0) > 0).all()
