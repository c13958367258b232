"""The catalogue: ids and indices, titles, categories, and its JSON form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsan.data.catalogue import Catalogue
from lsan.errors import DataError


def catalogue(
    ids: list[Any], titles: list[str | None] | None = None, categories: list[str | None] | None = None
) -> Catalogue:
    absent: list[str | None] = [None] * len(ids)
    return Catalogue(ids=ids, titles=titles or absent, categories=categories or absent)


def test_indices_begin_at_one_and_zero_is_unknown() -> None:
    assert catalogue(["a", "b"]).indices_of(["b", "a", "c", 1]) == [2, 1, 0, 0]


@pytest.mark.parametrize(
    ("ids", "asked", "index"),
    [
        ([17, -4], "17", 1),
        ([17, -4], "-4", 2),
        (["17", "x"], 17, 1),
        ([7], "007", 0),
        (["007"], 7, 0),
        ([7], "+7", 0),
        ([7], "7.0", 0),
        ([7], "9" * 5000, 0),
        ([7], "\N{ARABIC-INDIC DIGIT SEVEN}", 0),
    ],
)
def test_whole_numbers_match_either_way(ids: list[Any], asked: int | str, index: int) -> None:
    assert catalogue(ids).index_of(asked) == index


def test_categories_are_numbered_by_first_appearance() -> None:
    books = catalogue([1, 2, 3, 4], categories=["b", None, "a", "b"])
    assert books.category_names == ["b", "a"]
    assert books.category_of_item.tolist() == [0, 1, 0, 2, 1]


def test_an_item_without_a_title_is_called_by_its_id() -> None:
    assert [catalogue([5, 6], titles=["T", None]).title_of(index) for index in (1, 2)] == ["T", "6"]


def test_columns_must_agree() -> None:
    with pytest.raises(DataError, match="differ in length"):
        Catalogue(ids=[1, 2], titles=[None], categories=[None, None])
    with pytest.raises(DataError, match="same item id twice"):
        catalogue([1, 1]).index_of(1)


@given(
    rows=st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=5),
    as_text=st.booleans(),
)
def test_json_and_back(rows: list[tuple[str | None, str | None]], as_text: bool) -> None:
    numbers = range(len(rows))
    before = catalogue(
        [str(number) if as_text else number for number in numbers],
        [title for title, _ in rows],
        [category for _, category in rows],
    )
    assert Catalogue.from_json(before.to_json(), where="here") == before


@pytest.mark.parametrize(
    "columns",
    [
        None,
        [],
        {},
        {"ids": "ab"},
        {"ids": [1, "a"]},
        {"ids": [1.5]},
        {"ids": [1], "titles": [2]},
        {"ids": [1], "titles": []},
    ],
)
def test_bad_json_is_refused(columns: Any) -> None:
    with pytest.raises(DataError):
        Catalogue.from_json(columns, where="here")
