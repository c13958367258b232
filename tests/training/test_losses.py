"""The blocked full-catalogue cross-entropy is exactly that of the explicit logits."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lsan.models.item_tables import OutputFactors
from lsan.models.item_tables.composed import ComposedTable
from lsan.training import losses
from lsan.training.losses import full_cross_entropy

ITEMS, WIDTH, POSITIONS = 11, 3, 70
RADICES: list[tuple[int, ...]] = [(), (2,), (3, 2)]
#: Numbers in a block: the fewest positions that a block may have (32), blocks of 40 and 30 positions, all at once.
BLOCKS = [1, 40 * ITEMS, 1000]


def problem(radices: tuple[int, ...], *, untied: bool) -> tuple[Tensor, OutputFactors, Tensor]:
    generator = torch.Generator().manual_seed(3)
    table = ComposedTable(torch.randperm(ITEMS, generator=generator), radices, WIDTH).double()
    assert len(table.radices) == len(radices) + 1
    output = table.output()
    rows = ITEMS if untied else len(output.weight)
    weight = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(ITEMS, generator=generator, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(POSITIONS, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, ITEMS, 3, 3, 5, 1, 8] * 10)
    return hidden, OutputFactors(weight=weight, codes=None if untied else output.codes, bias=bias), targets


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("radices", RADICES)
def test_it_equals_torch_on_explicit_logits(
    radices: tuple[int, ...], untied: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses._BLOCK, "cpu", block)
    hidden, output, targets = problem(radices, untied=untied)
    inputs = [hidden, output.weight, output.bias]
    loss = full_cross_entropy(hidden, output, targets)
    reference = F.cross_entropy(output.scores(hidden), targets - 1)
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * reference, inputs))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("radices", RADICES)
def test_gradcheck(radices: tuple[int, ...], untied: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses._BLOCK, "cpu", block)
    hidden, output, targets = problem(radices, untied=untied)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return full_cross_entropy(hidden, OutputFactors(weight=weight, codes=output.codes, bias=bias), targets)

    assert torch.autograd.gradcheck(loss, (hidden, output.weight, output.bias))


def test_by_hand() -> None:
    """Two items with scores 0 and ln 3: probabilities 1/4 and 3/4."""
    output = OutputFactors(weight=torch.tensor([[0.0], [1.0]]), codes=None, bias=torch.tensor([0.0, math.log(3) - 2]))
    hidden = torch.tensor([[2.0]], requires_grad=True)
    loss = full_cross_entropy(hidden, output, torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(4))
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert gradient.item() == pytest.approx(0.75)


def test_large_scores_do_not_overflow() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    output = OutputFactors(weight=weight, codes=None, bias=torch.zeros(3))
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = full_cross_entropy(hidden, output, torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(1e4)  # nothing for the first, 2e4 for the second
    for gradient in torch.autograd.grad(loss, [hidden, weight]):
        assert gradient.isfinite().all()


def test_the_gradients_belong_to_no_later_call() -> None:
    """Two losses before one backward pass: each keeps its own gradients."""
    hidden, output, targets = problem((2,), untied=False)
    first = full_cross_entropy(hidden, output, targets)
    full_cross_entropy(hidden + 1, output, targets.flip(0))
    (gradient,) = torch.autograd.grad(first, hidden)
    (expected,) = torch.autograd.grad(F.cross_entropy(output.scores(hidden), targets - 1), hidden)
    torch.testing.assert_close(gradient, expected)
