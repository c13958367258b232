"""Clients that ask for too much, too slowly, or for nothing that makes sense; and keys."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import JSON, Served, await_that, serving

HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: 15\r\n\r\n"
ASKED = b'{"history": []}'
KEYS = ["0123456789abcdef", "fedcba9876543210"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("\n".join(KEYS))
    return file


@pytest.fixture(scope="module")
def served(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One request at a time, and half a second for each."""
    with serving(bundles[0], tmp_path_factory.mktemp("served"), "--max-requests", 1, "--patience", 0.5) as service:
        yield service


@pytest.fixture(scope="module")
def locked(bundles: list[Path], keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(bundles[0], tmp_path_factory.mktemp("served"), "--api-key-file", keys) as service:
        yield service


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def problem_in(response: bytes) -> str:
    """The kind of problem in the only answer."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    return str(json.loads(body)["type"]).removeprefix("urn:lsan:problem:")


def test_a_body_that_is_too_large_by_its_own_account(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n[")
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_body_that_turns_out_to_be_too_large(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(33):
            connection.sendall(b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"  # though it is not at its end
    answer = served.ask("POST", "/v1/recommend", b" " * (2**21 + 1), JSON)
    assert (answer.status, answer.json["type"]) == (413, "urn:lsan:problem:body-too-large")
    assert served.ask("POST", "/v1/recommend", ASKED.ljust(2**21), JSON).status == 200


@pytest.mark.parametrize("begun", [b"P", HEAD, HEAD + LENGTH, HEAD + b"Content-Length: 15\r\n\r\n{"])
def test_a_request_that_does_not_arrive(served: Served, begun: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(begun)
        before = time.monotonic()
        assert problem_in(rest_of(connection)) == "too-slow"
        assert time.monotonic() - before < 5


def test_a_second_request_that_does_not_arrive(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.1)
        connection.recv(65536)
        connection.sendall(b"\r\nGET /heal")
        assert problem_in(rest_of(connection)) == "too-slow"


def test_a_request_that_arrives_drop_by_drop(served: Served) -> None:
    with served.connect() as connection:
        before = time.monotonic()
        with pytest.raises(OSError, match=r"reset|[Pp]ipe"):  # noqa: PT012
            while time.monotonic() < before + 10:
                connection.sendall(HEAD[:1])
                time.sleep(0.05)
        assert time.monotonic() - before < 5


def test_a_body_that_goes_on_after_its_answer(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_connection_on_which_nothing_comes_is_closed(served: Served) -> None:
    with served.connect() as connection:
        assert rest_of(connection) == b""


def test_a_client_that_does_not_read(served: Served) -> None:
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        with pytest.raises(OSError, match=r"reset|[Pp]ipe"):  # noqa: PT012
            while True:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    assert served.get("/healthz").status == 200
    assert not [line for line in served.log if line["level"] == "error"]


def test_a_head_that_is_too_long(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 40_000)
        assert problem_in(rest_of(connection)) == "head-too-large"
    with served.connect() as connection:  # whole, and for all we know in one piece
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n")
        assert problem_in(rest_of(connection)) == "head-too-large"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"\r\nx\r\n",
        b"GET http://[:: HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_request(served: Served, nonsense: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(nonsense)
        assert problem_in(rest_of(connection)) == "bad-request"


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_other_protocols_are_passed_over(served: Served, protocol: str) -> None:
    headers = {**JSON, "Connection": "Upgrade", "Upgrade": protocol}
    answer = served.ask("POST", "/v1/recommend", ASKED, headers)
    assert answer.status == 200


def test_other_protocols_are_passed_over_wherever_the_head_is_cut(served: Served) -> None:
    head = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + LENGTH
    name = head.index(b"\r\nUpgrade:")
    for cut in [*range(name, name + 11), len(head) - 3, len(head) - 1]:
        with served.connect() as connection:
            for piece in (head[:cut], head[cut:] + ASKED[:4], ASKED[4:]):
                connection.sendall(piece)
                time.sleep(0.02)  # so that it comes alone
            assert connection.recv(12) == b"HTTP/1.1 200", head[:cut]


def test_several_requests_at_once_on_one_connection(locked: Served) -> None:
    request = HEAD + f"X-API-Key: {KEYS[0]}\r\n".encode() + LENGTH + ASKED
    with locked.connect() as connection:
        connection.sendall(request * 3 + b"what\r\n\r\n")
        answers = rest_of(connection)
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"HTTP/1.1 ") == 3


def test_far_too_many_requests_at_once_on_one_connection(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        assert rest_of(connection).count(b"HTTP/1.1 200 ") == 17


def test_an_expectation_is_met(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 15\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ASKED)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_too_many_requests(served: Served) -> None:
    with served.connect() as first:
        first.sendall(HEAD + b"Content-Length: 15\r\nExpect: 100-continue\r\n\r\n")
        assert first.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it is under way
        answer = served.post("/v1/recommend", {"history": []})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json["type"] == "urn:lsan:problem:overloaded"
        assert served.get("/healthz").status == 200
        first.sendall(ASKED)
        assert first.recv(12) == b"HTTP/1.1 200"
    await_that(lambda: served.post("/v1/recommend", {"history": []}).status == 200)


def test_too_many_connections(locked: Served) -> None:
    connections = [locked.connect() for _ in range(1003)]
    try:
        assert [problem_in(rest_of(connection)) for connection in connections[-3:]] == ["overloaded"] * 3
    finally:
        for connection in connections:
            connection.close()
    await_that(lambda: locked.get("/healthz").status == 200)


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEYS[0]}"}, {"authorization": f"bearer  {KEYS[1]}"}, {"X-API-Key": KEYS[1]}]
)
def test_keys_open(locked: Served, headers: dict[str, str]) -> None:
    assert locked.ask("GET", "/v1/items", headers=headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {KEYS[0]}"},
        {"X-API-Key": KEYS[0][:-1]},
        {"X-API-Key": ""},
        {"Authorization": "Bearer"},
    ],
)
def test_without_a_key(locked: Served, headers: dict[str, str]) -> None:
    for path in ("/", "/model.lsan", "/metrics", "/v1/recommend", "/openapi.json", "/nothing"):
        answer = locked.ask("POST" if path == "/v1/recommend" else "GET", path, headers=headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.json["type"] == "urn:lsan:problem:no-key"
    assert [locked.get(path).status for path in ("/healthz", "/readyz")] == [200, 200]


def test_keys_are_read_again(locked: Served, keys: Path) -> None:
    fresh = "a-third-key-of-ours"

    def status() -> int:
        return locked.get("/v1/items", **{"X-API-Key": fresh}).status

    assert status() == 401
    keys.write_text("short\n")
    locked.process.send_signal(signal.SIGHUP)
    assert "fewer than 16" in locked.await_event("keys refused")["reason"]
    assert locked.get("/v1/items", **{"X-API-Key": KEYS[0]}).status == 200
    keys.write_text(f"\n{fresh}\n\n")
    locked.process.send_signal(signal.SIGHUP)
    locked.await_event("keys read")
    assert status() == 200
    assert locked.get("/v1/items", **{"X-API-Key": KEYS[0]}).status == 401
    document = locked.get("/openapi.json", **{"X-API-Key": fresh}).json
    assert "401" in document["paths"]["/v1/recommend"]["post"]["responses"]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert fresh not in json.dumps(locked.log)
