"""The blocked cross-entropy is exactly that of the explicit scores; sampled losses follow their formulas."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lsan.config import (
    BinaryCrossEntropyConfig,
    BprConfig,
    CrossEntropyConfig,
    GbceConfig,
    LossConfig,
    SampledSoftmaxConfig,
)
from lsan.models.item_tables import Codes, OutputFactors
from lsan.training import losses
from lsan.training.losses import (
    bayesian_personalised_ranking,
    binary_cross_entropy,
    full_cross_entropy,
    generalised_bce,
    make_loss,
    native_precision,
    sampled_softmax,
)

SAMPLED: list[LossConfig] = [
    SampledSoftmaxConfig(negatives=20),
    GbceConfig(negatives=20),
    BinaryCrossEntropyConfig(negatives=3),
    BprConfig(negatives=3),
]


def problem(
    *,
    items: int = 11,
    width: int = 3,
    positions: int = 70,
    tables: int = 0,
    scale: float = 1.0,
    bias_scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, OutputFactors, Tensor]:
    """Random hidden vectors, output factors and targets. `tables` rows an item; 0 for one of its own."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    codes, rows = None, items
    if tables > 0:
        rows = items // 2 + 2
        codes = Codes(torch.randint(0, rows, (items, tables), generator=generator), rows)
    weight, bias = normal(rows, width) * scale, normal(items) * bias_scale
    output = OutputFactors(weight=weight.to(dtype).requires_grad_(), codes=codes, bias=bias.to(dtype).requires_grad_())
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    return normal(positions, width).to(dtype).requires_grad_(), output, targets


def with_gradients(loss: Tensor, hidden: Tensor, output: OutputFactors, factor: float = 1.0) -> list[Tensor]:
    """The loss and its derivatives by hidden vectors, weight and bias, the latter times `factor`."""
    return [loss, *torch.autograd.grad(factor * loss, [hidden, output.weight, output.bias])]


def copied(hidden: Tensor, output: OutputFactors, dtype: torch.dtype) -> tuple[Tensor, OutputFactors]:
    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).requires_grad_()

    return copy(hidden), OutputFactors(weight=copy(output.weight), codes=output.codes, bias=copy(output.bias))


def relative_errors(values: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    return [((x - y).norm() / y.norm()).item() for x, y in zip(values, expected, strict=True)]


@settings(max_examples=60)
@given(
    shape=st.fixed_dictionaries(
        {
            "items": st.integers(1, 40),
            "width": st.integers(1, 5),
            "positions": st.integers(1, 30),
            "tables": st.integers(0, 3),
            "scale": st.sampled_from([0.0, 0.1, 3.0, 100.0]),
            "bias_scale": st.sampled_from([0.0, 1.0, 50.0, 1000.0]),
            "seed": st.integers(0, 99),
        }
    ),
    positions_in_block=st.integers(1, 40),
    label_smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    temperature=st.sampled_from([1.0, 0.2, 5.0]),
)
def test_it_equals_torch_on_explicit_scores(
    shape: dict[str, Any], positions_in_block: int, label_smoothing: float, temperature: float
) -> None:
    hidden, output, targets = problem(**shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses._BLOCK, ("cpu", False), positions_in_block * shape["items"])
        patch.setattr(losses, "_POSITIONS", 1)
        patch.setattr(losses, "_MULTIPLE", 1)
        loss = full_cross_entropy(hidden, output, targets, label_smoothing=label_smoothing, temperature=temperature)
        values = with_gradients(loss, hidden, output, factor=3)
    reference = F.cross_entropy(output.scores(hidden) / temperature, targets - 1, label_smoothing=label_smoothing)
    torch.testing.assert_close(values, with_gradients(reference, hidden, output, factor=3), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tables", [0, 2])
@pytest.mark.parametrize("bias_scale", [1.0, 100.0])
def test_gradcheck(tables: int, bias_scale: float) -> None:
    hidden, output, targets = problem(positions=9, tables=tables, bias_scale=bias_scale)

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


@pytest.mark.parametrize("tables", [0, 2])
@pytest.mark.parametrize(
    ("scale", "bias_scale", "precision"),
    [
        (1.0, 1.0, torch.float32),
        (1.0, 15.0, torch.float32),
        (1.0, 50.0, torch.bfloat16),
        (6.0, 1.0, torch.bfloat16),
        (3000.0, 50.0, torch.bfloat16),
    ],
)
def test_scores_and_biases_of_any_size(tables: int, scale: float, bias_scale: float, precision: torch.dtype) -> None:
    """Scores of up to 20, with biases in ranges of 100 and 400, of up to 100, and of up to 30,000: all but the first
    are out of reach for bfloat16, and computed in float32."""
    hidden, output, targets = problem(
        items=3000, width=8, positions=300, tables=tables, scale=scale, bias_scale=bias_scale, dtype=torch.float32
    )
    exact_hidden, exact_output = copied(hidden, output, torch.float64)
    expected = F.cross_entropy(exact_output.scores(exact_hidden), targets - 1)
    errors = relative_errors(
        with_gradients(full_cross_entropy(hidden, output, targets, precision=precision), hidden, output),
        with_gradients(expected, exact_hidden, exact_output),
    )
    assert max(errors) < 5e-6 * max(1, scale)  # a score s has an error of s * 2**-24, and so has its exponential


def test_a_bias_that_outweighs_the_product() -> None:
    """Scores -50 + 0 and 50 - 100."""
    output = OutputFactors(weight=torch.tensor([[-50.0], [50.0]]), codes=None, bias=torch.tensor([0.0, -100.0]))
    hidden = torch.ones(1, 1, requires_grad=True)
    loss = full_cross_entropy(hidden, output, torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert torch.autograd.grad(loss, hidden)[0].item() == pytest.approx(50)


def test_large_scores_do_not_overflow() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    output = OutputFactors(weight=weight, codes=None, bias=torch.zeros(3))
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = full_cross_entropy(hidden, output, torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(1e4)  # nothing for the first, 2e4 for the second
    for gradient in torch.autograd.grad(loss, [hidden, weight]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_number_shows_in_the_loss(value: float) -> None:
    hidden, output, targets = problem()
    with torch.no_grad():
        hidden[3, 1] = value
    assert not full_cross_entropy(hidden, output, targets).isfinite()


@pytest.mark.parametrize("tables", [0, 2])
def test_bfloat16_is_close(tables: int) -> None:
    hidden, output, targets = problem(
        items=3000, width=32, positions=2000, tables=tables, scale=0.3, dtype=torch.float32
    )
    exact_hidden, exact_output = copied(hidden, output, torch.float64)
    expected = with_gradients(full_cross_entropy(exact_hidden, exact_output, targets), exact_hidden, exact_output)
    loss = full_cross_entropy(hidden, output, targets, precision=torch.bfloat16)
    assert loss.dtype == torch.float32
    of_loss, *of_gradients = relative_errors(with_gradients(loss, hidden, output), expected)
    assert of_loss < 5e-4
    assert 1e-5 < max(of_gradients) < 1e-2


def test_the_gradients_belong_to_no_later_call() -> None:
    """Two losses before one backward pass: each keeps its own gradients."""
    hidden, output, targets = problem(tables=2)
    first = full_cross_entropy(hidden, output, targets)
    full_cross_entropy(hidden + 1, output, targets.flip(0))
    (gradient,) = torch.autograd.grad(first, hidden)
    (expected,) = torch.autograd.grad(F.cross_entropy(output.scores(hidden), targets - 1), hidden)
    torch.testing.assert_close(gradient, expected)


class LargestTensor(TorchDispatchMode):
    """Counts the numbers of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tables", [0, 2])
@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_scores_are_never_held_as_a_whole(
    precision: torch.dtype, tables: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, positions = 2000, 1000
    for kind in (False, True):
        monkeypatch.setitem(losses._BLOCK, ("cpu", kind), 100 * items)
    hidden, output, targets = problem(
        items=items, width=4, positions=positions, tables=tables, scale=scale, dtype=torch.float32
    )
    with LargestTensor() as largest:
        full_cross_entropy(hidden, output, targets, label_smoothing=0.1, precision=precision).backward()
    assert largest.numbers == 128 * items  # 100 positions, up to the next multiple of 32


def test_blocks_of_a_huge_catalogue_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses._BLOCK, ("cpu", False), 100)
    monkeypatch.setattr(losses, "_LIMIT", 3 * 500)
    hidden, output, targets = problem(items=500, width=2)
    with LargestTensor() as largest:
        full_cross_entropy(hidden, output, targets).backward()
    assert largest.numbers == 3 * 500


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "amd", "expected"),
    [
        (True, True, False, torch.bfloat16),
        (False, True, True, torch.bfloat16),
        (False, True, False, torch.float32),
        (False, False, True, torch.float32),
    ],
)
def test_native_precision(
    amx: bool, avx512_bf16: bool, amd: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(losses, "_is_amd", lambda: amd)
    assert native_precision("auto", cpu) == expected
    assert native_precision("float32", cpu) == torch.float32
    assert native_precision("bfloat16", cpu) == torch.bfloat16


def test_native_precision_when_pytorch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert native_precision("auto", torch.device("cpu")) == torch.float32


@settings(max_examples=30)
@given(items=st.integers(1, 20), tables=st.integers(0, 3), chosen=st.integers(1, 5), seed=st.integers(0, 99))
def test_scores_of_chosen_items_are_those_of_all(items: int, tables: int, chosen: int, seed: int) -> None:
    hidden, output, _ = problem(items=items, positions=4, tables=tables, seed=seed)
    every = output.scores(hidden)
    own = torch.randint(1, items + 1, (4, chosen))
    torch.testing.assert_close(output.scores_of(hidden, own), every.gather(1, own - 1))
    torch.testing.assert_close(output.only(own[0]).scores(hidden), every[:, own[0] - 1])


@pytest.mark.parametrize("tables", [0, 2])
@pytest.mark.parametrize("bias_scale", [1.0, 100.0])
def test_sampled_softmax_over_every_item_once_is_the_full_loss(tables: int, bias_scale: float) -> None:
    hidden, output, targets = problem(tables=tables, bias_scale=bias_scale)
    negatives = torch.randperm(11) + 1
    loss = sampled_softmax(hidden, output, targets, negatives, torch.zeros(11, dtype=torch.float64))
    full = F.cross_entropy(output.scores(hidden), targets - 1)
    torch.testing.assert_close(with_gradients(loss, hidden, output), with_gradients(full, hidden, output))


def test_sampled_softmax_converges_to_the_full_loss() -> None:
    """Whatever the draws are proportional to: the error falls with the root of their number."""
    hidden, output, targets = problem(items=50, positions=20)
    full = with_gradients(F.cross_entropy(output.scores(hidden), targets - 1), hidden, output)
    popularity = torch.arange(50) ** 2
    for negatives, tolerance in ((1_000, 0.3), (100_000, 0.03)):
        torch.manual_seed(0)
        loss_of = make_loss(SampledSoftmaxConfig(negatives=negatives), popularity, torch.float32)
        values = with_gradients(loss_of(hidden, output, targets), hidden, output)
        errors = relative_errors(values, full)
        assert max(errors) < tolerance
        assert errors[0] < tolerance / 5


@pytest.mark.parametrize("kind", ["sampled-softmax", "gbce"])
def test_shared_negatives_follow_their_distribution(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[Tensor] = []

    def record(*arguments: Any, **_: Any) -> Tensor:
        draws.extend(arguments[3:])
        return torch.zeros(())

    monkeypatch.setattr(losses, "sampled_softmax", record)
    monkeypatch.setattr(losses, "generalised_bce", record)
    popularity = torch.tensor([0, 15, 80])
    sampled = kind == "sampled-softmax"
    config = SampledSoftmaxConfig(negatives=36_000) if sampled else GbceConfig(negatives=36_000)
    torch.manual_seed(0)
    make_loss(config, popularity, torch.float32)(*problem(items=3))
    expected = torch.tensor([1000.0, 8000.0, 27_000.0] if sampled else [12_000.0] * 3)  # (count + 1) ** 0.75
    assert draws[0].bincount().tolist() == pytest.approx([0, *expected.tolist()], rel=0.1)
    if sampled:
        torch.testing.assert_close(draws[1].exp(), expected[draws[0] - 1])


def test_sampled_softmax_by_hand() -> None:
    """Scores ln 1, ln 2, ln 3; negatives 2, 3, 3 with expected numbers 1/2, 3, 3."""
    bias = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).log()
    output = OutputFactors(weight=torch.zeros(3, 1, dtype=torch.float64), codes=None, bias=bias)
    hidden = torch.zeros(3, 1, dtype=torch.float64)
    negatives, expected = torch.tensor([2, 3, 3]), torch.tensor([0.5, 3.0, 3.0], dtype=torch.float64)
    sums = [1 + 4 + 1 + 1, 2 + 1 + 1, 3 + 4]  # the target of the second and third is drawn too
    loss = sampled_softmax(hidden, output, torch.tensor([1, 2, 3]), negatives, expected.log())
    assert loss.item() == pytest.approx(sum(math.log(s / v) for v, s in enumerate(sums, start=1)) / 3)


def test_negatives_that_are_all_the_target_cost_nothing() -> None:
    hidden, output, _ = problem(positions=2)
    negatives = torch.tensor([4, 4, 4])
    loss = sampled_softmax(hidden, output, torch.tensor([4, 4]), negatives, torch.zeros(3, dtype=torch.float64))
    values = with_gradients(loss, hidden, output)
    torch.testing.assert_close(values, [torch.zeros_like(value) for value in values])


def test_a_target_far_above_all_negatives() -> None:
    output = OutputFactors(weight=torch.zeros(2, 1), codes=None, bias=torch.tensor([200.0, 0.0], requires_grad=True))
    loss = sampled_softmax(torch.ones(1, 1), output, torch.tensor([1]), torch.tensor([2]), torch.zeros(1))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, output.bias)[0].tolist() == [0, 0]


def test_sampled_softmax_in_bfloat16_is_close() -> None:
    hidden, output, targets = problem(items=3000, width=32, positions=500, scale=0.3, dtype=torch.float32)
    values = []
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        loss_of = make_loss(SampledSoftmaxConfig(negatives=2000), torch.ones(3000, dtype=torch.int32), precision)
        values.append(with_gradients(loss_of(hidden, output, targets), hidden, output))
    assert 1e-5 < max(relative_errors(values[1], values[0])) < 1e-2


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


#: Scores of the items 1, 2, 3 of `scored`.
SCORES = [0.5, -1.0, 2.0]


def scored() -> tuple[Tensor, OutputFactors]:
    """Two positions at which the items have the scores `SCORES`."""
    weight = torch.tensor(SCORES)[:, None] - torch.tensor([[0.25]])
    return torch.ones(2, 1), OutputFactors(weight=weight, codes=None, bias=torch.full((3,), 0.25))


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_by_hand(calibration: float) -> None:
    """Two negatives of the two items that are not the target: the sampling rate is 1 and so is beta, whatever t."""
    hidden, output = scored()
    loss = generalised_bce(hidden, output, torch.tensor([1, 3]), torch.tensor([2, 3]), calibration=calibration)
    first = -(math.log(sigmoid(0.5)) + math.log(1 - sigmoid(-1.0)) + math.log(1 - sigmoid(2.0))) / 3
    second = -(math.log(sigmoid(2.0)) + math.log(1 - sigmoid(-1.0))) / 3  # the target, item 3, is drawn too
    assert loss.item() == pytest.approx((first + second) / 2)


@given(calibration=st.floats(0, 1), items=st.integers(3, 50), count=st.integers(1, 40))
def test_gbce_is_the_formula_of_the_paper(calibration: float, items: int, count: int) -> None:
    hidden, output, targets = problem(items=items, positions=5)
    negatives = torch.randint(1, items + 1, (count,))
    alpha = min(1.0, count / (items - 1))
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    scores = output.scores(hidden)
    total = 0.0
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        total -= beta * math.log(sigmoid(row[target - 1]))
        total -= sum(math.log(1 - sigmoid(row[item - 1])) for item in negatives.tolist() if item != target)
    loss = generalised_bce(hidden, output, targets, negatives, calibration=calibration)
    assert loss.item() == pytest.approx(total / 5 / (count + 1))


def test_gbce_without_calibration_is_binary_cross_entropy() -> None:
    hidden, output, _ = problem(positions=6)
    targets, negatives = torch.tensor([1, 2, 3] * 2), torch.tensor([7, 8, 8, 11])
    plain = binary_cross_entropy(hidden, output, targets, negatives.expand(6, 4))
    loss = generalised_bce(hidden, output, targets, negatives, calibration=0)
    torch.testing.assert_close(5 * loss, plain)
    assert generalised_bce(hidden, output, targets, negatives, calibration=1) < loss


def test_binary_cross_entropy_by_hand() -> None:
    hidden, output = scored()
    loss = binary_cross_entropy(hidden, output, torch.tensor([1, 3]), torch.tensor([[2, 3], [1, 1]]))
    first = -math.log(sigmoid(0.5)) - math.log(1 - sigmoid(-1.0)) - math.log(1 - sigmoid(2.0))
    second = -math.log(sigmoid(2.0)) - 2 * math.log(1 - sigmoid(0.5))
    assert loss.item() == pytest.approx((first + second) / 2)


def test_bayesian_personalised_ranking_by_hand() -> None:
    hidden, output = scored()
    loss = bayesian_personalised_ranking(hidden, output, torch.tensor([1, 3]), torch.tensor([[2, 3], [1, 1]]))
    pairs = [0.5 + 1, 0.5 - 2, 2 - 0.5, 2 - 0.5]
    assert loss.item() == pytest.approx(-sum(math.log(sigmoid(pair)) for pair in pairs) / 4)


@pytest.mark.parametrize("config", SAMPLED)
@pytest.mark.parametrize("tables", [0, 2])
def test_sampled_losses_follow_the_seed_and_give_right_gradients(config: LossConfig, tables: int) -> None:
    hidden, output, targets = problem(positions=7, tables=tables)
    loss_of = make_loss(config, torch.arange(11), torch.float32)

    def seeded(hidden: Tensor, weight: Tensor, bias: Tensor, seed: int = 1) -> Tensor:
        torch.manual_seed(seed)
        return loss_of(hidden, OutputFactors(weight=weight, codes=output.codes, bias=bias), targets)

    inputs = (hidden, output.weight, output.bias)
    assert seeded(*inputs).equal(seeded(*inputs))
    assert not seeded(*inputs).equal(seeded(*inputs, seed=2))
    assert torch.autograd.gradcheck(seeded, inputs)


@pytest.mark.parametrize("config", [BinaryCrossEntropyConfig(negatives=1000), BprConfig(negatives=1000)])
def test_own_negatives_are_uniform_and_never_the_target(config: LossConfig) -> None:
    """The target's huge score costs nothing; the other four share the draws, so one's score of 100 costs 25."""
    hidden = torch.ones(5, 1)
    output = OutputFactors(weight=torch.zeros(5, 1), codes=None, bias=torch.tensor([0.0, 0.0, 100.0, 0.0, 0.0]))
    torch.manual_seed(0)
    loss_of = make_loss(config, torch.ones(5, dtype=torch.int32), torch.float32)
    scale = 1000 if isinstance(config, BinaryCrossEntropyConfig) else 1
    assert loss_of(hidden, output, torch.full((5,), 3)).item() < scale
    assert loss_of(hidden, output, torch.tensor([1, 2, 4, 5, 1])).item() / scale == pytest.approx(25, rel=0.1)


def test_make_loss_passes_the_settings_of_the_cross_entropy() -> None:
    hidden, output, targets = problem()
    config = CrossEntropyConfig(label_smoothing=0.2, temperature=0.5)
    loss = make_loss(config, torch.arange(11), torch.float32)(hidden, output, targets)
    reference = F.cross_entropy(output.scores(hidden) / 0.5, targets - 1, label_smoothing=0.2)
    torch.testing.assert_close(loss, reference)


@pytest.mark.parametrize("slices", [2, 4])
@pytest.mark.parametrize("positions_in_block", [1, 7, 100])
def test_over_product_codes_it_equals_torch_on_explicit_scores(slices: int, positions_in_block: int) -> None:
    """Each table scores its own slice of the hidden vectors."""
    generator = torch.Generator().manual_seed(0)
    rows, items, width = 5, 40, 8
    chosen = torch.randint(0, rows, (items, slices), generator=generator)
    codes = Codes(chosen + torch.arange(slices) * rows, slices * rows)
    weight = torch.randn(slices * rows, width // slices, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(items, generator=generator, dtype=torch.float64).requires_grad_()
    hidden = torch.randn(30, width, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(1, items + 1, (30,), generator=generator)
    output = OutputFactors(weight=weight, codes=codes, bias=bias, slices=slices)
    vectors = torch.cat([weight[n * rows : (n + 1) * rows][chosen[:, n]] for n in range(slices)], dim=1)
    reference = F.cross_entropy(hidden @ vectors.T + bias, targets - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses._BLOCK, ("cpu", False), positions_in_block * items)
        patch.setattr(losses, "_POSITIONS", 1)
        patch.setattr(losses, "_MULTIPLE", 1)
        values = with_gradients(full_cross_entropy(hidden, output, targets), hidden, output)
    torch.testing.assert_close(values, with_gradients(reference, hidden, output), rtol=1e-6, atol=1e-9)
    rounded = full_cross_entropy(hidden.float(), replace(output, weight=weight.float(), bias=bias.float()), targets,
                                 precision=torch.bfloat16)  # fmt: skip
    assert float(rounded.detach()) == pytest.approx(float(reference.detach()), rel=0.01)
