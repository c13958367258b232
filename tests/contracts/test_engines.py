"""What every engine must satisfy: for every network of every precision it answers as PyTorch does."""

import importlib.util
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lsan.config import ModelConfig
from lsan.errors import ConfigError
from lsan.export.bundle import Bundle, make_bundle
from lsan.export.program import program_of
from lsan.models.network import Network
from lsan.runtime.engine import Engine, make_engine
from lsan.runtime.file import BundleFile
from lsan.runtime.verify import verify_bundle
from small_networks import (
    ASKED,
    HOUR,
    ITEMS,
    NETWORKS,
    NOT_OFFERED,
    PRECISIONS,
    ROWS,
    histories_of,
    name_of,
    network_of,
    settled_run,
)

ENGINES = ("numpy", "native")


def has_native() -> bool:
    return importlib.util.find_spec("lsan.runtime._native.engine") is not None


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def engine_of(bundle: Bundle, kind: str) -> Engine:
    if kind == "native" and not has_native():
        assert shutil.which("cc") is None, "there is a C compiler, but the native engine was not built"
        pytest.skip("no C compiler, no native engine")
    return make_engine(bundle.content, BundleFile.parse(bundle.content), native=kind == "native")


CASES = [(config, precision) for config in NETWORKS for precision in PRECISIONS]


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("config", "precision"), CASES, ids=lambda p: name_of(p) if isinstance(p, ModelConfig) else f"{p and p.table} bits"
)
def test_scores_are_the_networks(config: ModelConfig, precision: Any, kind: str) -> None:
    run = settled_run(config, precision)
    bundle = make_bundle(run)
    engine = engine_of(bundle, kind)
    assert verify_bundle(BundleFile.parse(bundle.content), engine) < 1e-5
    place = np.argsort(bundle.order)
    for row in [*ROWS, []]:
        expected = run.network.scores(histories_of(row or [0]))[0].numpy()
        items = (place[np.array(row, dtype=np.int64)[-config.history :] - 1] + 1).astype(np.int32)
        times = np.array(row, dtype=np.int64)[-config.history :] * 31 * HOUR
        found = engine.scores(items, times if engine.timed else None, ASKED)[place]
        assert np.abs(found - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max()), (row, found, expected)


@pytest.mark.parametrize("precision", PRECISIONS[1:], ids=lambda precision: f"{precision.table} bits")
@pytest.mark.parametrize("config", NETWORKS, ids=name_of)
def test_whole_numbers_give_nearly_the_same_scores(config: ModelConfig, precision: Any) -> None:
    run = settled_run(config, precision)
    linear = [operation for operation in program_of(run.network).operations if operation["op"] == "linear"]
    if all(operation["transposed"] for operation in linear):
        with pytest.raises(ConfigError, match="quantised"):
            make_bundle(run, arithmetic="int8")
        return
    exact, bundle = make_bundle(run), make_bundle(run, arithmetic="int8")
    engines = [engine_of(exact, "numpy"), *(engine_of(bundle, kind) for kind in ENGINES)]
    for row in ROWS:
        items, times = np.array(row, dtype=np.int32), np.array(row, dtype=np.int64) * 31 * HOUR
        whole, rounded, native = (engine.scores(items, times if engine.timed else None, ASKED) for engine in engines)
        largest = max(1.0, float(np.abs(whole).max()))
        assert 0 < np.abs(rounded - whole).max() <= 0.1 * largest
        assert np.abs(native - rounded).max() <= 0.02 * largest  # a number between two steps may go either way


def test_whole_numbers_need_quantised_matrices() -> None:
    with pytest.raises(ConfigError, match="quantised"):
        make_bundle(settled_run(NETWORKS[0], None), arithmetic="int8")


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("config", NETWORKS, ids=name_of)
def test_a_session_equals_the_whole_history(config: ModelConfig, kind: str) -> None:
    bundle = make_bundle(settled_run(config, None))
    engine = engine_of(bundle, kind)
    offered = [index + 1 for index, item in enumerate(bundle.order.tolist()) if item != NOT_OFFERED]
    session = engine.session()
    random = np.random.default_rng(3)
    items: list[int] = []
    times: list[int] = []
    for step in range(2 * config.history + 3):  # past the window too
        items.append(int(random.choice(offered)))
        times.append((1000 + 31 * step) * HOUR if step % 4 else -1)
        session.append(items[-1], times[-1])
        if step % 3 == 1:  # several events at once as well
            continue
        for asked in (-1, (1000 + 31 * step) * HOUR + 7_654_321):
            best, scores = session.recommend(asked, 7)
            whole = np.array(items, dtype=np.int32), np.array(times, dtype=np.int64)
            same, values = engine.recommend(whole[0], whole[1] if engine.timed else None, asked, 7)
            assert np.abs(scores - values).max() <= 1e-5 * max(1.0, np.abs(values).max())
            assert best.tolist() == same.tolist()


@pytest.mark.parametrize("kind", ENGINES)
def test_items_that_are_not_offered_are_not_read(kind: str) -> None:
    for config in (NETWORKS[0], NETWORKS[-1]):
        bundle = make_bundle(settled_run(config, None))
        engine = engine_of(bundle, kind)
        gone = bundle.order.tolist().index(NOT_OFFERED) + 1
        others = [item for item in range(1, ITEMS + 1) if item != gone][:3]
        with_it = np.array([gone, others[0], gone, others[1], others[2], gone], dtype=np.int32)
        times = np.arange(6) * HOUR
        kept = with_it != gone
        found = engine.scores(with_it, times if engine.timed else None, ASKED)
        expected = engine.scores(with_it[kept], times[kept] if engine.timed else None, ASKED)
        assert np.array_equal(found, expected)
        assert gone not in engine.recommend(with_it[kept], times[kept] if engine.timed else None, ASKED, ITEMS)[0]


def test_the_same_run_gives_the_same_bytes() -> None:
    for config in NETWORKS[:4]:
        assert make_bundle(settled_run(config, None)).content == make_bundle(settled_run(config, None)).content
        assert isinstance(network_of(config), Network)
