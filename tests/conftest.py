"""Fixtures that several tests share, and what holds for all tests: one thread, types and shapes checked."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported, here and in child processes

import hypothesis
import numpy as np
import polars as pl
import pytest
from jaxtyping import install_import_hook

# Before the first import of lsan: types and tensor shapes of these packages' signatures are checked while tests run.
install_import_hook(["lsan.models", "lsan.training", "lsan.evaluation"], "type_checker.check")

from faulty_site import Site, serving  # noqa: E402
from lsan.data.dataset import Dataset, write_dataset  # noqa: E402

hypothesis.settings.register_profile("lsan", deadline=None, derandomize=True)
hypothesis.settings.load_profile("lsan")

#: Makes a dataset of item indices 1..V, one list a user.
MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the project; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LSAN_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} (or name its folder in LSAN_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """A factory of small datasets: histories of item indices, raw item ids 101, 102, ... (index + 100)."""
    folder = tmp_path_factory.mktemp("made")
    number = count()

    def make(
        histories: Sequence[Sequence[int]],
        *,
        items: int | None = None,
        times: Sequence[int] | None = None,
        categories: Sequence[str | None] | None = None,
    ) -> Dataset:
        flat = [item for history in histories for item in history]
        items = max(flat) if items is None else items
        catalogue = {
            "id": list(range(101, 101 + items)),
            "title": [f"title {index}" for index in range(1, items + 1)],
            "category": [None] * items if categories is None else list(categories),
        }
        path = folder / str(next(number))
        write_dataset(
            path,
            offsets=np.cumsum([0, *map(len, histories)], dtype=np.int64),
            items=np.array(flat, dtype=np.int32),
            timestamps=None if times is None else np.array(times, dtype=np.int64),
            catalogue=pl.DataFrame(catalogue, schema_overrides={"category": pl.String}),
            users=pl.DataFrame({"id": [f"user {user}" for user in range(len(histories))]}),
            summary={},
        )
        return Dataset.open(path)

    return make


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The prepared log of a simulated shop of 120 shoppers and 60 items, with hours and categories."""
    from lsan.data.prepare import prepare_dataset
    from lsan.data.simulate import ShopConfig, simulate_shop

    simulation = simulate_shop(ShopConfig(users=120, items=60, mean_events=14, seed=3))
    folder = tmp_path_factory.mktemp("small-shop")
    return prepare_dataset(simulation.interactions, folder / "dataset", items=simulation.items)


@pytest.fixture(scope="session")
def small_run(small_shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the paper's model, all its parts, on `small_shop`. Not to be changed: copy it first."""
    import torch

    from lsan.config import (
        ComposedTableConfig,
        ContextConfig,
        ModelConfig,
        Recipe,
        TrainingConfig,
        TwinAttentionConfig,
    )
    from lsan.experiment import Observer, start_run

    recipe = Recipe(
        description="a small model for tests",
        model=ModelConfig(
            regime="prefix",
            width=8,
            history=12,
            table=ComposedTableConfig(),
            encoder=TwinAttentionConfig(),
            context=ContextConfig(),
        ),
        training=TrainingConfig(batch_size=64, learning_rate=1e-2, epochs=2),
    )
    folder = tmp_path_factory.mktemp("small-run") / "run"
    start_run(small_shop, recipe, folder, device=torch.device("cpu"), observer=Observer())
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two exported files of one catalogue that answer differently. The first reads times; ids are texts, all items but
    one have titles, some have categories."""
    from dataclasses import replace

    from lsan.config import Gru4RecConfig, SasRecConfig, TimeConfig
    from lsan.data.catalogue import Catalogue
    from lsan.export.bundle import make_bundle
    from small_networks import CATALOGUE, ITEMS, TABLES, model_of, run_of

    folder = tmp_path_factory.mktemp("bundles")
    titles = [None if item == 7 else f"Café № {item}" for item in range(1, ITEMS + 1)]
    catalogue = Catalogue(ids=CATALOGUE.ids, titles=titles, categories=CATALOGUE.categories)
    models = [
        model_of(SasRecConfig, "causal", TABLES[0], time=TimeConfig()),
        model_of(Gru4RecConfig, "causal", TABLES[0]),
    ]
    files = [folder / "0.lsan", folder / "1.lsan"]
    for file, model in zip(files, models, strict=True):
        file.write_bytes(make_bundle(replace(run_of(model), catalogue=catalogue)).content)
    return files


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site to fetch from, which misbehaves when it is told to."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as site:
        yield site
