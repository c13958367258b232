"""Each operation of docs/bundle.md in the engine in C against plain NumPy, for every set of instructions; sessions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native_bundles import Array, Bundle, transformer

from lsan.errors import BundleError
from lsan.runtime.file import BundleFile
from lsan.runtime.numpy_engine import NumpyEngine

engine = pytest.importorskip("lsan.runtime._native.engine")

INSTRUCTIONS = ["portable", "avx2", "avx512"]
NOW = 1_700_000_000_000


@pytest.fixture(params=INSTRUCTIONS)
def make_engine(request: pytest.FixtureRequest) -> Callable[[Bundle], Any]:
    def make(bundle: Bundle) -> Any:
        made = engine.Engine(bundle.content(), request.param)
        if made.instruction_set != request.param:
            pytest.skip(f"this processor has no {request.param}")
        return made

    return make


def events(bundle: Bundle, count: int) -> tuple[Array, Array]:
    """Items and times; one time is unknown, two are the same."""
    items = bundle.random.integers(1, bundle.items + 1, count).astype(np.int32)
    times = NOW - np.sort(bundle.random.integers(0, 10**10, count))[::-1].astype(np.int64)
    if count > 2:
        times[1], times[-1] = -1, times[-2]
    return items, times


def compare(bundle: Bundle, made: Any, lengths: tuple[int, ...] = (1, 5, 14)) -> None:
    for count in lengths:
        items, times = events(bundle, count)
        for when, asked in ((times, NOW), (None, -1)):
            expected = bundle.hidden(items, when, asked)
            found = made.hidden(items, when, asked)
            np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * max(1.0, float(np.abs(expected).max())))
            scores = bundle.scores(items, when, asked)
            np.testing.assert_allclose(
                made.scores(items, when, asked), scores, rtol=0, atol=3e-6 * max(1.0, float(np.abs(scores).max()))
            )


def small(width: int = 12, **names: Any) -> Bundle:
    return Bundle(40, 9, width, categories=5, **names)


def positions(b: Bundle) -> int:
    return b.op("rows", index="position_from_end", table=b.parameter(b.history + 2, b.width))


def op_rows(b: Bundle, x: int) -> int:
    indices = {
        "position": 9, "position_from_end": 11, "category": 7, "previous_category": 7, "hour": 25, "gap_before": 31,
        "gap_after": 31, "hour_after": 24, "weekday_after": 7,
    }  # fmt: skip
    found = [b.op("rows", index=index, table=b.parameter(rows, b.width)) for index, rows in indices.items()]
    return b.op("sum", [x, *found], factors=[0.5 + 0.1 * n for n in range(len(found) + 1)])


def op_append(b: Bundle, x: int) -> int:
    mask = b.op("constant", tensor=b.parameter(1, b.width, kind="f16"))
    longer = b.op("append", [x, mask])
    table = b.parameter(b.history, b.width, kind="q8")
    indices = ("position_from_end", "position")
    placed = [b.op("rows", [longer], index=index, table=table, of=longer) for index in indices]
    h = b.op("sum", [longer, *placed], factors=[1, 1, -2.5])
    return b.op("attention", [h, h, h], heads=3, causal=False, scale=0.2)


def op_append_many(b: Bundle, x: int) -> int:
    rows = b.op("constant", tensor=b.parameter(12, b.width))
    twice = b.op("append", [b.op("append", [x, x]), x])
    h = b.op("append", [rows, twice])
    return b.op("norm", [h], weight=b.parameter(b.width), bias=b.parameter(b.width), eps=0.01)


def op_linear(b: Bundle, x: int) -> int:
    names: dict[str, Any] = {"bias": None, "activation": "relu"}
    y = b.op("linear", [x], weight=b.parameter(40, b.width, kind="q4"), begin=3, end=36, transposed=False, **names)
    names = {"bias": b.parameter(70), "activation": "gelu"}
    y = b.op("linear", [y], weight=b.parameter(33, 70, kind="q8"), begin=0, end=70, transposed=True, **names)
    names = {"bias": b.parameter(140, kind="f16"), "activation": "none"}
    y = b.op("linear", [y], weight=b.parameter(140, 70, kind="f16"), begin=7, end=138, transposed=False, **names)
    return b.linear(y, 131, b.width)


def op_linear_of_little(b: Bundle, x: int) -> int:
    y = b.linear(b.linear(x, b.width, 1, activation="gelu"), 1, 3, kind="q8")
    return b.linear(y, 3, b.width, kind="q4", activation="gelu")


def op_norm_and_channels(b: Bundle, x: int) -> int:
    return b.op("channels", [b.norm(b.op("sum", [x], factors=[-3]), b.width)], tensor=b.parameter(b.width, kind="f16"))


def op_concat(b: Bundle, x: int) -> int:
    wide = b.linear(x, b.width, 21)
    return b.linear(b.op("concat", [wide, x, wide, x]), 42 + 2 * b.width, b.width)


def op_convolution(b: Bundle, x: int) -> int:
    for heads, window, back, kind in ((4, 5, 2, "q8"), (1, 3, 0, "f32"), (b.width, 4, 3, "q4"), (2, 14, 6, "f16")):
        x = b.op("convolution", [x], kernel=b.parameter(heads, window, kind=kind), back=back, last=False)
    return x


def op_last_convolution(b: Bundle, x: int) -> int:
    return b.op("convolution", [x], kernel=b.parameter(3, 5), back=3, last=True)


def op_attention(b: Bundle, x: int) -> int:
    q, k = b.linear(x, b.width, 28), b.linear(x, b.width, 28)
    y = b.op("attention", [q, k, x], heads=2, causal=True, scale=0.4)
    z = b.op("attention", [k, q, b.linear(x, b.width, 132)], heads=4, causal=False, scale=-0.7)
    return b.op("sum", [y, b.linear(z, 132, b.width)], factors=[1, 1])


def op_attention_to_interests(b: Bundle, x: int) -> int:
    theta = b.op("constant", tensor=b.parameter(5, b.width))
    still = b.op("constant", tensor=b.parameter(4, b.width))
    interests = b.op("attention", [theta, x, x], heads=1, causal=False, scale=1.0)
    found = b.op("attention", [x, interests, interests], heads=3, causal=False, scale=0.5)
    return b.op("attention", [found, b.norm(still, b.width), still], heads=2, causal=False, scale=1.5)


def op_attention_of_the_last(b: Bundle, x: int) -> int:
    return b.op("attention", [b.op("last", [x]), x, x], heads=1, causal=True, scale=0.3)


def op_circulant(b: Bundle, x: int) -> int:
    y = b.op("circulant", [x], kernel=b.parameter(9), last=False)
    return b.op("circulant", [y], kernel=b.parameter(13), last=True)


def op_gru(b: Bundle, x: int) -> int:
    columns = b.width
    for inner in (20, b.width):
        parameters = {
            "input": b.parameter(3 * inner, columns, kind="q8"),
            "state": b.parameter(3 * inner, inner, scale=0.2),
            "input_bias": b.parameter(3 * inner, kind="f16"),
            "state_bias": b.parameter(3 * inner),
        }
        x = b.op("gru", [x], **parameters)
        columns = inner
    return x


def op_caser(b: Bundle, x: int) -> int:
    latest = b.op("window", [x], length=4)
    parts = [b.op("flatten", [b.linear(b.op("transpose", [latest]), 4, 2, kind="q8")])]
    for height in (1, 3, 4):
        found = b.linear(b.op("unfold", [latest], height=height), height * b.width, 5, activation="relu")
        parts.append(b.op("max", [found]))
    return b.linear(b.op("concat", parts), 2 * b.width + 15, b.width, activation="relu")


def op_max(b: Bundle, x: int) -> int:
    return b.op("max", [x])


def op_fixed(b: Bundle, x: int) -> int:
    """Operations on constants alone, and the history beside them."""
    rows = b.op("constant", tensor=b.parameter(6, b.width))
    table = b.parameter(8, b.width)
    placed = [b.op("rows", [rows], index=index, table=table, of=rows) for index in ("position_from_end", "position")]
    h = b.op("sum", [rows, *placed], factors=[1, 1, 1])
    h = b.op("attention", [h, h, h], heads=2, causal=True, scale=0.3)
    h = b.op("convolution", [b.op("append", [h, h])], kernel=b.parameter(1, 3), back=2, last=False)
    return b.op("append", [b.op("circulant", [b.op("window", [h], length=7)], kernel=b.parameter(11), last=False), x])


OPERATIONS = [value for name, value in list(globals().items()) if name.startswith("op_")]


@pytest.mark.parametrize("build", OPERATIONS)
@pytest.mark.parametrize("width", [12, 72])
def test_operations(build: Callable[[Bundle, int], int], width: int, make_engine: Callable[[Bundle], Any]) -> None:
    b = small(width)
    b.vectors()
    x = b.op("sum", [b.op("items", factor=1.5), positions(b)], factors=[1, 1])
    b.op("last", [build(b, x)])
    made = make_engine(b)
    compare(b, made)
    session = made.session()
    items, times = events(b, 20)
    for n, (item, time) in enumerate(zip(items, times, strict=True)):
        session.append(int(item), int(time))
        if n % 3 != 1:
            np.testing.assert_array_equal(session.hidden(NOW), made.hidden(items[: n + 1], times[: n + 1], NOW))


@pytest.mark.parametrize(("queries", "fits"), [(2, True), (3, True), (4, False)])
def test_causal_attention_needs_as_many_keys_in_numpy_too(queries: int, fits: bool) -> None:
    b = small()
    b.vectors()
    asking = b.op("constant", tensor=b.parameter(queries, b.width))
    read = b.op("window", [b.op("items", factor=1.0)], length=3)
    b.op("last", [b.op("attention", [asking, read, read], heads=2, causal=True, scale=0.5)])
    file = BundleFile.parse(b.content())
    if fits:
        compare(b, engine.Engine(b.content()))
        items, times = events(b, 5)
        found, expected = NumpyEngine(file).scores(items, times, NOW), b.scores(items, times, NOW)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        return
    with pytest.raises(BundleError, match="more queries than keys"):
        NumpyEngine(file)
    with pytest.raises(ValueError, match="more queries than keys"):
        engine.Engine(b.content())


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("source", ["packed", "digits", "hash"])
@pytest.mark.parametrize("kind", ["f32", "f16", "q8", "q4"])
def test_codes_in_context(slices: int, source: str, kind: str, make_engine: Callable[[Bundle], Any]) -> None:
    b = small(seed=4)
    b.coded([3, 5, 7], source=source, kind=kind, slices=slices, bias={"f32": "q4"}.get(kind, kind))
    r = b.op("rows", index="category", table=b.parameter(7, b.width))
    x = b.op("items", [r], factor=3.0, attention=b.parameter(b.width, b.width, kind=kind))
    b.op("last", [b.op("sum", [x, b.op("items", factor=0.25)], factors=[1, 1])])
    compare(b, make_engine(b))


@pytest.mark.parametrize("kind", ["f32", "f16", "q8", "q4"])
@pytest.mark.parametrize("width", [5, 16, 130])
def test_vectors_and_a_matrix_of_its_own(kind: str, width: int, make_engine: Callable[[Bundle], Any]) -> None:
    b = small(width, seed=5)
    b.vectors(kind, bias=kind)
    b.op("last", [b.linear(b.op("items", factor=1.0), width, width + 3)])
    b.output = {"kind": "matrix", "weight": b.parameter(b.items, width + 3, kind=kind), "bias": b.parameter(b.items)}
    compare(b, make_engine(b))


def test_large_tables_are_multiplied_as_they_are(make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(700, 6, 36, seed=6)
    b.coded([9000, 40, 250], source="hash", kind="q4", bias="q8", slices=3)
    b.op("last", [b.op("items", factor=1.0)])
    compare(b, make_engine(b))
    b = Bundle(700, 6, 300, seed=6)
    b.coded([900, 40, 250], kind="q8", bias="f16")
    b.op("last", [b.op("items", factor=1.0)])
    compare(b, make_engine(b))


@pytest.mark.parametrize("kind", ["q8", "q4"])
@pytest.mark.parametrize("width", [5, 12, 72, 130])
def test_products_in_whole_numbers(kind: str, width: int, make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(40, 9, width, seed=11)
    b.vectors()
    x = b.op("items", factor=0.5)
    names = {"activation": "none", "transposed": False, "input_bits": 8}
    part = b.op("linear", [x], weight=b.parameter(90, width, kind=kind), bias=None, begin=3, end=86, **names)
    whole = b.linear(x, width, 33, kind=kind, activation="gelu", rounded=True)
    b.op("last", [b.linear(b.op("concat", [part, whole]), 116, width)])
    made = make_engine(b)
    compare(b, made)
    session = made.session()
    items, _ = events(b, 20)
    for n, item in enumerate(items, start=1):
        session.append(int(item), -1)
        np.testing.assert_array_equal(session.hidden(-1), made.hidden(items[:n], None, -1))


def test_rows_of_zeros_in_whole_numbers(make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(40, 9, 16, seed=11)
    b.vectors()
    x = b.op("items", factor=0.0)
    b.op("last", [b.linear(x, 16, 16, kind="q8", rounded=True)])
    items, _ = events(b, 3)
    np.testing.assert_array_equal(make_engine(b).hidden(items, None, -1), b.values[b.program[1]["bias"]])


@pytest.mark.parametrize("causal", [True, False])
def test_transformer(causal: bool, make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(60, 150, 32, seed=7)
    b.coded([6, 40], kind="q8", bias="q8")
    transformer(b, 2, 2, causal=causal, kind="q4")
    made = make_engine(b)
    assert made.causal is causal
    compare(b, made, (1, 63, 65, 149, 200))


def test_items_that_are_not_offered_are_not_read(make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(60, 5, 12, seed=8)
    b.offered = b.random.random(60) < 0.5
    b.vectors()
    transformer(b, 2, 1, causal=True)
    made = make_engine(b)
    for count in (8, 13):
        items = b.random.integers(1, 61, count).astype(np.int32)
        np.testing.assert_allclose(made.hidden(items, None, -1), b.hidden(items), atol=1e-5)
    session = made.session()
    hidden = np.flatnonzero(~b.offered)[:3] + 1
    for item in hidden:
        session.append(int(item), -1)
    assert session.length == 0
    with pytest.raises(ValueError, match="empty"):
        session.hidden(-1)
    best, _ = made.recommend(hidden.astype(np.int32), None, -1, 60)
    assert set(best.tolist()) == set((np.flatnonzero(b.offered) + 1).tolist())


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_sessions_give_the_bits_of_a_full_run(times: bool, causal: bool, make_engine: Callable[[Bundle], Any]) -> None:
    b = Bundle(50, 12, 16, seed=9)
    b.coded([4, 30], kind="q8", bias="q8")
    transformer(b, 2, 2, causal=causal, times=times)
    made = make_engine(b)
    session = made.session()
    items, when = events(b, 40)
    for n, (item, time) in enumerate(zip(items, when, strict=True), start=1):
        session.append(int(item), int(time))
        assert session.length == n
        if n % 7 == 3:
            continue
        for asked in (NOW, -1, NOW + 10**8, NOW + 10**8):
            np.testing.assert_array_equal(session.hidden(asked), made.hidden(items[:n], when[:n], asked))
        best, scores = session.recommend(NOW, 5, excluded=items[:n])
        again, same = made.recommend(items[:n], when[:n], NOW, 5, excluded=items[:n])
        np.testing.assert_array_equal(best, again)
        np.testing.assert_array_equal(scores, same)


def test_what_is_refused() -> None:
    b = Bundle(50, 12, 16, seed=9)
    b.vectors()
    transformer(b, 2, 1, causal=True)
    made = engine.Engine(b.content())
    for items in ([0], [51], [1, -1]):
        with pytest.raises(ValueError, match="from 1 to 50"):
            made.hidden(np.array(items, dtype=np.int32), None, -1)
        with pytest.raises(ValueError, match="from 1 to 50"):
            made.session().append(items[-1], -1)
    with pytest.raises(ValueError, match="as many times"):
        made.hidden(np.array([1], dtype=np.int32), np.array([1, 2]), -1)
    with pytest.raises(ValueError, match="positive"):
        made.recommend(np.array([1], dtype=np.int32), None, -1, 0)
    with pytest.raises(ValueError, match="empty history"):
        made.hidden(np.array([], dtype=np.int32), None, -1)
