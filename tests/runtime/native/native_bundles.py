"""Bundles of made-up programs, and what they should give: docs/bundle.md in plain NumPy, in float64."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

Array = npt.NDArray[Any]
HOUR, DAY = 3_600_000, 86_400_000


def packed(numbers: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Whole numbers of `bits` bits, the highest bit first."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((numbers.ravel()[:, None].astype(np.int64) >> places & 1).astype(np.uint8))


def rounded(x: Array) -> Array:
    """Each row in steps of 1/127 of its largest absolute number, computed in float32."""
    x = x.astype(np.float32)
    largest = np.abs(x).max(1, keepdims=True)
    steps = np.rint(x * (np.float32(127) / largest))
    assert np.abs(steps).max() == 127
    return np.asarray(steps * largest.astype(np.float64) / 127)


def hashed(item: int, table: int) -> int:
    """The finaliser of MurmurHash3; tables are counted from 0."""
    x = (item + 0x9E3779B9 * table) % 2**32
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


class Bundle:
    """Tensors, table, program and output, one after the other; `values` has each parameter as a reader sees it."""

    def __init__(self, items: int, history: int, width: int, *, categories: int = 0, seed: int = 0) -> None:
        self.items, self.history, self.width, self.categories = items, history, width, categories
        self.random = np.random.default_rng(seed)
        self.tensors: dict[str, Array] = {}
        self.values: dict[str, Array] = {}
        self.quantised: dict[str, Any] = {}
        self.program: list[dict[str, Any]] = []
        self.table: dict[str, Any] = {}
        self.output: dict[str, Any] = {}
        self.codes: Array | None = None
        self.offered = np.ones(items, dtype=bool)
        self.category_of = self.random.integers(0, categories + 1, items)
        self.popular: Sequence[tuple[int, int]] = ()  # items and their counts
        self.names = 0
        if categories:
            self.tensors["categories"] = packed(self.category_of, int(categories).bit_length())

    def parameter(self, *shape: int, kind: str = "f32", scale: float = 1.0, values: Array | None = None) -> str:
        """A parameter of random numbers: "f32", "f16", "q8" or "q4"."""
        self.names += 1
        name = f"p{self.names}"
        x = self.random.normal(0, scale, shape) if values is None else values
        if kind in ("f32", "f16"):
            self.tensors[name] = x.astype(np.float32 if kind == "f32" else np.float16)
            self.values[name] = self.tensors[name].astype(np.float32)
            return name
        bits = int(kind[1])
        row = int(np.prod(shape[1:]))
        rows = x.reshape(shape[0] if row >= 16 else 1, -1)
        steps = (np.abs(rows).max(1) / (2 ** (bits - 1) - 1)).astype(np.float16)
        steps[steps == 0] = 1
        whole = np.clip(np.round(rows / steps.astype(np.float32)[:, None]), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        self.tensors[name] = packed((whole + 2 ** (bits - 1)).astype(np.int64), bits)
        self.tensors[f"{name}.scale"] = steps
        self.values[name] = (whole.astype(np.float32) * steps.astype(np.float32)[:, None]).reshape(shape)
        self.quantised[name] = {"shape": list(shape), "bits": bits}
        return name

    def op(self, op: str, inputs: Sequence[int] = (), **names: Any) -> int:
        self.program.append({"op": op, "in": list(inputs), **names})
        return len(self.program) - 1

    def linear(
        self, x: int, columns: int, out: int, *, kind: str = "f32", activation: str = "none", rounded: bool = False
    ) -> int:
        """A whole linear layer with a bias."""
        weight = self.parameter(out, columns, kind=kind, scale=columns**-0.5)
        names = {"begin": 0, "end": out, "transposed": False, "activation": activation}
        if rounded:
            names["input_bits"] = 8
        return self.op("linear", [x], weight=weight, bias=self.parameter(out), **names)

    def norm(self, x: int, columns: int) -> int:
        weight = self.parameter(columns, kind="f16")
        return self.op("norm", [x], weight=weight, bias=self.parameter(columns), eps=1e-5)

    def vectors(self, kind: str = "f32", bias: str = "f32") -> None:
        """An item table of vectors, tied with the output."""
        self.table = {
            "kind": "vectors",
            "weight": self.parameter(self.items, self.width, kind=kind, scale=self.width**-0.5),
        }
        self.output = {"kind": "table", "bias": self.parameter(self.items, kind=bias)}

    def coded(
        self,
        rows: Sequence[int],
        *,
        source: str = "packed",
        kind: str = "f32",
        bias: str = "f32",
        slices: int = 1,
        codes: Array | None = None,
        values: Array | None = None,
        biases: Array | None = None,
    ) -> None:
        """An item table of codes, tied with the output."""
        offsets = np.cumsum([0, *rows[:-1]]).tolist()
        weight = self.parameter(sum(rows), self.width // slices, kind=kind, scale=self.width**-0.5, values=values)
        bits = max(1, (max(rows) - 1).bit_length())
        if source == "packed":
            found = np.stack([self.random.integers(0, m, self.items) for m in rows], 1) if codes is None else codes
            self.tensors["codes"] = packed(found, bits)
            named: dict[str, Any] = {"from": "packed", "bits": bits}
        elif source == "digits":
            numbers = self.random.permutation(self.items)
            bits = max(1, int(numbers.max()).bit_length())
            self.tensors["numbers"] = packed(numbers, bits)
            found = np.empty((self.items, len(rows)), dtype=np.int64)
            for n, m in enumerate(rows):
                found[:, n], numbers = numbers % m, numbers // m
            named = {"from": "digits", "bits": bits}
        else:
            found = np.array([[hashed(v, n) % m for n, m in enumerate(rows)] for v in range(1, self.items + 1)])
            named = {"from": "hash"}
        self.codes = found
        table = {"weight": weight, "rows": list(rows), "offsets": offsets, "slices": slices, "codes": named}
        self.table = {"kind": "codes", **table}
        self.output = {"kind": "table", "bias": self.parameter(self.items, kind=bias, values=biases)}

    def manifest(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "history": self.history,
            "width": self.width,
            "timed": True,
            "exclude_seen": True,
            "categories": self.categories,
            "quantised": self.quantised,
            "table": self.table,
            "program": self.program,
            "output": self.output,
            "popular": len(self.popular),
            "popular_bits": 31,
            "tolerance": 1e-4,
            "provenance": {"text": "made \u00fcp"},
        }

    def content(self, manifest: bytes | None = None) -> bytes:
        """The file."""
        tensors = dict(self.tensors)
        text = json.dumps(self.manifest()).encode() if manifest is None else manifest
        tensors["manifest"] = np.frombuffer(text, dtype=np.uint8)
        tensors["popularity.items"] = packed(
            np.array([item for item, _ in self.popular], dtype=np.int64), self.items.bit_length()
        )
        tensors["popularity.counts"] = packed(np.array([count for _, count in self.popular], dtype=np.int64), 31)
        if not self.offered.all():
            tensors["offered"] = packed(self.offered, 1)
        return save(tensors, metadata={"format": "lsan", "schema": "1"})

    # What it should give.

    def pieces(self, item: int) -> Array:
        """The rows of an item, each in its place among the numbers of a vector."""
        weight = self.values[self.table["weight"]].astype(np.float64)
        assert self.codes is not None
        rows = [weight[o + c] for o, c in zip(self.table["offsets"], self.codes[item - 1], strict=True)]
        if self.table["slices"] == 1:
            return np.stack(rows)
        out = np.zeros((len(rows), self.width))
        for n, row in enumerate(rows):
            out[n, n * len(row) : (n + 1) * len(row)] = row
        return out

    def vector(self, item: int) -> Array:
        if self.table["kind"] == "vectors":
            return np.asarray(self.values[self.table["weight"]][item - 1], dtype=np.float64)
        return np.asarray(self.pieces(item).sum(0))

    def window(self, items: Array, times: Array | None) -> tuple[list[int], list[int]]:
        """The latest events of items that are offered."""
        when = np.full(len(items), -1) if times is None else times
        kept = [(int(v), int(t)) for v, t in zip(items, when, strict=True) if self.offered[v - 1]][-self.history :]
        return [v for v, _ in kept], [t for _, t in kept]

    def hidden(self, items: Array, times: Array | None = None, asked: int = -1) -> Array:
        events, when = self.window(items, times)
        done: list[Array] = []
        for operation in self.program:
            done.append(self.result(operation, [done[i] for i in operation["in"]], events, when, asked))
        assert done[-1].shape[0] == 1
        return np.asarray(done[-1][0])

    def scores(self, items: Array, times: Array | None = None, asked: int = -1) -> Array:
        if not self.window(items, times)[0]:
            counts = np.zeros(self.items)
            for item, count in self.popular:
                counts[item - 1] = np.log1p(count)
            return counts
        z = self.hidden(items, times, asked)
        bias = self.values[self.output["bias"]].astype(np.float64)
        if self.output["kind"] == "matrix":
            return np.asarray(self.values[self.output["weight"]].astype(np.float64) @ z + bias)
        return np.asarray(np.stack([self.vector(v) for v in range(1, self.items + 1)]) @ z + bias)

    def result(self, o: dict[str, Any], x: list[Array], events: list[int], when: list[int], asked: int) -> Array:
        named = {key: name for key, name in o.items() if isinstance(name, str) and name in self.values}
        value = {key: self.values[name].astype(np.float64) for key, name in named.items()}
        match o["op"]:
            case "items":
                if not x:
                    return np.asarray(np.stack([self.vector(v) for v in events]) * o["factor"])
                vectors = [self.in_context(v, r, value["attention"]) for v, r in zip(events, x[0], strict=True)]
                return np.asarray(np.stack(vectors) * o["factor"])
            case "rows":
                return self.rows(o, value["table"], x, events, when, asked)
            case "constant":
                return np.asarray(value["tensor"])
            case "append":
                return np.concatenate(x)[-self.history :]
            case "linear":
                weight = value["weight"].T if o["transposed"] else value["weight"][o["begin"] : o["end"]]
                y = (rounded(x[0]) if "input_bits" in o else x[0]) @ weight.T
                if o["bias"] is not None:
                    y = y + (value["bias"] if o["transposed"] else value["bias"][o["begin"] : o["end"]])
                return activated(y, o["activation"])
            case "norm":
                mean, variance = x[0].mean(1, keepdims=True), x[0].var(1, keepdims=True)
                return np.asarray((x[0] - mean) / np.sqrt(variance + o["eps"]) * value["weight"] + value["bias"])
            case "sum":
                return np.asarray(sum(f * y for f, y in zip(o["factors"], x, strict=True)))
            case "channels":
                return np.asarray(x[0] * value["tensor"])
            case "concat":
                return np.concatenate(x, axis=1)
            case "convolution":
                return convolved(x[0], value["kernel"], o["back"])[-1 if o["last"] else 0 :]
            case "attention":
                return attended(*x, heads=o["heads"], causal=o["causal"], scale=o["scale"])
            case "last":
                return x[0][-1:]
            case "circulant":
                kernel, rows = value["kernel"], len(x[0])
                matrix = np.array([[kernel[(i - j) % len(kernel)] for j in range(rows)] for i in range(rows)])
                return np.asarray((matrix @ x[0])[-1 if o["last"] else 0 :])
            case "gru":
                return gru(x[0], value)
            case "window":
                return np.concatenate([np.zeros((o["length"], x[0].shape[1])), x[0]])[-o["length"] :]
            case "unfold":
                return np.stack([x[0][i : i + o["height"]].ravel() for i in range(len(x[0]) - o["height"] + 1)])
            case "max":
                return np.asarray(x[0].max(0, keepdims=True))
            case "transpose":
                return x[0].T
            case "flatten":
                return x[0].reshape(1, -1)
        raise AssertionError(o["op"])

    def in_context(self, item: int, context: Array, attention: Array) -> Array:
        pieces = self.pieces(item)
        keys = pieces @ attention.T
        weights = (keys / (1 + np.exp(-keys))) @ context
        shares = np.exp(weights - weights.max())
        return np.asarray((shares / shares.sum()) @ pieces)

    def rows(
        self, o: dict[str, Any], table: Array, x: list[Array], events: list[int], when: list[int], asked: int
    ) -> Array:
        count = len(x[0]) if x else len(events)
        later, earlier = [*when[1:], asked], [-1, *when[:-1]]

        def category(item: int) -> int:
            return int(self.category_of[item - 1]) or self.categories + 1

        def gap(first: int, second: int) -> int | None:
            if first < 0 or second < 0:
                return None
            return 1 + min(29, (1 + max(0, second - first) // 1000).bit_length() - 1)

        def row(i: int) -> int | None:
            match o["index"]:
                case "position":
                    return i
                case "position_from_end":
                    return len(table) - count + i
                case "category":
                    return category(events[i])
                case "previous_category":
                    return category(events[i - 1]) if i else 0
                case "hour":
                    return when[i] // HOUR % 24 + 1 if when[i] >= 0 else 0
                case "gap_before":
                    return gap(earlier[i], when[i])
                case "gap_after":
                    return gap(when[i], later[i])
                case "hour_after":
                    return later[i] // HOUR % 24 if later[i] >= 0 else None
                case "weekday_after":
                    return later[i] // DAY % 7 if later[i] >= 0 else None
            raise AssertionError(o["index"])

        found = [row(i) for i in range(count)]
        return np.stack([np.zeros(table.shape[1]) if i is None else table[i] for i in found])


def activated(x: Array, activation: str) -> Array:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":
        return np.asarray(torch.nn.functional.gelu(torch.from_numpy(x)).numpy())
    return x


def convolved(x: Array, kernel: Array, back: int) -> Array:
    heads, window = kernel.shape
    wide = np.repeat(kernel, x.shape[1] // heads, axis=0)
    y = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(window):
            if 0 <= i - back + j < len(x):
                y[i] += wide[:, j] * x[i - back + j]
    return y


def attended(q: Array, k: Array, v: Array, *, heads: int, causal: bool, scale: float) -> Array:
    parts = []
    for a, b, c in zip(np.split(q, heads, 1), np.split(k, heads, 1), np.split(v, heads, 1), strict=True):
        weights = a @ b.T * scale
        if causal:
            for i in range(len(q)):
                weights[i, len(k) - (len(q) - 1 - i) :] = -np.inf
        shares = np.exp(weights - weights.max(1, keepdims=True))
        parts.append(shares / shares.sum(1, keepdims=True) @ c)
    return np.concatenate(parts, axis=1)


def gru(x: Array, value: dict[str, Array]) -> Array:
    width = value["state"].shape[1]
    network = torch.nn.GRU(x.shape[1], width, batch_first=True).double()
    with torch.no_grad():
        for name, key in (
            ("weight_ih_l0", "input"),
            ("weight_hh_l0", "state"),
            ("bias_ih_l0", "input_bias"),
            ("bias_hh_l0", "state_bias"),
        ):
            getattr(network, name).copy_(torch.from_numpy(value[key]))
        return np.asarray(network(torch.from_numpy(x)[None])[0][0].numpy())


def transformer(
    bundle: Bundle, heads: int, blocks: int, *, causal: bool, kind: str = "f32", window: int = 5, times: bool = False
) -> None:
    """The preset lsan: convolution and attention beside each other, mixed, then a feed-forward layer."""
    b, width = bundle, bundle.width
    table = b.parameter(b.history, width, scale=0.3, kind=kind)
    x = [b.op("items", factor=1.0), b.op("rows", index="position" if causal else "position_from_end", table=table)]
    if times:
        for index, rows in (
            ("gap_before", 31),
            ("gap_after", 31),
            ("hour_after", 24),
            ("weekday_after", 7),
            ("hour", 25),
        ):
            x.append(b.op("rows", index=index, table=b.parameter(rows, width, scale=0.3)))
    h = b.norm(b.op("sum", x, factors=[1.0] * len(x)), width)
    for block in range(blocks):
        last = block == blocks - 1
        asking = b.op("last", [h]) if last else h
        weight, bias = b.parameter(3 * width, width, scale=width**-0.5, kind=kind), b.parameter(3 * width)
        q, k, v = (
            b.op(
                "linear", [asking if n == 0 else h], weight=weight, bias=bias, begin=n * width, end=(n + 1) * width,
                transposed=False, activation="none",
            )
            for n in range(3)
        )  # fmt: skip
        back = window - 1 if causal else window // 2
        kernel = b.parameter(width, window, scale=0.3)
        local = b.op("convolution", [h], kernel=kernel, back=back, last=last)
        far = b.op("attention", [q, k, v], heads=heads, causal=causal, scale=(width / heads) ** -0.5)
        mixed = b.linear(b.op("concat", [local, far]), 2 * width, width, kind=kind)
        h = b.norm(b.op("sum", [asking, mixed], factors=[1.0, 1.0]), width)
        inner = b.linear(h, width, 4 * width, activation="gelu", kind=kind)
        h = b.norm(b.op("sum", [h, b.linear(inner, 4 * width, width, kind=kind)], factors=[1.0, 1.0]), width)
