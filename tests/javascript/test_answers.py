"""lsan.js in Node answers as Python does."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from shops import KINDS, Shop, ask, id_in_javascript, model, run_of, shop_of

from lsan.answers import RawId, Recommendations
from lsan.config import FullTableConfig, SasRecConfig
from lsan.data.catalogue import Catalogue
from lsan.runtime import Filter

AT = 1_750_000_000

#: Of scores, as a part of the largest: the native engine and NumPy differ by .8e-5 in the largest of these networks.
ROUNDING = 3e-5


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shop]:
    folder = tmp_path_factory.mktemp("shops")
    with torch.no_grad():
        found = {}
        for number, (kind, (config, catalogue)) in enumerate(KINDS.items()):
            run = run_of(config, catalogue)
            if number % 2 == 0:
                run.network.offered[:3] = False
            found[kind] = shop_of(run, folder / f"{number}.lsan")
    return found


def histories(shop: Shop, count: int) -> list[list[RawId]]:
    """Of all lengths to more than the model reads, with unknown ids, ids written otherwise and items that repeat."""
    chance = random.Random(1)
    ids: list[Any] = [*shop.python.vocabulary.ids, "nothing", 2.5]
    lengths = (0, 1, 2, 4, 6, 9, 15, shop.python.engine.history + 1)
    found = [[chance.choice(ids) for _ in range(chance.choice(lengths))] for _ in range(count)]
    return [[str(raw) if chance.random() < 0.1 else raw for raw in history] for history in found]


def check(found: Any, expected: Recommendations) -> None:
    """The same items in the same order, but for those whose scores are the same up to rounding."""
    assert found["unknownIds"] == [id_in_javascript(raw) for raw in expected.unknown_ids]
    assert found["byPopularity"] == expected.by_popularity
    scores = np.array([item.score for item in expected])
    assert len(found["items"]) == len(scores)
    size = max(1e-6, float(np.abs(scores).max(initial=0)))
    assert np.allclose([item["score"] for item in found["items"]], scores, rtol=0, atol=ROUNDING * size)
    called = {id_in_javascript(item.id): (item.title, item.category) for item in expected}
    for place, (mine, theirs) in enumerate(zip(found["items"], expected, strict=True)):
        if mine["id"] != id_in_javascript(theirs.id):
            near = np.abs(np.delete(scores, place) - scores[place]).min() if place < len(scores) - 1 else 0
            assert near < 2 * ROUNDING * size
        assert called.get(mine["id"], (mine["title"], mine["category"])) == (mine["title"], mine["category"])


@pytest.mark.parametrize("width", [4, 16, 24])
def test_products_in_whole_numbers(tmp_path: Path, width: int) -> None:
    config, catalogue = KINDS["both ways, codes of 4 bits"]
    config = msgspec.structs.replace(config, width=width, history=9)
    with torch.no_grad():
        shop = shop_of(run_of(config, catalogue), tmp_path / "shop.lsan", "int8")
    asked = histories(shop, 100)
    answers = ask([[str(shop.path), "recommend", history, {"k": 10}] for history in asked])
    for history, found in zip(asked, answers, strict=True):
        expected = np.array([item.score for item in shop.python.recommend(history, 10)])
        scores = np.array([item["score"] for item in found["items"]])
        # a number between two steps may go either way
        assert np.allclose(scores, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_recommendations_after_200_histories_of_each_kind_of_file(shops: dict[str, Shop]) -> None:
    questions: list[Sequence[Any]] = []
    expected = []
    chance = random.Random(2)
    for shop in shops.values():
        for history in histories(shop, 200):
            k, at = chance.choice((1, 5, 10, 60)), chance.choice((None, AT + chance.random() * 1e6))
            times = chance.choice((None, [chance.choice((None, AT + 5000.25 * n)) for n in range(len(history))]))
            exclude = chance.choice((None, True, False))
            options = {"k": k, "at": at, "times": times, "excludeSeen": exclude}
            questions.append([str(shop.path), "recommend", history, options])
            expected.append(shop.python.recommend(history, k, times=times, at=at, exclude_seen=exclude))
    for found, answer in zip(ask(questions), expected, strict=True):
        check(found, answer)


def test_sessions(shops: dict[str, Shop]) -> None:
    questions, expected = [], []
    for shop in shops.values():
        for exclude in (True, False):
            session = shop.python.session(exclude_seen=exclude)
            steps: list[list[Any]] = []
            answers: list[Any] = []
            for number, raw in enumerate(histories(shop, 200)[7] + [*shop.python.vocabulary.ids][:14]):
                at = None if number % 5 == 3 else AT + 7000.5 * number
                steps += [["append", raw, at], ["recommend", {"k": 4}], ["recommend", {"k": 30, "at": AT + 9e5}]]
                answers += [session.append(raw, at), session.recommend(4), session.recommend(30, at=AT + 9e5)]
            questions.append([str(shop.path), "session", {"excludeSeen": exclude}, *steps])
            expected.append(answers)
    for found, answers in zip(ask(questions), expected, strict=True):
        for one, answer in zip(found, answers, strict=True):
            if isinstance(answer, bool):
                assert one is answer
            else:
                check(one, answer)


def test_filters(shops: dict[str, Shop]) -> None:
    questions, expected = [], []
    for shop in shops.values():
        ids = list(shop.python.vocabulary.ids)
        names = shop.python.vocabulary.category_names[:2]
        filters: list[dict[str, Any]] = [
            {"allow": ids[2:30], "forbid": ids[5:9]},
            {"forbid": [str(raw) for raw in ids[3:20]]},
            {"allow": ["nothing"]},
            {"allow_categories": [*names, "nothing"]},
            {"allow_categories": names[:1], "forbid": ids[:5]},
            {"forbid_categories": [*names, "nothing"]},
        ]
        for given in filters:
            options = {name.replace("_c", "C"): chosen for name, chosen in given.items()}
            questions.append([str(shop.path), "recommend", ids[:4], {"k": 50, "at": AT, "filter": options}])
            expected.append(shop.python.recommend(ids[:4], 50, at=AT, filter=Filter(**given)))
    for found, answer in zip(ask(questions), expected, strict=True):
        check(found, answer)


def test_similar_items(shops: dict[str, Shop]) -> None:
    for shop in shops.values():
        ids = list(shop.python.vocabulary.ids)[3:40:4]
        answers = ask([[str(shop.path), "similar", raw, {"k": 6}] for raw in ids])
        for raw, found in zip(ids, answers, strict=True):
            expected = shop.python.similar(raw, 6)
            assert np.allclose(
                [item["similarity"] for item in found], [item.similarity for item in expected], atol=1e-5
            )
            best = {id_in_javascript(item.id): (item.title, item.category) for item in shop.python.similar(raw, 9)}
            assert all(best[item["id"]] == (item["title"], item["category"]) for item in found)


def test_explanations(shops: dict[str, Shop]) -> None:
    questions, expected = [], []
    for shop in shops.values():
        item = shop.python.vocabulary.ids[7]
        for history in histories(shop, 12):
            times = [AT + 4000 * n for n in range(len(history))]
            questions.append([str(shop.path), "explain", history, item, {"times": times, "at": AT + 1e6}])
            expected.append(shop.python.explain(history, item, times=times, at=AT + 1e6))
    for found, events in zip(ask(questions), expected, strict=True):
        assert [event["id"] for event in found] == [id_in_javascript(event.id) for event in events]
        assert [event["title"] for event in found] == [event.title for event in events]
        theirs = [event.contribution for event in events]
        assert np.allclose([event["contribution"] for event in found], theirs, rtol=1e-4, atol=1e-4)


def test_what_a_file_holds(shops: dict[str, Shop]) -> None:
    for shop in shops.values():
        python, ids = shop.python, list(shop.python.vocabulary.ids)
        size, info, popular, known, unknown = ask(
            [[str(shop.path), *question] for question in (
                ["size"], ["info"], ["popular", 7], ["item", ids[8]], ["item", "nothing"],
            )]
        )  # fmt: skip
        assert size == info["items"] == len(ids)
        engine = python.engine
        assert (info["history"], info["width"]) == (engine.history, engine.width)
        assert (info["timed"], info["causal"]) == (engine.timed, engine.causal)
        assert info["categories"] == python.vocabulary.category_names
        assert info["provenance"] == json.loads(json.dumps(python.file.manifest["provenance"]))
        assert [item["id"] for item in popular] == [id_in_javascript(raw) for raw in python.recommend([], 7).ids]
        title, category = python.vocabulary.title_of(9), python.vocabulary.category_name(9)
        assert known == {"id": id_in_javascript(ids[8]), "title": title, "category": category}
        assert unknown is None


@pytest.fixture(scope="module")
def search_cases() -> Any:
    return json.loads((Path(__file__).parents[1] / "search_cases.json").read_text())


def test_search(search_cases: Any, tmp_path: Path) -> None:
    for name, items in search_cases["catalogues"].items():
        catalogue = Catalogue(
            ids=[item["id"] for item in items],
            titles=[item["title"] for item in items],
            categories=[item["category"] for item in items],
        )
        config = model("causal", SasRecConfig(), table=FullTableConfig())
        run = run_of(config, catalogue, counts=[item["events"] for item in items])
        for place, item in enumerate(items):
            run.network.offered[place] = item.get("offered", True)
        path = str(shop_of(run, tmp_path / f"{name}.lsan").path)
        cases = [case for case in search_cases["cases"] if case["catalogue"] == name]
        answers = ask([[path, "search", case["query"], {"k": case.get("k", 10)}] for case in cases])
        titles = {item["id"]: (item["title"] or str(item["id"]), item["category"]) for item in items}
        for case, found in zip(cases, answers, strict=True):
            assert [item["id"] for item in found] == case["found"], case["query"]
            assert all(titles[item["id"]] == (item["title"], item["category"]) for item in found)


def test_search_finds_what_python_finds(shops: dict[str, Shop]) -> None:
    chance = random.Random(3)
    for shop in shops.values():
        vocabulary = shop.python.vocabulary
        texts = [vocabulary.title_of(item) for item in range(1, 40)] + [str(raw) for raw in list(vocabulary.ids)[:40]]
        queries = ["", "TITLE", "ti 3", "sku", "é", "🙂"]
        for text in chance.sample(texts, 40):
            begin = chance.randrange(len(text))
            queries.append(chance.choice((str.upper, str.lower, str.strip))(text[begin : begin + chance.randint(1, 9)]))
        answers = ask([[str(shop.path), "search", query, {"k": 15}] for query in queries])
        for query, found in zip(queries, answers, strict=True):
            expected = shop.python.search(query, 15)
            assert [item["id"] for item in found] == [id_in_javascript(item.id) for item in expected], query
            assert [item["title"] for item in found] == [item.title for item in expected]


def test_wrong_use_says_what_is_wrong(shops: dict[str, Shop]) -> None:
    path = str(shops["timed"].path)
    cases: list[tuple[list[Any], str]] = [
        (["recommend", "SKU-1"], "a history is a list"),
        (["recommend", None], "a history is a list"),
        (["recommend", [{}]], "a text or a number"),
        (["recommend", [], {"k": 0}], "k is a whole number"),
        (["recommend", [], {"k": 2.5}], "k is a whole number"),
        (["recommend", ["SKU-5"], {"times": []}], "0 times for a history of 1 events"),
        (["recommend", ["SKU-5"], {"at": AT * 1000}], "not a time"),
        (["recommend", ["SKU-5"], {"at": "now"}], "not a time"),
        (["recommend", [], {"filter": {"allow": "SKU-1"}}], "filter.allow is a list"),
        (["recommend", [], {"filter": {"forbidCategories": "lamps"}}], "filter.forbidCategories is a list"),
        (["similar", "nothing"], "item nothing is not in the model"),
        (["explain", ["SKU-5"], "nothing"], "item nothing is not in the model"),
        (["search", 5], "a query is a text"),
        (["session", {}, ["recommend", {"k": -1}]], "k is a whole number"),
    ]
    for found, (_, message) in zip(ask([[path, *question] for question, _ in cases]), cases, strict=True):
        assert found["kind"] == "LsanError", found
        assert message in found["message"]
