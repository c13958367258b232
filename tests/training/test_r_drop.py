"""R-Drop's loss is that of the explicit softmaxes; a training with it computes every example twice."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lsan.config import ModelConfig, Recipe, Regime, TrainingConfig, TwinTransformerConfig, recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.experiment import Observer, start_run
from lsan.models.item_tables import Codes, OutputFactors
from lsan.runs import METRICS
from lsan.training import loop, losses
from lsan.training.losses import full_cross_entropy

CPU = torch.device("cpu")

Problem = tuple[Tensor, OutputFactors, Tensor]


def problem(*, items: int, pairs: int, tables: int, slices: int, seed: int, scale: float = 1.0) -> Problem:
    """Hidden vectors, those of all pairs' first positions and then of their second ones, output factors and targets, in
    float64. `tables` rows an item, 0 for one of its own; as many `slices` of the width, or 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    width, rows, codes = 4, 5, None
    if tables:
        chosen = torch.randint(0, rows, (items, tables), generator=generator) + rows * torch.arange(tables)
        codes = Codes(chosen, rows * tables)
    weight = normal(rows * tables if tables else items, width // slices)
    output = OutputFactors(weight=weight, codes=codes, bias=normal(items), slices=slices)
    targets = torch.randint(1, items + 1, (pairs,), generator=generator)
    return normal(2 * pairs, width), output, torch.cat([targets, targets])


def explicit(hidden: Tensor, output: OutputFactors, targets: Tensor, weight: float) -> Tensor:
    """Half of `-log p(y) - log q(y) + weight / 2 (KL(p, q) + KL(q, p))` (Liang et al., equation 4), the mean over
    pairs."""
    scores = output.scores(hidden).log_softmax(1)
    p, q = scores.chunk(2)
    divergences = (p.exp() * (p - q)).sum(1) + (q.exp() * (q - p)).sum(1)
    return -scores.gather(1, targets[:, None] - 1).mean() + weight / 4 * divergences.mean()


def with_gradients(loss: Tensor, hidden: Tensor, output: OutputFactors) -> Sequence[Tensor]:
    return [loss, *torch.autograd.grad(3 * loss, [hidden, output.weight, output.bias])]


def in_float32(hidden: Tensor, output: OutputFactors) -> tuple[Tensor, OutputFactors]:
    weight, bias = (x.detach().float().requires_grad_() for x in (output.weight, output.bias))
    return hidden.detach().float().requires_grad_(), replace(output, weight=weight, bias=bias)


@settings(max_examples=100)
@given(
    items=st.integers(1, 30),
    pairs=st.integers(1, 20),
    table=st.sampled_from([(0, 1), (1, 1), (3, 1), (2, 2), (4, 4)]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    weight=st.sampled_from([0.3, 1.0, 7.0]),
    seed=st.integers(0, 99),
    pairs_in_block=st.integers(1, 25),
)
def test_it_equals_explicit_softmaxes(
    items: int, pairs: int, table: tuple[int, int], scale: float, weight: float, seed: int, pairs_in_block: int
) -> None:
    """A scale of 10 is beyond what exponentials hold, so that the highest score is taken off before them."""
    hidden, output, targets = problem(
        items=items, pairs=pairs, tables=table[0], slices=table[1], seed=seed, scale=scale
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses._BLOCK, ("cpu", False), 2 * pairs_in_block * items)
        patch.setattr(losses, "_POSITIONS", 1)
        patch.setattr(losses, "_MULTIPLE", 1)
        loss = full_cross_entropy(hidden, output, targets, r_drop=weight)
        values = with_gradients(loss, hidden, output)
    expected = with_gradients(explicit(hidden, output, targets, weight), hidden, output)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-8)


def test_by_hand() -> None:
    """Two items, p = (1/4, 3/4) and q = (1/2, 1/2): KL(p, q) + KL(q, p) = sum (p - q) ln(p / q) = ln(3) / 4."""
    output = OutputFactors(weight=torch.tensor([[0.0], [1.0]]), codes=None, bias=torch.zeros(2))
    hidden, targets = torch.tensor([[math.log(3)], [0.0]]), torch.tensor([1, 1])
    found = full_cross_entropy(hidden, output, targets, r_drop=2.0)
    assert found.item() == pytest.approx((math.log(4) + math.log(2)) / 2 + 2 * math.log(3) / 16)


def test_equal_vectors_are_not_apart() -> None:
    hidden, output, targets = problem(items=50, pairs=8, tables=0, slices=1, seed=0)
    once, output = in_float32(hidden[:8], output)
    for precision, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.01)):
        both = torch.cat([once, once])
        found, without = (
            with_gradients(full_cross_entropy(both, output, targets, r_drop=weight, precision=precision), once, output)
            for weight in (5.0, 0.0)
        )
        assert found[0].item() == pytest.approx(without[0].item(), rel=1e-6)
        for value, right in zip(found, without, strict=True):
            assert (value - right).norm() <= tolerance * right.norm()


@pytest.mark.parametrize(("tables", "slices"), [(0, 1), (3, 1), (4, 4)])
def test_bfloat16_is_close(tables: int, slices: int) -> None:
    hidden, output, targets = problem(items=200, pairs=64, tables=tables, slices=slices, seed=0)
    expected = with_gradients(explicit(hidden, output, targets, 1.0), hidden, output)
    rounded, factors = in_float32(hidden, output)
    loss = full_cross_entropy(rounded, factors, targets, r_drop=1.0, precision=torch.bfloat16)
    for value, right in zip(with_gradients(loss, rounded, factors), expected, strict=True):
        assert (value - right).norm() < 0.02 * right.norm()


@pytest.mark.parametrize(
    ("model", "training", "reason"),
    [
        ({"dropout": 0.0}, {}, "it needs model.dropout"),
        ({"regime": "cloze", "encoder": {"kind": "bert4rec"}}, {}, "r_drop needs the loss cross-entropy"),
        ({}, {"loss": {"kind": "gbce"}}, "r_drop needs the loss cross-entropy"),
        ({}, {"loss": {"kind": "cross-entropy", "temperature": 0.5}}, "r_drop needs the loss cross-entropy"),
    ],
)
def test_what_it_does_not_go_with(model: dict[str, object], training: dict[str, object], reason: str) -> None:
    content = recipe_to(Recipe())
    content["model"] |= model
    content["training"] |= training | {"r_drop": 1.0}
    with pytest.raises(ConfigError, match=reason):
        recipe_from(content, where="test")


def losses_of(recipe: Recipe, shop: Dataset, folder: Path, **training: float) -> list[float]:
    """The training loss of each epoch."""
    content = recipe_to(recipe)
    content["training"] |= training
    start_run(shop, recipe_from(content, where="here"), folder, device=CPU, observer=Observer())
    return [json.loads(line)["loss"] for line in (folder / METRICS).read_text().splitlines()]


def recipe_of(regime: Regime, dropout: float) -> Recipe:
    return Recipe(
        model=ModelConfig(regime=regime, width=8, history=12, dropout=dropout, encoder=TwinTransformerConfig()),
        training=TrainingConfig(batch_size=32, learning_rate=1e-2, epochs=2, precision="float32"),
    )


@pytest.mark.parametrize("positions", [1_000_000, 60])
@pytest.mark.parametrize("regime", ["prefix", "causal"])
def test_every_example_is_computed_twice(
    small_shop: Dataset, tmp_path: Path, regime: Regime, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probability that rounds to no dropout leaves nothing between the two, so a training is as without."""
    monkeypatch.setitem(loop.PIECE, "cpu", positions)
    recipe = recipe_of(regime, 1e-4)
    without = losses_of(recipe, small_shop, tmp_path / "without")
    assert losses_of(recipe, small_shop, tmp_path / "with", r_drop=5.0) == pytest.approx(without, rel=1e-4)


@pytest.mark.parametrize("regime", ["prefix", "causal"])
def test_two_masks_come_together(small_shop: Dataset, tmp_path: Path, regime: Regime) -> None:
    """The loss is that without R-Drop and the divergence times the weight, which is smaller after training with more of
    it."""
    recipe = recipe_of(regime, 0.2)
    start = losses_of(recipe, small_shop, tmp_path / "none", r_drop=1e-9)
    light, heavy = (losses_of(recipe, small_shop, tmp_path / str(weight), r_drop=weight) for weight in (1.0, 20.0))
    assert start[0] < light[0] < heavy[0]
    assert heavy[1] - start[1] < 20 * (light[1] - start[1])
