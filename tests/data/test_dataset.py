"""The dataset folder: what is written comes back, and damage is told apart from data."""

import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsan.data.dataset import Dataset, write_dataset
from lsan.errors import DataError

ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6, unique=True),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6, unique=True),
)


def write(
    path: Path,
    *,
    item_ids: list[int] | list[str] | None = None,
    user_ids: list[int] | list[str] | None = None,
    titles: list[str | None] | None = None,
    times: bool = True,
) -> Dataset:
    """A dataset of two users with two events and one."""
    item_ids = item_ids or ["a", "b"]
    user_ids = user_ids or [1, 2]
    catalogue = pl.DataFrame(
        {
            "id": pl.Series(item_ids),
            "title": pl.Series(titles or [None] * len(item_ids), dtype=pl.String),
            "category": pl.Series([None] * len(item_ids), dtype=pl.String),
        }
    )
    write_dataset(
        path,
        offsets=np.array([0, *range(1, len(user_ids)), 3], dtype=np.int64),
        items=np.array([1, 1, 1], dtype=np.int32),
        timestamps=np.array([1, 2, 3], dtype=np.int64) if times else None,
        catalogue=catalogue,
        users=pl.DataFrame({"id": pl.Series(user_ids)}),
        summary={"source": "a test"},
    )
    return Dataset.open(path)


@settings(max_examples=20, deadline=None)
@given(item_ids=ids, user_ids=ids.filter(lambda ids: len(ids) <= 3))
def test_ids_come_back_as_they_were(item_ids: list[int] | list[str], user_ids: list[int] | list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        dataset = write(Path(name) / "d", item_ids=item_ids, user_ids=user_ids)
        assert dataset.catalogue.ids == item_ids
        assert dataset.user_ids().to_list() == user_ids
        assert [dataset.catalogue.index_of(raw) for raw in item_ids] == list(range(1, len(item_ids) + 1))


def test_arrays_are_memory_mapped(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d")
    for array in (dataset.offsets, dataset.items, dataset.timestamps):
        assert array is not None
        base: object = array
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
    assert (dataset.users, dataset.events) == (2, 3)
    assert dataset.summary == {"source": "a test"}


def test_equal_hashes_mean_equal_data(tmp_path: Path) -> None:
    datasets = [
        write(tmp_path / "0"),
        write(tmp_path / "1"),
        write(tmp_path / "2", times=False),
        write(tmp_path / "3", titles=["T", None]),
        write(tmp_path / "4", titles=[None, "T"]),
        write(tmp_path / "5", item_ids=["ab", ""]),
        write(tmp_path / "6", user_ids=["1", "2"]),
        write(tmp_path / "7", titles=["", None]),
    ]
    assert datasets[0].content_hash == datasets[1].content_hash
    assert len({dataset.content_hash for dataset in datasets}) == len(datasets) - 1
    # Fixed, so that a change of library cannot change it unseen.
    assert datasets[0].content_hash == "083ca0f0a36038adafb3f6a37c6e0e0da60deb5f0ddda5bbf4c09f8a9cdbb084"


def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path / "d")
    with pytest.raises(DataError, match="already exists"):
        write(tmp_path / "d")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_dataset(
            tmp_path / "e",
            offsets=np.array([0, 1], dtype=np.int64),
            items=np.array([1], dtype=np.int32),
            timestamps=None,
            catalogue=pl.DataFrame({"id": [1], "title": ["a"], "category": ["b"]}),
            users=pl.DataFrame({"id": [1]}),
            summary={"density": float("nan")},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a dataset folder"):
        Dataset.open(tmp_path / "absent")
    path = write(tmp_path / "d").path
    header = json.loads((path / "dataset.json").read_text())
    for change, message in (
        ({"format": "other"}, 'expected "format"'),
        ({"version": 99}, "version 99"),
        ({"events": 4}, "says 4 events"),
    ):
        (path / "dataset.json").write_text(json.dumps(header | change))
        with pytest.raises(DataError, match=message):
            Dataset.open(path)
    (path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Dataset.open(path)
    (path / "dataset.json").write_text(json.dumps(header))
    (path / "items.npy").write_bytes(b"no")
    with pytest.raises(DataError, match=r"items\.npy"):
        Dataset.open(path)
    np.save(path / "items.npy", np.zeros(3))
    with pytest.raises(DataError, match="int32"):
        Dataset.open(path)


def test_a_cut_off_catalogue_is_named(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d")
    (dataset.path / "catalogue.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=r"catalogue\.arrow"):
        _ = dataset.catalogue


def test_what_libraries_stumble_over_is_named(tmp_path: Path) -> None:
    """A header of NumPy's that is no Python, and a table on which Polars panics."""
    dataset = write(tmp_path / "d")
    for name in ("catalogue.arrow", "users.arrow"):
        whole = (dataset.path / name).read_bytes()
        refused = 0
        for place in range(0, len(whole), 7):
            (dataset.path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
            try:
                again = Dataset.open(dataset.path)
                assert len(again.catalogue) + len(again.user_ids()) > 0
            except DataError:
                refused += 1
        assert refused
        (dataset.path / name).write_bytes(whole)
    offsets = dataset.path / "offsets.npy"
    offsets.write_bytes(offsets.read_bytes().replace(b"}", b" ", 1))
    with pytest.raises(DataError, match=r"offsets\.npy: cannot be read"):
        Dataset.open(dataset.path)
