"""Items by words of their titles, against the rule spelt out item by item."""

import json
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsan.answers import RawId
from lsan.errors import ConfigError
from lsan.export.bundle import bundle_bytes, make_bundle
from lsan.models.quantisation import pack_bits
from lsan.runs import load_run
from lsan.runtime import Recommender
from lsan.runtime.search import fold

TITLES = [
    "Café Crème", "cafe noir", "Crème brûlée, 2 Stück", "Iced café", "ÅNGSTRÖM lamp", "the angstrom Table",
    "Straße 17", "(Café) bar", "Łódź", "東京 タワー", "ﬁne ﬁre", "x²", "", "İstanbul", "café  crème", "caf",
]  # fmt: skip
IDS = [
    "SKU-1", "sku-2", "Café", "17", "17a", "x", "y-9", "lamp", "18", "5", "é", "e", "only id", "z", "Z", "sku",
]  # fmt: skip
COUNTS = [3, 3, 9, 0, 5, 7, 2, 3, 1, 1, 4, 4, 6, 2, 3, 8]


def bundle_of(ids: Sequence[RawId], titles: list[str], counts: list[int], offered: list[int]) -> bytes:
    """A bundle of these items."""
    items = len(ids)
    numbers = all(isinstance(raw, int) for raw in ids)
    places = np.flatnonzero(counts)
    tensors: dict[str, Any] = {
        "table.weight": np.ones((items, 2), dtype=np.float32),
        "table.bias": np.zeros(items, dtype=np.float32),
        "popularity.items": pack_bits(places + 1, items.bit_length()),
        "popularity.counts": pack_bits(np.array(counts)[places], 8),
        "offered": pack_bits(np.array(offered), 1),
        **({"ids.numbers": np.array(ids, dtype=np.int64)} if numbers else texts("ids", list(map(str, ids)))),
        **texts("titles", titles),
    }
    manifest = {
        "items": items, "history": 4, "width": 2, "timed": False, "exclude_seen": True, "categories": 0,
        "popular": len(places), "popular_bits": 8, "quantised": {},
        "table": {"kind": "vectors", "weight": "table.weight"},
        "program": [{"op": "items", "in": [], "factor": 1.0}, {"op": "last", "in": [0]}],
        "output": {"kind": "table", "bias": "table.bias"},
    }  # fmt: skip
    return bundle_bytes(tensors, manifest)


def texts(name: str, entries: list[str]) -> dict[str, Any]:
    pieces = [entry.encode() for entry in entries]
    return {
        f"{name}.bytes": np.frombuffer(b"".join(pieces), dtype=np.uint8),
        f"{name}.ends": np.cumsum([len(piece) for piece in pieces]).astype(np.int64),
    }


def shop(offered: list[int]) -> Recommender:
    return Recommender(bundle_of(IDS, TITLES, COUNTS, offered))


def words(text: str) -> list[str]:
    letters = [character if unicodedata.category(character)[0] in "LN" else " " for character in fold(text)]
    return "".join(letters).split()


def by_the_rule(query: str, k: int, offered: list[int]) -> list[int]:
    """docs/export.md, item by item."""
    found = []
    for index, raw in enumerate(IDS, start=1):
        title = TITLES[index - 1] or str(raw)
        exact = fold(query) == fold(str(raw))
        matches = all(any(have.startswith(want) for have in words(title)) for want in words(query))
        begins = bool(words(query)) and fold(title).strip().startswith(fold(query).strip())
        if offered[index - 1] and (exact or matches):
            found.append((not exact, not (begins and matches), -COUNTS[index - 1], index))
    return [index for *_, index in sorted(found)][:k]


QUERIES = [
    "caf", "café", "CAFE", "cafe cr", "cr caf", "crème", "  creme ", "sku-1", "SKU", "17", "1", "angstrom", "the",
    "strasse", "straße", "lodz", "łódź", "東", "タワ", "fi", "x2", "2", "", "   ", "!!", "é", "e", "E", "only", "z",
    "istanbul", "(cafe)", "caf caf", "nothing", "cafe nothing", "a_b", "caf\N{COMBINING ACUTE ACCENT}", "café creme",
]  # fmt: skip


EVERY = [1] * len(IDS)
SOME = [int(index % 3 > 0) for index in range(len(IDS))]


def found(recommender: Recommender, query: str, k: int) -> list[int]:
    return [IDS.index(str(item.id)) + 1 for item in recommender.search(query, k)]


@pytest.mark.parametrize("offered", [EVERY, SOME], ids=["all", "some"])
def test_it_follows_the_rule(offered: list[int]) -> None:
    recommender = shop(offered)
    for query in QUERIES:
        for k in (1, 3, 100):
            assert found(recommender, query, k) == by_the_rule(query, k, offered), query
    chance = random.Random(0)
    letters = "".join(TITLES) + "sku-179 "
    for _ in range(2000):
        query = "".join(chance.choices(letters, k=chance.randint(0, 4)))
        assert found(recommender, query, 5) == by_the_rule(query, 5, offered), query


def test_what_is_told_of_an_item(small_run: Path) -> None:
    recommender = Recommender(make_bundle(load_run(small_run, device=torch.device("cpu"))).content)
    expected = recommender.recommend([], 1000)
    found = recommender.search("", 1000)
    assert {item.id for item in found} == set(recommender.vocabulary.ids)
    by_id = {item.id: item for item in found}
    for item in expected:
        assert (by_id[item.id].title, by_id[item.id].category) == (item.title, item.category)
    first = next(iter(expected))
    assert recommender.search(str(first.id))[0].id == first.id
    with pytest.raises(ConfigError, match="at least 1"):
        recommender.search("x", 0)


def test_the_cases_that_python_and_javascript_share() -> None:
    shared = json.loads((Path(__file__).parents[1] / "search_cases.json").read_text(encoding="utf-8"))
    assert len(shared["cases"]) > 10
    for case in shared["cases"]:
        items = shared["catalogues"][case["catalogue"]]
        ids = [item["id"] for item in items]
        titles = [item["title"] or "" for item in items]
        offered = [int(item.get("offered", True)) for item in items]
        recommender = Recommender(bundle_of(ids, titles, [item["events"] for item in items], offered))
        assert [item.id for item in recommender.search(case["query"], case.get("k", 10))] == case["found"], case


def test_a_catalogue_without_words() -> None:
    recommender = Recommender(bundle_of(["-", "!"], ["", ""], [1, 2], [1, 1]))
    ids = {query: [item.id for item in recommender.search(query)] for query in ("", "-", "a")}
    assert ids == {"": ["!", "-"], "-": ["-", "!"], "a": []}
