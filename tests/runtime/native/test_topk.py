"""Every way to the best items against sorting all scores: random and skewed codes, ties, items left out."""

from typing import Any

import numpy as np
import pytest
from native_bundles import Array, Bundle

engine = pytest.importorskip("lsan.runtime._native.engine")

METHODS = ["plain", "filter", "index", None]
INSTRUCTIONS = ["portable", "avx2", "avx512"]


def expected(scores: Array, k: int, left_out: Array) -> tuple[Array, Array]:
    items = np.flatnonzero(~left_out)
    order = items[np.lexsort((items, -scores[items]))][:k]
    return order + 1, scores[order]


def check(made: Any, k: int, z: Array, scores: Array, method: str | None, random: np.random.Generator) -> None:
    """Nothing left out, few items left out, most not allowed."""
    count = made.items
    excluded = random.integers(-3, count + 9, 40).astype(np.int32)
    excluded = np.concatenate([excluded, (np.argsort(-scores)[:20] + 1).astype(np.int32)])
    out = np.zeros(count, dtype=bool)
    out[excluded[(excluded > 0) & (excluded <= count)] - 1] = True
    allowed = (random.random(count) < 0.01).astype(np.uint8)
    for without, only, left_out in (
        (None, None, np.zeros(count, dtype=bool)),
        (excluded, None, out),
        (None, allowed, allowed == 0),
        (excluded, allowed, out | (allowed == 0)),
    ):
        best, found = made.recommend_hidden(z, k, without, only, method)
        items, values = expected(scores, k, left_out)
        np.testing.assert_array_equal(best, items)
        np.testing.assert_array_equal(found, values)


def tables(kind: str, random: np.random.Generator, rows: list[int], width: int) -> Array:
    x = random.normal(0, 1, (sum(rows), width))
    if kind == "coarse":  # many items score the same
        x = np.round(x)
    if kind == "skewed":
        x *= random.exponential(1, (sum(rows), 1)) ** 2
    if kind == "same":
        x[:] = 0.25
    return x


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("rows", [[16, 12], [4, 8, 40], [256, 3, 130, 7], [5] * 9, [200]])
@pytest.mark.parametrize("kind", ["random", "coarse", "skewed", "same"])
def test_codes(kind: str, rows: list[int], instructions: str) -> None:
    random = np.random.default_rng(len(rows))
    items, width = 3000, 4
    b = Bundle(items, 3, width)
    codes = np.stack([random.integers(0, m, items) for m in rows], 1)
    if kind == "skewed":
        codes = np.stack([(m * random.random(items) ** 3).astype(np.int64) for m in rows], 1)
    codes = codes[np.lexsort(codes.T[::-1])] if kind != "random" else codes
    biases = np.round(random.normal(0, 1, items) * 3) if kind == "coarse" else random.normal(0, 1, items)
    biases = biases * 0 if kind == "same" else biases
    bias = {"random": "q8", "coarse": "f32", "skewed": "f16", "same": "q4"}[kind]
    b.coded(rows, codes=codes, values=tables(kind, random, rows, width), bias=bias, biases=biases)
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content(), instructions)
    assert made.indexed == (kind != "random" and len(rows) > 1 and rows[0] * rows[1] <= items // 16)
    bias_values = b.values[b.output["bias"]]
    weight = b.values[b.table["weight"]].astype(np.float64)
    for z in (np.round(random.normal(0, 1, width)), random.normal(0, 1, width), np.zeros(width)):
        z = z.astype(np.float32)
        plain = made.recommend_hidden(z, items, method="plain")
        scores = np.empty(items, dtype=np.float32)
        scores[plain[0] - 1] = plain[1]
        sums = weight @ z
        close = sum(sums[o + codes[:, n]] for n, o in enumerate(b.table["offsets"])) + bias_values
        np.testing.assert_allclose(scores, close, rtol=0, atol=1e-5 * (1 + np.abs(close).max()))
        for k in (1, 10, 300, items):
            for method in METHODS:
                check(made, k, z, scores, method, random)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("kind", ["f32", "f16", "q8", "q4"])
def test_vectors(kind: str, instructions: str) -> None:
    random = np.random.default_rng(1)
    b = Bundle(777, 3, 10)
    b.vectors(kind, bias="q8" if kind[0] == "q" else kind)
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content(), instructions)
    for item in (1, 50):
        history = np.array([item], dtype=np.int32)
        z, scores = made.hidden(history, None, -1), made.scores(history, None, -1)
        for k in (1, 20, 777):
            for method in (None, "filter"):
                check(made, k, z, scores, method, random)


@pytest.mark.parametrize("source", ["digits", "hash"])
def test_wide_codes(source: str) -> None:
    random = np.random.default_rng(2)
    b = Bundle(5000, 3, 8)
    b.coded([300, 70], source=source, bias="q8")
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content())
    history = np.array([9], dtype=np.int32)
    for method in METHODS:
        check(made, 10, made.hidden(history, None, -1), made.scores(history, None, -1), method, random)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_many_items(instructions: str) -> None:
    """Items sorted by their codes, enough of them for the index."""
    random = np.random.default_rng(3)
    items, rows, width = 270_000, [64, 64, 256, 256], 8
    b = Bundle(items, 3, width)
    codes = np.stack([random.integers(0, m, items) for m in rows], 1)
    codes = codes[np.lexsort(codes.T[::-1])]
    b.coded(
        rows,
        codes=codes[:1],
        bias="f32",
        values=tables("skewed", random, rows, width),
        biases=random.normal(0, 1, items),
    )
    b.codes = codes
    b.tensors["codes"] = codes.astype(np.uint8).ravel()
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content(), instructions)
    assert made.indexed
    for _ in range(2):
        z = random.normal(0, 1, width).astype(np.float32)
        plain = made.recommend_hidden(z, items, method="plain")
        scores = np.empty(items, dtype=np.float32)
        scores[plain[0] - 1] = plain[1]
        for method in METHODS:
            check(made, 10, z, scores, method, random)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("bias", ["f32", "f16", "q8", "q4"])
@pytest.mark.parametrize("rows", [[4, 8, 40], [300, 7], []])
def test_biases_that_are_all_the_same(rows: list[int], bias: str, instructions: str) -> None:
    """They take no memory. [] are vectors, [300, 7] wide codes."""

    def make(biases: Array) -> Any:
        b = Bundle(3000, 3, 4)
        if rows:
            codes = np.stack([np.random.default_rng(4).integers(0, m, b.items) for m in rows], 1)
            b.coded(rows, codes=codes[np.lexsort(codes.T[::-1])], bias=bias, biases=biases)
        else:
            b.vectors()
            b.output["bias"] = b.parameter(b.items, kind=bias, values=biases)
        b.op("last", [b.op("items", factor=1.0)])
        return engine.Engine(b.content(), instructions)

    random, history = np.random.default_rng(5), np.array([7], dtype=np.int32)
    biases = np.full(3000, -1.75)
    made, other = make(biases), make(np.where(np.arange(3000) == 3, 0, biases))
    z, scores = made.hidden(history, None, -1), made.scores(history, None, -1)
    assert made.indexed == (rows == [4, 8, 40])
    assert other.memory - made.memory >= 3000
    np.testing.assert_array_equal(np.delete(scores, 3), np.delete(other.scores(history, None, -1), 3))
    for k in (1, 10, 3000):
        for method in METHODS:
            check(made, k, z, scores, method, random)


def test_numbers_that_are_too_large() -> None:
    """Infinities and what comes of them are no reason to stop; numbers that are none are left out."""
    b = Bundle(3000, 3, 2)
    values = np.array([[3e38, 3e38], [-3e38, 3e38], [1, 1], [2, 2]])
    b.coded([2, 2], codes=np.stack([np.arange(3000) % 2, np.arange(3000) // 2 % 2], 1), values=values)
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content())
    for z in ([1, 1], [1e5, 1e5], [np.inf, -np.inf], [np.nan, 1]):
        for method in METHODS:
            best, scores = made.recommend_hidden(np.array(z, dtype=np.float32), 5, method=method)
            assert len(best) in (0, 5)
            assert not np.isnan(scores).any()


def test_empty_histories_get_what_is_popular() -> None:
    b = Bundle(30, 3, 2)
    b.vectors()
    b.offered[[2, 7]] = False
    b.popular = [(1, 0), (3, 50), (5, 7), (6, 9), (20, 7), (30, 2**31 - 1)]
    b.op("last", [b.op("items", factor=1.0)])
    made = engine.Engine(b.content())
    nothing = np.array([], dtype=np.int32)
    best, scores = made.recommend(nothing, None, -1, 30)
    assert best[:8].tolist() == [30, 6, 5, 20, 1, 2, 4, 7]
    assert len(best) == 28
    np.testing.assert_allclose(scores[:5], np.log1p([2**31 - 1, 9, 7, 7, 0]), rtol=1e-6)
    np.testing.assert_allclose(made.scores(nothing, None, -1), b.scores(nothing), rtol=1e-6)
    assert made.session().recommend(-1, 3)[0].tolist() == [30, 6, 5]
    assert made.recommend(nothing, None, -1, 3, np.array([6], dtype=np.int32))[0].tolist() == [30, 5, 20]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("exclude", [True, False])
def test_many_histories(threads: int, exclude: bool) -> None:
    b = Bundle(90, 4, 6, seed=5)
    b.coded([5, 8, 9], bias="q8")
    b.popular = [(4, 2)]
    table = b.parameter(31, 6)
    x = b.op("sum", [b.op("items", factor=1.0), b.op("rows", index="gap_after", table=table)], factors=[1, 1])
    b.op("last", [x])
    made = engine.Engine(b.content())
    lengths = b.random.integers(0, 9, 50)
    ends = np.cumsum(lengths)
    items = b.random.integers(1, 91, ends[-1]).astype(np.int32)
    times = b.random.integers(0, 10**9, ends[-1])
    asked = np.full(50, 10**9)
    best, scores = made.recommend_many(items, times, ends, asked, 88, exclude, threads)
    for n, end in enumerate(ends):
        part = slice(end - lengths[n], end)
        without = items[part] if exclude else None
        one, values = made.recommend(items[part], times[part], 10**9, 88, without)
        assert best[n].tolist() == one.tolist() + [0] * (88 - len(one))
        assert scores[n].tolist() == values.tolist() + [0] * (88 - len(one))
    assert made.recommend_many(items, times, ends, asked, 100, exclude, threads)[0].shape == (50, 100)
    with pytest.raises(ValueError, match="from 1 to 90"):
        made.recommend_many(np.full_like(items, 91), times, ends, asked, 5, exclude, threads)
    with pytest.raises(ValueError, match="end"):
        made.recommend_many(items, times, ends[::-1].copy(), asked, 5, exclude, threads)
    assert made.recommend_many(items[:0], None, ends[:0], asked[:0], 5, exclude, threads)[0].shape == (0, 5)
