"""What is asked over HTTP is answered as by the recommender itself, and errors say what to mend."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import JSON, Served, serving

from lsan.runtime import Filter, Recommendations, Recommender

AT = 1_750_000_000.0
IDS = [f"id-{number}" for number in range(1, 24)]


@pytest.fixture(scope="module")
def served(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(bundles[0], tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture(scope="module")
def recommender(bundles: list[Path]) -> Recommender:
    return Recommender.load(bundles[0])


@pytest.fixture(scope="module")
def version(bundles: list[Path]) -> str:
    return hashlib.sha256(bundles[0].read_bytes()).hexdigest()[:16]


def as_json(answer: Recommendations) -> dict[str, Any]:
    return {
        "items": [item._asdict() for item in answer],
        "unknown_ids": list(answer.unknown_ids),
        "by_popularity": answer.by_popularity,
    }


QUESTIONS: list[dict[str, Any]] = [
    {"history": []},
    {"history": ["id-1"]},
    {"history": ["id-5", "id-9", "nothing", 17, "id-5"], "k": 3},
    {"history": ["nothing"], "k": 1000},
    {"history": IDS, "exclude_seen": False, "k": 30},
    {"history": IDS, "exclude_seen": True},
    {"history": ["id-1", "id-2"], "at": AT},
    {"history": ["id-1", "id-2"], "at": "2026-11-21T18:30:00Z", "times": [AT, None]},
    {"history": ["id-1", "id-2"], "at": None, "times": [AT, AT + 9e5], "exclude_seen": None, "filter": None},
    {"history": ["id-1"], "filter": {"allow": ["id-3", "id-4", "what"]}},
    {"history": ["id-1"], "filter": {"forbid": ["id-3", "id-4"], "allow_categories": ["category 1", "category 2"]}},
    {"history": ["id-1"], "filter": {"forbid_categories": ["category 1"]}, "k": 30},
    {"history": ["id-1"], "filter": {"allow": []}},
]


def directly(recommender: Recommender, asked: dict[str, Any]) -> Recommendations:
    from datetime import datetime

    asked = dict(asked)
    if isinstance(asked.get("at"), str):
        asked["at"] = datetime.fromisoformat(asked["at"])
    chosen = asked.pop("filter", None)
    return recommender.recommend(**asked, filter=None if chosen is None else Filter(**chosen))


@pytest.mark.parametrize("asked", QUESTIONS, ids=json.dumps)
def test_recommend(served: Served, recommender: Recommender, version: str, asked: dict[str, Any]) -> None:
    answer = served.post("/v1/recommend", asked)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == as_json(directly(recommender, asked)) | {"model": version}


@pytest.mark.parametrize("filtered", [False, True])
def test_recommend_a_batch(served: Served, recommender: Recommender, version: str, filtered: bool) -> None:
    histories = [["id-1"], [], ["nothing"], ["id-3", "id-4", "id-5"]]
    times = [[AT], [], [None], [AT, AT + 1, AT + 2]]
    options: dict[str, Any] = {"k": 4, "at": AT + 5}
    if filtered:
        options["filter"] = {"forbid": ["id-9"]}
    answer = served.post("/v1/recommend:batch", {"histories": histories, "times": times, **options})
    expected = [
        as_json(directly(recommender, {"history": history, "times": moments, **options}))
        for history, moments in zip(histories, times, strict=True)
    ]
    assert answer.json == {"answers": expected, "model": version}
    assert served.post("/v1/recommend:batch", {"histories": []}).json == {"answers": [], "model": version}


def test_items(served: Served, recommender: Recommender, version: str) -> None:
    for query, path in (
        ("", "/v1/items?k=3"),
        ("cafe 1", "/v1/items?query=cafe%201&k=3"),
        ("ID-7", "/v1/items?query=ID-7&k=3"),
    ):
        found = recommender.search(query, 3)
        expected = [{"id": item.id, "title": item.title, "category": item.category} for item in found]
        assert served.get(path).json == {"items": expected, "model": version}
        assert expected


def test_similar(served: Served, recommender: Recommender, version: str) -> None:
    expected = [
        {"id": item.id, "title": item.title, "category": item.category, "similarity": item.similarity}
        for item in recommender.similar("id-4", 5)
    ]
    assert served.get("/v1/similar?item=id-4&k=5").json == {"items": expected, "model": version}


def test_whether_it_is_alive_and_ready(served: Served, version: str) -> None:
    assert served.get("/healthz").json == {"status": "alive"}
    ready = served.get("/readyz").json
    assert (ready["model"], ready["items"], ready["history"], ready["timed"]) == (version, 23, 6, True)
    head = served.ask("HEAD", "/readyz")
    assert (head.status, head.body) == (200, b"")


def test_the_page(served: Served, bundles: list[Path]) -> None:
    page = served.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert served.get("/index.html").body == page.body
    assert served.get("/app.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
    again = served.get("/", **{"If-None-Match": f'W/"x", {page.headers["ETag"]}'})
    assert (again.status, again.body) == (304, b"")
    assert served.get("/model.lsan").body == bundles[0].read_bytes()
    assert served.ask("HEAD", "/").headers["Content-Length"] == str(len(page.body))


def test_the_openapi_document(served: Served) -> None:
    answer = served.get("/openapi.json")
    assert set(answer.json["paths"]) == {
        "/v1/recommend", "/v1/recommend:batch", "/v1/items", "/v1/similar", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    assert b"http" not in answer.body.replace(b"/docs", b""), "it should name no other host"
    assert "securitySchemes" not in answer.json["components"]


def test_the_documentation_asks_no_other_host(served: Served) -> None:
    page = served.get("/docs")
    assert page.status == 200
    assert b"://" not in page.body
    script = page.body.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}'; " in page.headers["Content-Security-Policy"]
    named = re.findall(rb'(?:src|href)="([^"]+)"', page.body)
    assert len(named) == 3
    assert [served.get(name.decode()).status for name in named] == [200] * 3


def test_figures(served: Served) -> None:
    before = served.figure('lsan_requests_total{route="/v1/recommend",status="200"}')
    unknown = served.figure("lsan_unknown_ids_total")
    served.post("/v1/recommend", {"history": ["id-1", "a", "b"]})
    served.post("/v1/recommend", {"history": ["c"]})
    assert served.figure('lsan_requests_total{route="/v1/recommend",status="200"}') == before + 2
    assert served.figure("lsan_unknown_ids_total") == unknown + 3
    assert served.figure('lsan_histories_total{by="popularity"}') >= 1
    assert served.figure("lsan_model_items") == 23
    assert served.figure("process_resident_memory_bytes") > 1e6
    assert served.get("/metrics").headers["Content-Type"].startswith("text/plain")


PROBLEMS: list[tuple[str, str, Any, int, str, list[str]]] = [
    ("POST", "/v1/recommend", b"", 400, "not-json", []),
    ("POST", "/v1/recommend", b'{"history": [1,', 400, "not-json", []),
    ("POST", "/v1/recommend", b'{"history": ["\xff"]}', 400, "not-json", []),
    ("POST", "/v1/recommend", b"[" * 100_000, 400, "not-json", []),
    ("POST", "/v1/recommend", b"{}", 422, "invalid", ["#/history"]),
    ("POST", "/v1/recommend", b"[]", 422, "invalid", ["#"]),
    ("POST", "/v1/recommend", {"history": [1, True, 2**63]}, 422, "invalid", ["#/history/1", "#/history/2"]),
    ("POST", "/v1/recommend", {"history": "id-1"}, 422, "invalid", ["#/history"]),
    ("POST", "/v1/recommend", {"history": ["x" * 1001]}, 422, "invalid", ["#/history/0"]),
    ("POST", "/v1/recommend", {"history": [1] * 5001}, 422, "invalid", ["#/history"]),
    ("POST", "/v1/recommend", {"history": [], "k": 0}, 422, "invalid", ["#/k"]),
    ("POST", "/v1/recommend", {"history": [], "k": 1001}, 422, "invalid", ["#/k"]),
    ("POST", "/v1/recommend", {"history": [], "k": "3"}, 422, "invalid", ["#/k"]),
    ("POST", "/v1/recommend", {"history": [], "exlude_seen": True}, 422, "invalid", ["#/exlude_seen"]),
    ("POST", "/v1/recommend", {"history": [1], "times": []}, 422, "invalid", ["#/times"]),
    ("POST", "/v1/recommend", {"history": [1], "times": ["now"]}, 422, "invalid", ["#/times/0"]),
    ("POST", "/v1/recommend", {"history": [1], "at": AT * 1000}, 422, "invalid", ["#/at"]),
    ("POST", "/v1/recommend", b'{"history": [], "at": NaN}', 422, "invalid", ["#/at"]),
    ("POST", "/v1/recommend", {"history": [1], "at": "1969-01-01T00:00:00"}, 422, "invalid", []),
    ("POST", "/v1/recommend", {"history": [1], "filter": {"a/b~": 1}}, 422, "invalid", ["#/filter/a~1b~0"]),
    ("POST", "/v1/recommend:batch", {"histories": [[1], [{}]]}, 422, "invalid", ["#/histories/1/0"]),
    ("POST", "/v1/recommend:batch", {"histories": [[]] * 1001}, 422, "invalid", ["#/histories"]),
    ("POST", "/v1/recommend:batch", {"histories": [[1]], "times": [[]]}, 422, "invalid", ["#/times"]),
    ("GET", "/v1/items?k=0", None, 422, "invalid", ["k"]),
    ("GET", "/v1/items?quer=x", None, 422, "invalid", ["quer"]),
    ("GET", "/v1/similar", None, 422, "invalid", ["item"]),
    ("GET", "/v1/similar?item=nothing", None, 404, "unknown-item", []),
    ("GET", "/nothing", None, 404, "not-found", []),
    ("POST", "/nothing", b"", 404, "not-found", []),
    ("GET", "/v1/recommend", None, 405, "method-not-allowed", []),
    ("DELETE", "/", None, 405, "method-not-allowed", []),
    ("POST", "/metrics", b"", 405, "method-not-allowed", []),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "kind", "places"), PROBLEMS)
def test_problems(served: Served, method: str, path: str, body: Any, status: int, kind: str, places: list[str]) -> None:
    answer = served.ask(method, path, json.dumps(body) if isinstance(body, dict) else body, JSON)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == f"urn:lsan:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    errors = problem.get("errors", [])
    assert [error.get("pointer") or error["parameter"] for error in errors] == places
    assert all(error["got"] and error["expected"] for error in errors)
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "gzip"}])
def test_what_is_not_declared_as_json(served: Served, headers: dict[str, str]) -> None:
    answer = served.ask("POST", "/v1/recommend", b'{"history": []}', headers)
    assert (answer.status, answer.json["type"]) == (415, "urn:lsan:problem:wrong-media-type")


def test_declared_with_a_character_set(served: Served) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert served.ask("POST", "/v1/recommend", b'{"history": []}', headers).status == 200


def test_nothing_that_clients_send_is_logged(served: Served) -> None:
    secret = "what-I-looked-at"
    served.post("/v1/recommend", {"history": [secret, "id-1"]})
    served.post("/v1/recommend", {"history": [secret], "k": secret})
    served.get(f"/v1/items?query={secret}", **{"User-Agent": secret})
    served.get(f"/v1/similar?item={secret}")
    served.get(f"/{secret}")
    served.ask(secret.upper(), "/")
    lines = [line for line in served.log if line["event"] == "request"]
    assert set(lines[-1]) == {"time", "level", "event", "method", "route", "status", "ms", "bytes"}
    assert {line["route"] for line in lines} >= {"/v1/recommend", "/v1/items", "/v1/similar", "other"}
    assert secret not in json.dumps(served.log)
    assert secret.upper() not in json.dumps(served.log)
