"""R-Drop's divergence is that of the explicit softmaxes; a training with it computes every example twice."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from lsan.training import loop, r_drop
from lsan.training.losses import full_cross_entropy
from lsan.training.r_drop import divergence, with_r_drop

CPU = torch.device("cpu")

Problem = tuple[Tensor, Tensor, OutputFactors]


def problem(*, items: int, positions: int, tables: int, slices: int, seed: int, scale: float = 1.0) -> Problem:
    """Two sets of hidden vectors and output factors in float64. `tables` rows an item, 0 for one of its own; as many
    `slices` of the width, or 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    width, rows, codes = 4, 5, None
    if tables:
        chosen = torch.randint(0, rows, (items, tables), generator=generator) + rows * torch.arange(tables)
        codes = Codes(chosen, rows * tables)
    weight = normal(rows * tables if tables else items, width // slices)
    output = OutputFactors(weight=weight, codes=codes, bias=normal(items), slices=slices)
    return normal(positions, width), normal(positions, width), output


def explicit(one: Tensor, other: Tensor, output: OutputFactors) -> Tensor:
    p, q = output.scores(one).log_softmax(1), output.scores(other).log_softmax(1)
    return ((p.exp() * (p - q)).sum(1) + (q.exp() * (q - p)).sum(1)).mean() / 2


def with_gradients(loss: Tensor, one: Tensor, other: Tensor, output: OutputFactors) -> Sequence[Tensor]:
    return [loss, *torch.autograd.grad(3 * loss, [one, other, output.weight, output.bias])]


@settings(max_examples=60)
@given(
    items=st.integers(1, 30),
    positions=st.integers(1, 20),
    table=st.sampled_from([(0, 1), (1, 1), (3, 1), (2, 2), (4, 4)]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 99),
    positions_in_block=st.integers(1, 25),
)
def test_it_equals_explicit_softmaxes(
    items: int, positions: int, table: tuple[int, int], scale: float, seed: int, positions_in_block: int
) -> None:
    given_ = problem(items=items, positions=positions, tables=table[0], slices=table[1], seed=seed, scale=scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(r_drop._BLOCK, "cpu", positions_in_block * items)
        values = with_gradients(divergence(*given_), *given_)
    torch.testing.assert_close(values, with_gradients(explicit(*given_), *given_), rtol=1e-6, atol=1e-8)


def test_by_hand() -> None:
    """Two items, p = (1/4, 3/4) and q = (1/2, 1/2): KL(p, q) + KL(q, p) = sum (p - q) ln(p / q) = ln(3) / 4."""
    output = OutputFactors(weight=torch.tensor([[0.0], [1.0]]), codes=None, bias=torch.zeros(2))
    found = divergence(torch.tensor([[math.log(3)]]), torch.zeros(1, 1), output)
    assert found.item() == pytest.approx(math.log(3) / 8)


def test_equal_vectors_are_not_apart() -> None:
    one, _, output = problem(items=50, positions=8, tables=0, slices=1, seed=0)
    output = OutputFactors(
        weight=output.weight.detach().float().requires_grad_(), codes=None, bias=output.bias.detach().float()
    )
    for precision in (torch.float32, torch.bfloat16):
        hidden = one.detach().float().requires_grad_()
        loss = divergence(hidden, hidden.clone(), output, precision=precision)
        assert loss.item() == 0
        for gradient in torch.autograd.grad(loss, [hidden, output.weight]):
            assert gradient.abs().max() == 0


@pytest.mark.parametrize(("tables", "slices"), [(0, 1), (3, 1), (4, 4)])
def test_bfloat16_is_close(tables: int, slices: int) -> None:
    one, other, output = problem(items=200, positions=64, tables=tables, slices=slices, seed=0)
    expected = with_gradients(explicit(one, other, output), one, other, output)
    first, second = (x.detach().float().requires_grad_() for x in (one, other))
    rounded = OutputFactors(
        weight=output.weight.detach().float().requires_grad_(),
        codes=output.codes,
        bias=output.bias.detach().float().requires_grad_(),
        slices=slices,
    )
    values = with_gradients(divergence(first, second, rounded, precision=torch.bfloat16), first, second, rounded)
    for value, right in zip(values, expected, strict=True):
        assert (value - right).norm() < 0.02 * right.norm()


def test_the_loss_is_half_of_the_papers() -> None:
    """-log p(y) - log q(y) + alpha / 2 (KL(p, q) + KL(q, p)), of Liang et al., of each pair of positions."""
    one, other, output = problem(items=12, positions=6, tables=0, slices=1, seed=1)
    targets = torch.randint(1, 13, (6,), generator=torch.Generator().manual_seed(0))
    loss = with_r_drop(full_cross_entropy, 0.7, torch.float64)(
        torch.cat([one, other]), output, torch.cat([targets, targets])
    )
    twice = sum(-output.scores(x).log_softmax(1).gather(1, targets[:, None] - 1).mean() for x in (one, other))
    torch.testing.assert_close(loss, (twice + 0.7 * explicit(one, other, output)) / 2)


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


def recipe_of(regime: Regime) -> Recipe:
    return Recipe(
        model=ModelConfig(regime=regime, width=8, history=12, dropout=0.2, encoder=TwinTransformerConfig()),
        training=TrainingConfig(batch_size=32, learning_rate=1e-2, epochs=2, precision="float32"),
    )


@pytest.mark.parametrize("positions", [1_000_000, 60])
@pytest.mark.parametrize("regime", ["prefix", "causal"])
def test_every_example_is_computed_twice(
    small_shop: Dataset, tmp_path: Path, regime: Regime, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probability that rounds to no dropout leaves nothing between the two, so a training is as without."""
    monkeypatch.setitem(loop.PIECE, "cpu", positions)
    losses = {}
    for weight in (0.0, 5.0):
        content = recipe_to(recipe_of(regime))
        content["model"]["dropout"] = 1e-4
        content["training"]["r_drop"] = weight
        folder = tmp_path / str(weight)
        start_run(small_shop, recipe_from(content, where="here"), folder, device=CPU, observer=Observer())
        losses[weight] = [json.loads(line)["loss"] for line in (folder / METRICS).read_text().splitlines()]
    assert losses[5.0] == pytest.approx(losses[0.0], rel=1e-4)


def test_it_brings_two_masks_together(small_shop: Dataset, tmp_path: Path) -> None:
    """The larger its weight, the less the two say differently after two epochs."""

    def how_far_apart(weight: float) -> float:
        content, seen = recipe_to(recipe_of("prefix")), []
        content["training"]["r_drop"] = weight

        def noted(one: Tensor, other: Tensor, output: OutputFactors, **options: Any) -> Tensor:
            value = divergence(one, other, output, **options)
            seen.append(value.item())
            return value

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(r_drop, "divergence", noted)
            folder = tmp_path / str(weight)
            start_run(small_shop, recipe_from(content, where="here"), folder, device=CPU, observer=Observer())
        return sum(seen[-10:])

    assert 0 < how_far_apart(20.0) < 0.8 * how_far_apart(1e-6)
