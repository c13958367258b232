"""Dropout by random bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsan.models.dropout import Dropout


@given(st.floats(0.0, 0.95), st.sampled_from([(64, 64), (7, 11, 53), (4001,)]))
def test_share_and_scale(probability: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kept = Dropout(probability)(torch.ones(shape))
    share = round(probability * 256) / 256
    assert set(kept.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - share)).item()}
    assert (kept == 0).float().mean().item() == pytest.approx(share, abs=5 * (0.25 / kept.numel()) ** 0.5)


def test_neighbours_are_independent() -> None:
    """Bytes of one draw share nothing."""
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(100_000)) > 0).float() - 0.5
    for distance in (1, 2, 3, 4, 7, 8, 16):
        assert abs((kept[distance:] * kept[:-distance]).mean().item()) < 0.25 * 5 / 100_000**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_has_the_same_mask(dtype: torch.dtype) -> None:
    x = torch.randn(50, 30).to(dtype).requires_grad_()
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y, x * x.grad)
    assert y.dtype == dtype


def test_nothing_happens_outside_of_training() -> None:
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_everything_is_never_dropped() -> None:
    torch.manual_seed(2)
    assert (Dropout(1.0)(torch.ones(100_000)) > 0).any()
