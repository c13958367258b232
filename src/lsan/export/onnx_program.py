"""A bundle's program (docs/bundle.md) as ONNX nodes, for a batch of histories of different lengths.

A matrix of the program is a tensor [batch, rows, columns], or [1, rows, columns] where it is the same for all. Where
the number of rows depends on the history, a history's rows are the last ones, and what stands before them may be
anything, so whatever mixes rows masks it. `NumpyEngine` has accepted the bundle before, so nothing is checked here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from lsan.export.onnx_graph import Graph, Weight, read_weight
from lsan.export.onnx_settings import Precision
from lsan.runtime.file import Array, BundleFile
from lsan.runtime.numpy_engine import NumpyEngine
from lsan.runtime.numpy_program import Rows

_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000  # milliseconds

#: Stands for minus infinity where all of a row may be masked: the difference of two infinities would be no number.
_LOWEST = -1e30


@dataclass(frozen=True, kw_only=True)
class Events:
    """The events that the program runs over: each history's latest, at the end of its row."""

    items: str
    """int64 [batch, time], 0 = padding."""
    times: str
    """int64 [batch, time] in milliseconds, -1 = padding or unknown."""
    asked: str
    """int64 [batch], likewise."""
    count: str
    """int64 [batch, 1]: how many events there are."""


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    name: str
    rows: Rows
    columns: int
    batched: bool
    """Whether the first axis is the batch; else it is 1."""


class ItemWeights:
    """The item table as it is stored in the model: rows, and which of them an item has."""

    def __init__(self, file: BundleFile, engine: NumpyEngine, precision: Precision) -> None:
        manifest, table = file.manifest, engine.table
        weight = read_weight(file, manifest["table"]["weight"], 2, precision)
        self.slices, self.width = table.slices, engine.width
        self.codes: Array | None = None
        """Code of each item in each table [V, N]; table n begins at row `begins[n]` of the weight."""
        self.begins = np.zeros(1, dtype=np.int32)
        if table.codes is None:
            self.weight = weight
            return
        rows, offsets = (np.array(manifest["table"][name], dtype=np.int32) for name in ("rows", "offsets"))
        codes = table.codes - offsets
        self.codes = codes.astype(np.min_scalar_type(int(codes.max())))
        if self.codes.dtype == np.uint32:
            self.codes = codes
        self.begins = offsets
        if self.slices > 1:  # tables one after the other, all as long as the longest, so that one product does them all
            most = int(rows.max())
            places = offsets[:, None] + np.minimum(np.arange(most), rows[:, None] - 1)
            self.begins = np.arange(len(rows), dtype=np.int32) * most
            whole = np.array_equal(places.ravel(), np.arange(len(weight.values)))
            self.weight = weight if whole else weight.take(places.ravel(), f"{weight.name} by table")
        else:
            self.weight = weight

    @property
    def rows(self) -> Array:
        """The rows of the products that are summed for each item. Shape [V, N]."""
        if self.codes is None:
            return np.arange(len(self.weight.values))[:, None]
        found: Array = self.codes.astype(np.int32) + self.begins
        return found

    def pieces(self, graph: Graph, items: str) -> str:
        """The rows of codes of item indices 0..V-1 [batch, time]. Shape [batch, time, N, width / slices]."""
        assert self.codes is not None
        codes = graph.cast(
            graph.node("Gather", graph.stored("bundle.codes", self.codes), items, axis=0), TensorProto.INT32
        )
        return graph.gather(self.weight, graph.node("Add", codes, graph.constant(self.begins, np.int32)))

    def vectors(self, graph: Graph, items: str) -> str:
        """The vectors of item indices 0..V-1 [batch, time]. Shape [batch, time, width]."""
        if self.codes is None:
            return graph.gather(self.weight, items)
        return self.joined(graph, self.pieces(graph, items))

    def joined(self, graph: Graph, pieces: str) -> str:
        """One vector of pieces [batch, time, N, width / slices]."""
        if self.slices == 1:
            return graph.node("ReduceSum", pieces, graph.constant([2]), keepdims=0)
        return graph.reshape(pieces, 0, 0, self.width)

    def products(self, graph: Graph, hidden: str) -> str:
        """Hidden vectors [batch, width] times all rows. Shape [batch, rows]."""
        if self.slices == 1:
            return graph.node("MatMul", hidden, graph.transposed(self.weight))
        weight = graph.floats(self.weight)
        parts = graph.reshape(hidden, 0, self.slices, 1, -1)
        tables = graph.node(
            "Transpose", graph.reshape(weight, self.slices, -1, self.width // self.slices), perm=[0, 2, 1]
        )
        return graph.reshape(graph.node("MatMul", parts, tables), 0, -1)

    def scores(self, graph: Graph, products: str) -> str:
        """Sums of products [batch, rows] by code. Shape [batch, V]."""
        if self.codes is None:
            return products
        items, tables = self.codes.shape
        codes = graph.cast(graph.stored("bundle.codes", self.codes), TensorProto.INT32)
        rows = graph.node("Transpose", graph.node("Add", codes, graph.constant(self.begins, np.int32)), perm=[1, 0])
        shape = graph.node("Concat", graph.size(products, 0), graph.constant([items]), axis=0)
        of_tables = graph.nodes_with("Split", tables, rows, axis=0, num_outputs=tables) if tables > 1 else [rows]
        return graph.node(
            "Sum",
            *(graph.node("GatherElements", products, graph.node("Expand", one, shape), axis=1) for one in of_tables),
        )


class ProgramWriter:
    """Writes a program's operations into a graph."""

    def __init__(
        self, graph: Graph, file: BundleFile, engine: NumpyEngine, items: ItemWeights, events: Events,
        precision: Precision,
    ) -> None:  # fmt: skip
        self._graph, self._file, self._engine, self._items = graph, file, engine, items
        self._events, self._precision = events, precision
        self._batch = graph.size(events.items, 0)
        self._masks: dict[int, str] = {}
        self._biases: dict[tuple[Rows, bool], str] = {}

    def hidden(self) -> str:
        """What the last operation gives. Shape [batch, columns]."""
        found: list[_Matrix] = []
        for entry, (rows, columns) in zip(self._file.manifest["program"], self._engine.program.shapes, strict=True):
            read = [found[number] for number in entry["in"]]
            name, batched = _KINDS[entry["op"]](self, entry, read)
            found.append(_Matrix(name=name, rows=rows, columns=columns, batched=batched))
        return self._graph.node("Squeeze", self._for_all(found[-1]), self._graph.constant([1]))

    def _weight(self, name: str, dimensions: int) -> Weight:
        return read_weight(self._file, name, dimensions, self._precision)

    def _floats(self, name: str, dimensions: int) -> str:
        return self._graph.floats(self._weight(name, dimensions))

    def _for_all(self, x: _Matrix) -> str:
        """[batch, rows, columns] of a matrix that may be the same for all."""
        if x.batched:
            return x.name
        shape = self._graph.node("Concat", self._batch, self._graph.constant([1, 1]), axis=0)
        return self._graph.node("Expand", x.name, shape)

    # ---- rows that depend on the history

    def _length(self, rows: Rows) -> str:
        """How many rows the tensor has. Shape [1]."""
        graph = self._graph
        if isinstance(rows, int):
            return graph.constant([rows])
        length = graph.size(self._events.items, 1)
        return length if rows[1] == 0 else self._at_most(graph.node("Add", length, graph.constant([rows[1]])))

    def _range(self, rows: Rows) -> str:
        """Number of each row of the tensor."""
        return self._graph.range(rows if isinstance(rows, int) else self._length(rows))

    def _count(self, rows: tuple[str, int]) -> str:
        """How many rows each history has. Shape [batch, 1]."""
        if rows[1] == 0:
            return self._events.count
        return self._at_most(self._graph.node("Add", self._events.count, self._graph.constant(rows[1])))

    def _at_most(self, count: str) -> str:
        return self._graph.node("Min", count, self._graph.constant(self._engine.history))

    def _place(self, rows: tuple[str, int]) -> str:
        """Number of each row of each history from 0 on, negative where there is none. Shape [batch, rows]."""
        graph, length = self._graph, self._length(rows)
        return graph.node("Sub", graph.range(length), graph.node("Sub", length, self._count(rows)))

    def _present(self, rows: tuple[str, int]) -> str:
        """Where a history has rows. Shape [batch, rows]."""
        if rows[1] not in self._masks:
            self._masks[rows[1]] = self._graph.node("GreaterOrEqual", self._place(rows), self._graph.constant(0))
        return self._masks[rows[1]]

    def _filled(self, x: _Matrix, value: float) -> str:
        """A matrix with `value` where a history has no rows."""
        if isinstance(x.rows, int):
            return x.name
        present = self._graph.unsqueeze(self._present(x.rows), 2)
        return self._graph.node("Where", present, x.name, self._graph.number(value))

    def _masked(self, x: _Matrix) -> bool:
        """Whether `_filled` gives a tensor for each history."""
        return x.batched or not isinstance(x.rows, int)

    # ---- operations: the tensor's name, and whether it is one for each history

    def items(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, table = self._graph, self._items
        places = graph.node("Max", graph.node("Sub", self._events.items, graph.constant(1)), graph.constant(0))
        if not read:
            return graph.scaled(table.vectors(graph, places), entry["factor"]), True
        pieces = table.pieces(graph, places)
        attention = self._weight(entry["attention"], 2)
        if table.slices == 1:
            keys = graph.node("MatMul", pieces, graph.transposed(attention))
        else:
            parts = graph.reshape(graph.floats(attention), self._engine.width, table.slices, -1)
            parts = graph.node("Transpose", parts, perm=[1, 2, 0])
            keys = graph.node("MatMul", graph.unsqueeze(pieces, 3), parts)
            keys = graph.node("Squeeze", keys, graph.constant([3]))
        keys = graph.node("Mul", keys, graph.node("Sigmoid", keys))
        weights = graph.node("Mul", keys, graph.unsqueeze(read[0].name, 2))
        weights = graph.node("ReduceSum", weights, graph.constant([-1]), keepdims=1)
        weighed = graph.node("Mul", graph.node("Softmax", weights, axis=2), pieces)
        return table.joined(graph, graph.scaled(weighed, entry["factor"])), True

    def rows(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, index, table = self._graph, entry["index"], self._weight(entry["table"], 2)
        rows: Rows = read[0].rows if read else ("events", 0)
        if index == "position_from_end" or (index == "position" and isinstance(rows, int)):
            places = self._range(rows)
            if index == "position_from_end":
                first = graph.node("Sub", graph.constant([len(table.values)]), self._length(rows))
                places = graph.node("Add", places, first)
            return graph.unsqueeze(graph.gather(table, places), 0), False
        if index == "position":
            assert not isinstance(rows, int)
            return graph.gather(table, graph.node("Max", self._place(rows), graph.constant(0))), True
        places, known = self._row(index)
        found = graph.gather(table, graph.node("Max", places, graph.constant(0)))
        if known is not None:
            found = graph.node("Where", graph.unsqueeze(known, 2), found, graph.number(0))
        return found, True

    def _row(self, index: str) -> tuple[str, str | None]:
        """Row of each event in a table, and where there is one; None for everywhere. Shapes [batch, time]."""
        graph, zero = self._graph, self._graph.constant(0)
        times = self._events.times
        if index in ("category", "previous_category"):
            category = self._engine.program.category_rows(np.arange(self._engine.items + 1))
            category = category.astype(np.min_scalar_type(int(category.max())))
            found = graph.cast(
                graph.node("Gather", graph.stored("bundle.categories", category), self._events.items, axis=0)
            )
            return (found if index == "category" else self._before(found, 0)), None
        before = self._before(times, -1)
        asked = graph.unsqueeze(self._events.asked, 1)
        after = graph.node("Concat", graph.slice(times, 1, 1, 2**62), asked, axis=1)
        known, known_before, known_after = (graph.node("GreaterOrEqual", x, zero) for x in (times, before, after))
        match index:
            case "hour":
                slots = graph.node("Add", self._unit(times, _HOUR, 24), graph.constant(1))
                return graph.node("Where", known, slots, zero), None
            case "gap_before":
                return self._gap(graph.node("Sub", times, before)), graph.node("And", known, known_before)
            case "gap_after":
                return self._gap(graph.node("Sub", after, times)), graph.node("And", known, known_after)
            case "hour_after":
                return self._unit(after, _HOUR, 24), known_after
            case _:
                return self._unit(after, _DAY, 7), known_after

    def _before(self, values: str, first: int) -> str:
        """Each event's predecessor's value; `first` where there is none, as `values` has it at padding."""
        graph = self._graph
        shape = graph.node("Concat", self._batch, graph.constant([1]), axis=0)
        none = graph.node("Expand", graph.constant(first), shape)
        return graph.node("Concat", none, graph.slice(values, 1, 0, -1), axis=1)

    def _unit(self, times: str, unit: int, most: int) -> str:
        graph = self._graph
        return graph.node("Mod", graph.node("Div", times, graph.constant(unit)), graph.constant(most))

    def _gap(self, milliseconds: str) -> str:
        """`1 + min(29, floor(log2(1 + seconds)))`: how many powers of two up to 2^29 are not larger, exactly."""
        graph = self._graph
        zero = graph.constant(0)  # not Max, which onnxruntime 1.31 gets wrong from 2^31 on
        positive = graph.node("Where", graph.node("Greater", milliseconds, zero), milliseconds, zero)
        seconds = graph.node("Add", graph.node("Div", positive, graph.constant(_SECOND)), graph.constant(1))
        powers = graph.constant([2**power for power in range(30)])
        reached = graph.cast(graph.node("GreaterOrEqual", graph.unsqueeze(seconds, 2), powers))
        return graph.node("ReduceSum", reached, graph.constant([2]), keepdims=0)

    def constant(self, entry: dict[str, Any], _: list[_Matrix]) -> tuple[str, bool]:
        return self._graph.unsqueeze(self._floats(entry["tensor"], 2), 0), False

    def append(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        both, batched = self._alike(read)
        joined = self._graph.node("Concat", *both, axis=1)
        return self._graph.slice(joined, 1, -self._engine.history, 2**62), batched

    def _alike(self, read: list[_Matrix]) -> tuple[list[str], bool]:
        """All for each history, or all the same for all."""
        batched = any(x.batched for x in read)
        return [self._for_all(x) if batched else x.name for x in read], batched

    def linear(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, weight = self._graph, self._weight(entry["weight"], 2)
        whole = len(weight.values)
        begin, end = (0, whole) if entry["transposed"] else (entry["begin"], entry["end"])
        if (begin, end) != (0, whole):
            weight = weight.rows(begin, end)
        matrix = graph.floats(weight) if entry["transposed"] else graph.transposed(weight)
        y = graph.node("MatMul", read[0].name, matrix)
        if entry["bias"] is not None:
            bias = self._weight(entry["bias"], 1)
            y = graph.node("Add", y, graph.floats(bias if (begin, end) == (0, whole) else bias.rows(begin, end)))
        match entry["activation"]:
            case "relu":
                y = graph.node("Relu", y)
            case "gelu":
                y = graph.node("Gelu", y)
        return y, read[0].batched

    def norm(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        weight, bias = self._floats(entry["weight"], 1), self._floats(entry["bias"], 1)
        return self._graph.node("LayerNormalization", read[0].name, weight, bias, axis=-1, epsilon=entry["eps"]), (
            read[0].batched
        )

    def sum(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph = self._graph
        terms = [graph.scaled(x.name, factor) for x, factor in zip(read, entry["factors"], strict=True)]
        return graph.node("Sum", *terms), any(x.batched for x in read)

    def channels(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        return self._graph.node("Mul", read[0].name, self._floats(entry["tensor"], 1)), read[0].batched

    def concat(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        both, batched = self._alike(read)
        return self._graph.node("Concat", *both, axis=2), batched

    def convolution(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, x, back = self._graph, read[0], entry["back"]
        kernel = self._weight(entry["kernel"], 2)
        heads, window = kernel.values.shape
        wide = graph.unsqueeze(graph.floats(kernel), 1)
        wide = graph.node("Expand", wide, graph.constant([heads, x.columns // heads, window]))
        wide = graph.reshape(wide, x.columns, 1, window)
        inside = self._filled(x, 0)
        if entry["last"]:  # the latest rows, as many as there are before and at the last one
            padded = graph.node("Pad", inside, graph.constant([0, back, 0, 0, 0, 0]))
            latest = graph.slice(padded, 1, -(back + 1), 2**62)
            weights = graph.slice(graph.node("Transpose", wide, perm=[1, 2, 0]), 1, 0, back + 1)
            weighed = graph.node("Mul", latest, weights)
            return graph.node("ReduceSum", weighed, graph.constant([1]), keepdims=1), self._masked(x)
        across = graph.node("Transpose", inside, perm=[0, 2, 1])
        mixed = graph.node("Conv", across, wide, group=x.columns, pads=[back, window - 1 - back])
        return graph.node("Transpose", mixed, perm=[0, 2, 1]), self._masked(x)

    def attention(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, heads, (q, k, v) = self._graph, entry["heads"], read
        query = graph.scaled(q.name, entry["scale"])
        asking, keys, values = (
            graph.node("Transpose", graph.reshape(name, 0, 0, heads, x.columns // heads), perm=perm)
            for name, x, perm in ((query, q, [0, 2, 1, 3]), (k.name, k, [0, 2, 3, 1]), (v.name, v, [0, 2, 1, 3]))
        )
        scores = graph.node("MatMul", asking, keys)
        bias = self._bias(k.rows, causal=entry["causal"] and q.rows != 1)
        if bias is not None:
            scores = graph.node("Add", scores, bias)
        attended = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
        merged = graph.reshape(graph.node("Transpose", attended, perm=[0, 2, 1, 3]), 0, 0, v.columns)
        return merged, q.batched or v.batched or self._masked(k)

    def _bias(self, rows: Rows, *, causal: bool) -> str | None:
        """What is added to the scores of keys that are not to be seen. Shape [batch or 1, 1, queries or 1, keys]."""
        graph, key = self._graph, (rows, causal)
        if isinstance(rows, int) and not causal:
            return None
        if key not in self._biases:
            seen = None
            if causal:
                places = self._range(rows)
                seen = graph.node("GreaterOrEqual", graph.unsqueeze(places, 1), places)
            if not isinstance(rows, int):
                present = graph.unsqueeze(self._present(rows), 1, 2)
                seen = present if seen is None else graph.node("And", present, seen)
            assert seen is not None
            self._biases[key] = graph.node("Where", seen, graph.number(0), graph.number(_LOWEST))
        return self._biases[key]

    def last(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        return self._graph.slice(read[0].name, 1, -1, 2**62), read[0].batched

    def circulant(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, x, kernel = self._graph, read[0], self._weight(entry["kernel"], 1)
        places = self._range(x.rows)
        out = graph.slice(places, 0, -1, 2**62) if entry["last"] else places
        apart = graph.node("Sub", graph.unsqueeze(out, 1), places)
        around = graph.node("Mod", apart, graph.constant(len(kernel.values)))
        mixing = graph.node("Gather", graph.floats(kernel), around, axis=0)
        return graph.node("MatMul", mixing, self._filled(x, 0)), self._masked(x)

    def gru(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        """ONNX's GRU begins at the first row, and stops early: so it runs backwards over the rows in reverse order."""
        graph, x = self._graph, read[0]
        width = self._weight(entry["state"], 2).values.shape[1]
        gates = np.arange(3 * width).reshape(3, width)[[1, 0, 2]].ravel()  # from r, z, n to z, r, h
        weights = [self._weight(entry[name], 2) for name in ("input", "state")]
        biases = [self._weight(entry[name], 1) for name in ("input_bias", "state_bias")]
        given = [graph.unsqueeze(graph.floats(one.take(gates, f"{one.name} by gate")), 0) for one in weights]
        both = graph.node("Concat", *(graph.floats(one.take(gates, f"{one.name} by gate")) for one in biases), axis=0)
        lengths = ""
        if not isinstance(x.rows, int):
            lengths = graph.cast(graph.node("Squeeze", self._count(x.rows), graph.constant([1])), TensorProto.INT32)
        backwards = graph.node("Transpose", graph.reversed(self._for_all(x), 1), perm=[1, 0, 2])
        states = graph.node(
            "GRU", backwards, *given, graph.unsqueeze(both, 0), lengths,
            hidden_size=width, direction="reverse", linear_before_reset=1,
        )  # fmt: skip
        states = graph.node("Squeeze", states, graph.constant([1]))
        return graph.reversed(graph.node("Transpose", states, perm=[1, 0, 2]), 1), True

    def window(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, length = self._graph, entry["length"]
        padded = graph.node("Pad", self._filled(read[0], 0), graph.constant([0, length, 0, 0, 0, 0]))
        return graph.slice(padded, 1, -length, 2**62), self._masked(read[0])

    def unfold(self, entry: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        graph, x, height = self._graph, read[0], entry["height"]
        assert isinstance(x.rows, int)
        out = x.rows - height + 1
        places = graph.node("Add", graph.unsqueeze(graph.range(out), 1), graph.range(height))
        return graph.reshape(graph.node("Gather", x.name, places, axis=1), 0, out, height * x.columns), x.batched

    def max(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        filled = self._filled(read[0], float(np.finfo(np.float32).min))
        return self._graph.node("ReduceMax", filled, self._graph.constant([1]), keepdims=1), self._masked(read[0])

    def transpose(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        return self._graph.node("Transpose", read[0].name, perm=[0, 2, 1]), read[0].batched

    def flatten(self, _: dict[str, Any], read: list[_Matrix]) -> tuple[str, bool]:
        return self._graph.reshape(read[0].name, 0, 1, -1), read[0].batched


_Write = Callable[[ProgramWriter, dict[str, Any], list[_Matrix]], tuple[str, bool]]

_KINDS: dict[str, _Write] = {
    "items": ProgramWriter.items, "rows": ProgramWriter.rows, "constant": ProgramWriter.constant,
    "append": ProgramWriter.append, "linear": ProgramWriter.linear, "norm": ProgramWriter.norm,
    "sum": ProgramWriter.sum, "channels": ProgramWriter.channels, "concat": ProgramWriter.concat,
    "convolution": ProgramWriter.convolution, "attention": ProgramWriter.attention, "last": ProgramWriter.last,
    "circulant": ProgramWriter.circulant, "gru": ProgramWriter.gru, "window": ProgramWriter.window,
    "unfold": ProgramWriter.unfold, "max": ProgramWriter.max, "transpose": ProgramWriter.transpose,
    "flatten": ProgramWriter.flatten,
}  # fmt: skip
