"""What an ONNX model must satisfy: in one batch with others it answers as PyTorch does for each history alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch

from lsan.config import ModelConfig
from lsan.export.bundle import Bundle, make_bundle
from lsan.export.onnx import make_onnx
from lsan.export.onnx_graph import read_weight
from lsan.export.onnx_session import OnnxScorer
from lsan.export.onnx_settings import Precision
from lsan.models.histories import Histories
from lsan.presets import load_preset, preset_names
from lsan.runs import Run
from lsan.runtime.file import BundleFile, FloatArray
from lsan.runtime.numpy_engine import NumpyEngine
from small_networks import ASKED, ITEMS, NETWORKS, NOT_OFFERED, PRECISIONS, ROWS, histories_of, name_of, settled_run

#: Of all lengths: none, one, up to more than the network reads; with gaps, and with an item that is not offered.
BATCH = [*ROWS, [], [NOT_OFFERED], [3, 0, NOT_OFFERED, 8, 0], list(range(1, 9)) * 2]

#: Each network in one more way.
WAYS: list[dict[str, Any]] = [{"precision": "float16"}, {"precision": "int8"}, {"answer": "tables"}]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def scorer_of(bundle: Bundle, **settings: Any) -> OnnxScorer:
    file = BundleFile.parse(bundle.content)
    made = make_onnx(file, **settings)
    onnx.checker.check_model(made.model, full_check=True)
    return OnnxScorer(made, file, bundle.order)


def shares_off(found: FloatArray, expected: FloatArray) -> float:
    """Largest difference of a score, as a share of the largest of its history."""
    return float((np.abs(found - expected).max(1) / np.abs(expected).max(1)).max())


def expected_scores(run: Run, histories: Histories) -> FloatArray:
    """The network's, for each history alone: without padding, and without what is not offered."""
    scores = []
    for row in range(len(histories.items)):
        kept = ((histories.items[row] > 0) & (histories.items[row] != NOT_OFFERED)).nonzero()[:, 0]
        alone = Histories(
            items=histories.items[row : row + 1, kept], times=histories.times[row : row + 1, kept],
            asked=histories.asked[row : row + 1], users=histories.users[row : row + 1],
        )  # fmt: skip
        scores.append(run.network.scores(alone if len(kept) else histories_of([0]))[0].numpy())
    return np.stack(scores)


@pytest.mark.parametrize("config", NETWORKS, ids=name_of)
def test_each_history_of_a_batch_gives_what_it_gives_alone(
    config: ModelConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    batch = histories_of(*BATCH, left=2)
    for precision in (PRECISIONS[0], PRECISIONS[2]):
        run = settled_run(config, precision)
        scorer = scorer_of(make_bundle(run))
        assert shares_off(scorer.scores(batch).numpy(), expected_scores(run, batch)) < 1e-5, precision
        scorer.best(*scorer.given(batch), ITEMS)  # compares them with the scores
    assert capfd.readouterr().err == ""  # onnxruntime would warn there


@pytest.mark.parametrize(
    ("config", "settings"),
    [(config, WAYS[number % 3]) for number, config in enumerate(NETWORKS)],
    ids=lambda p: name_of(p) if isinstance(p, ModelConfig) else next(iter(p.values())),
)
def test_other_precisions_and_answers(config: ModelConfig, settings: dict[str, Any]) -> None:
    """What has fewer bits computes what a bundle of the rounded numbers computes."""
    bundle = make_bundle(settled_run(config, None))
    file = BundleFile.parse(bundle.content)
    engine = NumpyEngine(rounded(file, settings.get("precision", "float32")))
    scorer = scorer_of(bundle, **settings)
    batch = histories_of(*BATCH)
    items, times, asked = scorer.given(batch)
    expected = [
        engine.scores(row[row > 0], moments[row > 0] if engine.timed else None, int(when) if engine.timed else -1)
        for row, moments, when in zip(items, times, asked, strict=True)
    ]
    assert shares_off(scorer.every(items, times, asked), np.stack(expected)) < 1e-5


def rounded(file: BundleFile, precision: Precision) -> BundleFile:
    """A bundle of floats whose numbers are those of a model of that precision."""
    tensors = dict(file.tensors)
    for name, values in file.tensors.items():
        if values.dtype.kind != "f" or name.startswith("check."):
            continue
        weight = read_weight(file, name, values.ndim, precision)
        decoded: FloatArray = weight.values.astype(np.float32)
        if weight.scales is not None:
            rows = decoded.reshape(len(weight.scales), -1)
            scales = weight.scales[:, None]
            steps = np.abs(rows * scales - values.reshape(rows.shape)) / np.maximum(scales, 1e-30)
            assert steps.max() < 0.501
            decoded = (rows * scales).reshape(values.shape)
        elif precision == "float32":
            assert np.array_equal(decoded, values)
        else:
            assert np.allclose(decoded, values, rtol=2**-11, atol=2**-24)
        tensors[name] = decoded
    return BundleFile(manifest=file.manifest, tensors=tensors, manifest_bytes=file.manifest_bytes)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset(name: str) -> None:
    run = settled_run(msgspec.structs.replace(load_preset(name).model, history=20), None)
    scorer, batch = scorer_of(make_bundle(run)), histories_of(*BATCH)
    assert shares_off(scorer.scores(batch).numpy(), expected_scores(run, batch)) < 1e-4
    scorer.best(*scorer.given(batch), 10)


def test_times_are_read_where_they_are_known() -> None:
    timed = [config for config in NETWORKS if config.time is not None or config.context is not None]
    assert len(timed) > 10
    random = np.random.default_rng(1)
    for config in timed[-10:]:
        run = settled_run(config, None)
        batch = histories_of(*[row for row in BATCH if row])
        gaps = torch.from_numpy(random.integers(0, 2 ** random.integers(1, 45, batch.items.shape)))
        times = torch.where(torch.from_numpy(random.random(batch.items.shape) < 0.8), gaps.cumsum(1), -1)
        last = times.amax(1) + torch.from_numpy(random.integers(0, ASKED, len(times)))
        batch = replace(batch, times=times, asked=torch.where(torch.arange(len(times)) % 3 > 0, last, -1))
        found = scorer_of(make_bundle(run)).scores(batch).numpy()
        assert shares_off(found, expected_scores(run, batch)) < 1e-5, name_of(config)
