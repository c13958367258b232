"""The map from raw ids to indices: as a dictionary would have it, in fewer bytes."""

import sys
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsan.answers import RawId
from lsan.errors import BundleError
from lsan.runtime.file import BundleFile
from lsan.runtime.ids import index_of_ids
from lsan.runtime.texts import Texts

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@pytest.fixture(scope="module", params=["native", "dictionary"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        pytest.importorskip("lsan.runtime._native.ids")
    return str(request.param)


def index_of(ids: Sequence[RawId], kind: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if kind == "dictionary":
            patch.setitem(sys.modules, "lsan.runtime._native.ids", None)
        return index_of_ids(ids)


def texts_of(texts: Sequence[str]) -> Texts:
    pieces = [text.encode() for text in texts]
    tensors: dict[str, Any] = {
        "ids.bytes": np.frombuffer(b"".join(pieces), dtype=np.uint8),
        "ids.ends": np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
    }
    return Texts(BundleFile(manifest={}, tensors=tensors, manifest_bytes=tensors["ids.bytes"]), "ids", len(texts))


@given(st.lists(INT64, unique=True, min_size=1), st.lists(st.one_of(st.integers(), TEXT)))
def test_numbers(kind: str, ids: list[int], others: list[RawId]) -> None:
    index = index_of(array("q", ids), kind)
    expected: dict[RawId, int] = {raw: place for place, raw in enumerate(ids, start=1)}
    assert index.many([*ids, *others]) == [expected.get(raw, 0) for raw in [*ids, *others]]
    assert [index.get(np.int64(raw)) for raw in ids] == list(range(1, len(ids) + 1))


@given(st.lists(TEXT, unique=True, min_size=1), st.lists(st.one_of(st.integers(), st.text())))
def test_texts(kind: str, ids: list[str], others: list[RawId]) -> None:
    texts = texts_of(ids)
    index = index_of(texts, kind)
    expected: dict[RawId, int] = {raw: place for place, raw in enumerate(ids, start=1)}
    assert index.many([*ids, *others]) == [expected.get(raw, 0) for raw in [*ids, *others]]
    assert list(texts) == ids


def test_a_range() -> None:
    index = index_of_ids(range(1, 8))
    assert index.many([1, 7, 0, 8, -1, "3"]) == [1, 7, 0, 0, 0, 0]


@pytest.mark.parametrize("ids", [array("q", [5, 1, 5]), texts_of(["b", "", "a", ""])])
def test_two_items_with_the_same_id(kind: str, ids: Sequence[RawId]) -> None:
    with pytest.raises(BundleError, match="two items have the same id"):
        index_of(ids, kind)


def test_it_is_small() -> None:
    native = pytest.importorskip("lsan.runtime._native.ids")
    items = 200_000
    index = native.NumberIndex(np.arange(items, dtype=np.int64) * 2**20)
    assert index.memory <= 11 * items
    assert index.many([0, 2**20 * (items - 1), 1]) == [1, items, 0]
