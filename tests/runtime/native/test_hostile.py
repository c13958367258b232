"""Files that are not what they seem: refused with a reason, or harmless."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native_bundles import Bundle, packed, transformer
from safetensors.numpy import load

engine = pytest.importorskip("lsan.runtime._native.engine")


def tiny(**names: Any) -> Bundle:
    b = Bundle(20, 4, 6, categories=3, seed=1)
    b.coded([3, 8], kind="q8", bias="q8")
    b.popular = [(2, 5), (9, 1)]
    transformer(b, 2, 1, causal=True, window=2, times=True, **names)
    return b


def use(data: bytes) -> None:
    """Reads the file and, where that works, asks for something."""
    try:
        made = engine.Engine(data)
    except ValueError:
        return
    items = np.array([1, min(2, made.items), made.items], dtype=np.int32)
    for history in (items, np.tile(items, 300)):
        best, _ = made.recommend(history, np.arange(len(history)), 10**12, 10, items[:1])
        assert ((best >= 1) & (best <= made.items)).all()
    session = made.session()
    for item in items:
        session.append(int(item), 5)
        session.recommend(9, 3)


def test_every_truncation_is_refused() -> None:
    data = tiny().content()
    engine.Engine(data)
    for size in range(len(data)):
        with pytest.raises(ValueError):  # noqa: PT011
            engine.Engine(data[:size])
    with pytest.raises(ValueError, match="after the last tensor"):
        engine.Engine(data + b"\0")


def in_pairs() -> Bundle:
    """Twelve of 20 items have one of 5 pairs of rows in every two of four tables."""
    b = Bundle(20, 4, 8, seed=2)
    b.coded([6, 8, 3, 8], kind="q8", bias="q8", slices=4)
    chosen, pairs = b.random.integers(0, 5, (12, 2)), b.random.integers(0, 3, (2, 5, 2))
    assert b.codes is not None
    b.codes[:12] = pairs[[0, 1], chosen].reshape(12, 4)
    b.tensors["codes"] = packed(np.concatenate([chosen.ravel(), b.codes[12:].ravel()]), 3)
    b.tensors["codes.pairs"] = packed(pairs, 3)
    b.table["codes"] = {"from": "pairs", "bits": 3, "paired": 12, "pairs": 5}
    transformer(b, 2, 1, causal=True)
    return b


def test_codes_in_pairs_are_those_that_they_stand_for() -> None:
    paired = in_pairs()
    plain = in_pairs()
    assert plain.codes is not None
    plain.tensors["codes"] = packed(plain.codes, 3)
    del plain.tensors["codes.pairs"]
    plain.table["codes"] = {"from": "packed", "bits": 3}
    items, times = np.array([1, 13, 20, 7], dtype=np.int32), np.arange(4)
    found, expected = (engine.Engine(b.content()).scores(items, times, 5) for b in (paired, plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pairs": 4}, "codes.pairs should have 6 bytes"),
        ({"pairs": 0}, "pairs"),
        ({"pairs": 65537}, "pairs"),
        ({"paired": 21}, "paired"),
        ({"paired": 10}, "codes should have"),
        ({"paired": -1}, "paired"),
        ({"bits": 2}, "codes"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        engine.Engine(changed(in_pairs(), lambda m: m["table"]["codes"].update(change)))


@pytest.mark.parametrize(("name", "numbers"), [("codes", 12 * 2 + 8 * 4), ("codes.pairs", 5 * 4)])
def test_pairs_and_rows_that_do_not_exist_are_refused(name: str, numbers: int) -> None:
    b = in_pairs()
    b.tensors[name] = packed(np.full(numbers, 7), 3)
    with pytest.raises(ValueError, match="codes: item 1 has code"):
        engine.Engine(b.content())


@pytest.mark.parametrize("made", [tiny, in_pairs])
@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_do_no_harm(seed: int, made: Callable[[], Bundle]) -> None:
    random = np.random.default_rng(seed)
    original = np.frombuffer(made().content(), dtype=np.uint8)
    header = 8 + int.from_bytes(original[:8].tobytes(), "little")
    text = np.frombuffer(b'0123456789"{}[]:,-.eE\\utrfalsn \xc3\xff', dtype=np.uint8)
    for _ in range(700):
        data = original.copy()
        ends = (len(data), header, 12)
        for _ in range(random.integers(1, 4)):
            place = random.integers(0, ends[random.integers(0, 3)])
            data[place] = random.choice(text) if random.random() < 0.7 else random.integers(0, 256)
        use(data.tobytes())


def changed(b: Bundle, change: Callable[[dict[str, Any]], object]) -> bytes:
    manifest = b.manifest()
    manifest = json.loads(json.dumps(manifest))
    change(manifest)
    return b.content(json.dumps(manifest).encode())


def operation(name: str, **names: Any) -> Callable[[dict[str, Any]], object]:
    """Changes the first operation of this name."""
    return lambda m: next(o for o in m["program"] if o["op"] == name).update(names)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(items=21), "bytes"),
        (lambda m: m.update(items=0), "items is not a whole number"),
        (lambda m: m.update(items=2**31), "items is not a whole number"),
        (lambda m: m.update(items=20.0), "items is not a whole number"),
        (lambda m: m.update(history=-1), "history"),
        (lambda m: m.update(history=65), "31 rows or more|rows or more"),
        (lambda m: m.pop("width"), "width is missing"),
        (lambda m: m.update(width=7), "width"),
        (lambda m: m.update(timed=1), "timed"),
        (lambda m: m.update(categories=2**31), "categories"),
        (lambda m: m.update(categories=1), "categories"),
        (lambda m: m.pop("program"), "program is missing"),
        (lambda m: m.update(program=[]), "list of 1 to 1024"),
        (lambda m: m.update(program=[m["program"][0]] * 1025), "list of 1 to 1024"),
        (lambda m: m.update(program=[*m["program"][:-1], 7]), "op is missing"),
        (lambda m: m["program"].append(m["program"][0]), "the last operation should give one row"),
        (lambda m: m.update(program=m["program"][:-3]), "the last operation gives 24 columns"),
        (lambda m: m["table"].update(kind="magic"), "kind is unknown: magic"),
        (lambda m: m["table"].update(rows=[3, 2]), "has code [2-7] in table 2 of 2 rows"),
        (lambda m: m["table"].update(rows=[3, 9]), "not inside"),
        (lambda m: m["table"].update(offsets=[3, -1]), "not inside"),
        (lambda m: m["table"].update(rows=[1] * 65, offsets=[0] * 65), "1 to 64"),
        (lambda m: m["table"].update(slices=3), "slices"),
        (lambda m: m["table"].update(rows=[1] * 18, offsets=[0] * 18, codes={"from": "digits"}), "more than 17 tables"),
        (lambda m: m["table"].update(rows=[1] * 9, offsets=[0] * 9, codes={"from": "hash"}), "more than 8 tables"),
        (lambda m: m["table"].update(weight="nobody"), "there is no tensor nobody"),
        (lambda m: m["table"].update(weight="popularity.items"), "neither of floats"),
        (lambda m: m["table"]["codes"].update(bits=33), "bits"),
        (lambda m: m["output"].update(kind="matrix"), "weight is missing"),
        (lambda m: m["output"].update(bias=m["table"]["weight"]), "dimensions"),
        (lambda m: m["quantised"].clear(), "neither of floats"),
        (lambda m: m["quantised"].update(nobody={"shape": [1], "bits": 8}), "no U8 tensor nobody"),
        (lambda m: m["quantised"][m["table"]["weight"]].update(bits=5), "neither 4 nor 8"),
        (lambda m: m["quantised"][m["table"]["weight"]].update(shape=[11, 7]), "bytes"),
        (lambda m: m["quantised"][m["table"]["weight"]].update(shape=[2**33, 2**33]), "too large"),
        (lambda m: m["quantised"][m["table"]["weight"]].update(shape=[66]), "dimensions"),
        (operation("items", op="itemz"), r"operation 0 \(\?\): op is unknown: itemz"),
        (operation("items", factor=float("nan")), "not JSON"),
        (operation("items", factor="1"), "operation 0 .items.: factor is not a number"),
        (operation("sum", **{"in": [0, 99]}), "earlier"),
        (operation("sum", **{"in": [0, -1]}), "earlier"),
        (operation("sum", **{"in": [0, 1.5]}), "earlier"),
        (operation("sum", **{"in": []}), "0 operations"),
        (operation("sum", factors=[1]), "as many"),
        (operation("attention", heads=4), "divide"),
        (operation("attention", heads=0), "heads"),
        (operation("attention", causal=None), "causal"),
        (operation("linear", end=99), "end"),
        (operation("linear", begin=17, end=17), "end"),
        (operation("linear", transposed=True), "end|begin|fit"),
        (operation("linear", activation="tanh"), "unknown: tanh"),
        (operation("linear", input_bits=4), "input_bits"),
        (operation("linear", input_bits=8), "not quantised"),
        (operation("convolution", back=2), "back"),
        (operation("norm", eps=0), "eps"),
        (operation("norm", weight="p1"), "dimensions"),
        (operation("rows", index="century"), "unknown: century"),
        (operation("rows", index="hour_after"), "24 rows or more"),
        (operation("rows", of=0), "of"),
        (operation("last", op="window", length=10**9), "length"),
        (operation("last", op="transpose"), "fixed number of rows"),
        (operation("last", op="flatten"), "fixed number of rows"),
    ],
)  # fmt: skip
def test_wrong_manifests(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        engine.Engine(changed(tiny(), change))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("p1", None, "p1"),
        ("p1.scale", np.full(1, -1, np.float16), "negative scale"),
        ("p1.scale", np.full(1, np.inf, np.float16), "not finite"),
        ("p1.scale", np.full(3, 1, np.float16), "1 scales"),
        ("p1.scale", np.full(1, 1, np.float32), "no F16 tensor"),
        ("p3", np.full((4, 6), np.nan, np.float32), "p3 has a number that is not finite"),
        ("p3", np.full((4, 6), 1, np.float64), "type other than"),
        ("p3", np.full((3, 6), 1, np.float32), "4 rows or more"),
        ("codes", np.zeros(16, np.uint8), "codes should have 15 bytes"),
        ("offered", np.array([255, 255, 255], np.uint8), "not filled with zeros"),
        ("popularity.items", packed(np.array([2, 2]), 5), "increasing"),
        ("popularity.items", packed(np.array([2, 21]), 5), "increasing"),
        ("popularity.counts", packed(np.array([2]), 31), "should have 8 bytes"),
        ("manifest", None, "manifest"),
        ("manifest", np.frombuffer(b"[]", np.uint8), "not a JSON object"),
        ("manifest", np.frombuffer(b'{"a": "\xff"}', np.uint8), "not JSON"),
        ("manifest", np.frombuffer(b'{"items": 1, "items": 2}', np.uint8), "twice"),
        ("manifest", np.frombuffer(b"[" * 10**6, np.uint8), "not JSON"),
        ("manifest", np.frombuffer(rb'{"a": "\ud800"}', np.uint8), "not JSON"),
        ("manifest", np.frombuffer(b'{"a": 01}', np.uint8), "not JSON"),
    ],
)
def test_wrong_tensors(name: str, value: Any, reason: str) -> None:
    b = tiny()
    tensors = load(b.content())
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(ValueError, match=reason):
        engine.Engine(rewritten(tensors))


def rewritten(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    from safetensors.numpy import save

    return save(tensors, metadata=metadata or {"format": "lsan", "schema": "1"})


def assembled(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_wrong_headers() -> None:
    tensors = load(tiny().content())
    with pytest.raises(ValueError, match="unknown schema"):
        engine.Engine(rewritten(tensors, {"format": "lsan", "schema": "2"}))
    with pytest.raises(ValueError, match="not a bundle"):
        engine.Engine(rewritten(tensors, {"format": "other", "schema": "1"}))
    about = {"__metadata__": {"format": "lsan", "schema": "1"}}

    def place(begin: int, end: int) -> dict[str, Any]:
        return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}

    for header, data, reason in (
        ({**about, "a": place(0, 4), "b": place(3, 6)}, b"123456", "overlaps"),
        ({**about, "a": place(0, 2), "b": place(3, 6)}, b"123456", "gap"),
        ({**about, "a": place(0, 7)}, b"123456", "inside the file"),
        ({**about, "a": {**place(0, 6), "shape": [2**62, 8]}}, b"123456", "shape|too large"),
        ({**about, "a": {**place(0, 6), "shape": [2**35, 2**35]}}, b"123456", "too large"),
        ({**about, "a": {**place(0, 6), "shape": [5]}}, b"123456", "differ"),
        ({**about, "a": {**place(0, 6), "data_offsets": [6, 0]}}, b"123456", "inside the file"),
        ({**about, "a": 3}, b"", "lacks"),
        ([], b"", "object"),
        ({}, b"", "__metadata__"),
        (b'{"__metadata__": {"format": "lsan", "schema": "1"}, "a": 1, "a": 2}', b"", "lacks"),
        (b" " * 2_000_000, b"", "longer than allowed"),
    ):
        with pytest.raises(ValueError, match=reason):
            engine.Engine(assembled(header, data))
    twice = b'"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}'
    doubled = b'{"__metadata__": {"format": "lsan", "schema": "1"}, ' + twice + b", " + twice + b"}"
    with pytest.raises(ValueError, match="twice"):
        engine.Engine(assembled(doubled, b""))
    with pytest.raises(ValueError, match="longer than allowed or than the file"):
        engine.Engine(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ValueError, match="too short"):
        engine.Engine(b"")


def test_small_files_do_not_take_much_memory() -> None:
    """A window of a million numbers, again and again."""
    b = tiny()
    x = b.op("items", factor=1.0)
    for _ in range(40):
        x = b.op("window", [x], length=65536)
        x = b.op("concat", [x] * 100)
        x = b.op("max", [x])
        x = b.linear(x, 600, 6)
    with pytest.raises(ValueError, match=r"1 GiB|memory"):
        engine.Engine(b.content())


def test_rows_that_need_too_much_memory_for_their_scores() -> None:
    """All of one table: in 32 bits their number would begin at 0 again."""
    rows = 2**22 + 1
    b = Bundle(3, 4, 64)
    b.coded([rows], slices=1, codes=np.zeros((3, 1)), values=np.zeros((rows, 1)))
    b.table |= {"rows": [rows] * 64, "offsets": [0] * 64, "slices": 64}
    b.tensors["codes"] = packed(np.zeros((3, 64)), 23)
    b.op("last", [b.op("items", factor=1.0)])
    with pytest.raises(ValueError, match="needs more than 1 GiB"):
        engine.Engine(b.content())


def test_names_and_words_in_json() -> None:
    """Escapes, other spaces, names in another order."""
    b = tiny()
    manifest = json.dumps(b.manifest(), indent="\t").replace('"op"', r'"\u006fp"').replace('"norm"', r'"n\u006Frm"')
    made = engine.Engine(b.content(manifest.encode()))
    history = np.array([3, 4], dtype=np.int32)
    np.testing.assert_allclose(made.scores(history, None, -1), b.scores(history), atol=1e-5)
    numbers = b.content(manifest.replace('"factor": 1.0', '"factor": 0.25e+1').encode())
    b.program[0]["factor"] = 2.5
    np.testing.assert_allclose(engine.Engine(numbers).scores(history, None, -1), b.scores(history), atol=1e-5)
