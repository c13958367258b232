"""A bundle as an ONNX model of opset 20, for onnxruntime and whatever else reads ONNX; torch is not needed."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from lsan.errors import ConfigError
from lsan.export.onnx_graph import Graph, read_weight
from lsan.export.onnx_program import Events, ItemWeights, ProgramWriter
from lsan.export.onnx_settings import MOST_ITEMS, Answer, Precision
from lsan.runtime.file import SCHEMA, Array, BundleFile
from lsan.runtime.numpy_engine import NumpyEngine
from lsan.runtime.vocabulary import Vocabulary

#: What onnxruntime 1.20 reads.
_OPSET, _IR = 20, 10

#: The tensor of a top-k model with the scores of all items, before any is left out. Shape [batch, V].
ALL_SCORES = "all_scores"


@dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """A model and what belongs beside it."""

    model: onnx.ModelProto
    items: bytes
    """JSON lines, line v for item v: `id`, `title`, `category`; of a model that answers with tables also `rows` (which
    products are summed), `bias`, `count` (training events) and `offered`."""


def make_onnx(file: BundleFile, *, answer: Answer = "top-k", precision: Precision = "float32") -> OnnxModel:
    """The ONNX model that computes what a bundle computes. The same bundle gives the same model.

    Inputs: `items` int32 [batch, time], item numbers 1..V, oldest first; 0 is padding, skipped wherever it stands.
    Where the bundle reads times: `times` int64 [batch, time] in milliseconds and `asked` int64 [batch], -1 = unknown.
    `top-k` has the input `k` (int64, no dimensions) and the outputs `indices` int64 [batch, min(k, V)] and `scores`
    float32 of the same shape, best first, 0 and -inf where there are no more items. `tables` has the output `products`
    float32 [batch, rows].

    Raises:
        BundleError: when the bundle is not what docs/bundle.md says.
        ConfigError: when it has more items than a top-k model may have, or the model would not fit into one file.
    """
    engine = NumpyEngine(file)
    if answer == "top-k" and engine.items > MOST_ITEMS:
        raise ConfigError(
            f"the model has {engine.items:,} items, and a top-k model scores at most {MOST_ITEMS:,} at every call; "
            "take --onnx-output tables, or recommend from the bundle itself"
        )
    graph, table = Graph(), ItemWeights(file, engine, precision)
    events, present = _events(graph, engine)
    hidden = ProgramWriter(graph, file, engine, table, events, precision).hidden()
    products = _products(graph, file, table, hidden, precision)
    if answer == "tables":
        graph.node("Identity", products, name="products")
        outputs = [helper.make_tensor_value_info("products", TensorProto.FLOAT, ["batch", "rows"])]
    else:
        scores = _scores(graph, file, engine, table, products, events, precision)
        _best(graph, file, engine, scores, present)
        outputs = [
            helper.make_tensor_value_info("indices", TensorProto.INT64, ["batch", "best"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "best"]),
        ]
    graph.check_size()
    model = helper.make_model(
        helper.make_graph(graph.nodes, "lsan", _inputs(engine, answer), outputs, list(graph.initializers.values())),
        opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR,
        producer_name="lsan", producer_version=version("lsan"),
    )  # fmt: skip
    helper.set_model_props(model, _metadata(file, answer, precision))
    return OnnxModel(model=model, items=_item_lines(file, engine, table if answer == "tables" else None))


def with_all_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """A top-k model with one output more, `ALL_SCORES`."""
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.append(helper.make_tensor_value_info(ALL_SCORES, TensorProto.FLOAT, ["batch", None]))
    return more


def _inputs(engine: NumpyEngine, answer: Answer) -> list[onnx.ValueInfoProto]:
    found = [helper.make_tensor_value_info("items", TensorProto.INT32, ["batch", "time"])]
    if engine.timed:
        found.append(helper.make_tensor_value_info("times", TensorProto.INT64, ["batch", "time"]))
        found.append(helper.make_tensor_value_info("asked", TensorProto.INT64, ["batch"]))
    if answer == "top-k":
        found.append(helper.make_tensor_value_info("k", TensorProto.INT64, []))
    return found


def _metadata(file: BundleFile, answer: Answer, precision: Precision) -> dict[str, str]:
    manifest = file.manifest
    facts = {name: manifest[name] for name in ("items", "history", "exclude_seen", "timed")}
    return {
        "lsan_schema": SCHEMA, "answer": answer, "precision": precision,
        **{name: json.dumps(fact) for name, fact in facts.items()},
        "provenance": json.dumps(manifest.get("provenance", {}), ensure_ascii=False),
    }  # fmt: skip


def _events(graph: Graph, engine: NumpyEngine) -> tuple[Events, str]:
    """The latest events that are offered, moved to the end of each row; and all items as int64, 0 = left out."""
    zero, every = graph.constant(0), graph.cast("items")
    present = graph.node("Greater", every, zero)
    if not engine.offered.all():
        place = graph.node("Max", graph.node("Sub", every, graph.constant(1)), zero)
        offered = graph.node("Gather", graph.stored("bundle.offered", engine.offered), place, axis=0)
        present = graph.node("And", present, offered)
    items = graph.node("Where", present, every, zero)
    time = graph.size(items, 1)
    history = graph.node("Min", time, graph.constant([engine.history]))
    # events after padding, each in its order; of those the latest
    place = graph.node("Where", present, graph.node("Add", graph.range(time), time), graph.range(time))
    latest = graph.reversed(graph.nodes_with("TopK", 2, place, history, axis=1)[1], 1)
    count = graph.node("ReduceSum", graph.cast(present), graph.constant([1]), keepdims=1)
    count = graph.node("Min", count, graph.constant(engine.history))
    found = graph.node("GatherElements", items, latest, axis=1)
    if engine.timed:
        known = graph.node("Where", present, "times", graph.constant(-1))
        times, asked = graph.node("GatherElements", known, latest, axis=1), "asked"
    else:
        times = graph.node("Expand", graph.constant(-1), graph.node("Shape", found))
        asked = graph.node("Expand", graph.constant(-1), graph.size(found, 0))
    return Events(items=found, times=times, asked=asked, count=count), items


def _products(graph: Graph, file: BundleFile, table: ItemWeights, hidden: str, precision: Precision) -> str:
    """Hidden vectors times the rows of the table, or of the matrix that the output has instead. Shape [batch, rows]."""
    output = file.manifest["output"]
    if output["kind"] == "table":
        return table.products(graph, hidden)
    return graph.node("MatMul", hidden, graph.transposed(read_weight(file, output["weight"], 2, precision)))


def _scores(
    graph: Graph, file: BundleFile, engine: NumpyEngine, table: ItemWeights, products: str, events: Events,
    precision: Precision,
) -> str:  # fmt: skip
    """Of all items, log-popularity where there are no events. Shape [batch, V]."""
    output = file.manifest["output"]
    scores = table.scores(graph, products) if output["kind"] == "table" else products
    scores = graph.node("Add", scores, graph.floats(read_weight(file, output["bias"], 1, precision)))
    counts = engine.counts.astype(np.min_scalar_type(int(engine.counts.max())))
    popularity = graph.cast(graph.stored("bundle.popularity.counts", counts), TensorProto.FLOAT)
    popularity = graph.node("Log", graph.node("Add", popularity, graph.number(1)))
    empty = graph.node("Equal", events.count, graph.constant(0))
    return graph.node("Where", empty, popularity, scores, name=ALL_SCORES)


def _best(graph: Graph, file: BundleFile, engine: NumpyEngine, scores: str, items: str) -> None:
    """The outputs `indices` and `scores`."""
    nothing = graph.number(-np.inf)
    if not engine.offered.all():
        scores = graph.node("Where", graph.stored("bundle.offered", engine.offered), scores, nothing)
    if file.manifest["exclude_seen"]:  # padding is at a place after the last item
        padded = graph.node("Pad", scores, graph.constant([0, 0, 0, 1]), nothing)
        places = graph.node("Sub", items, graph.constant(1))
        places = graph.node(
            "Where", graph.node("Less", places, graph.constant(0)), graph.constant(engine.items), places
        )
        none = graph.node("Expand", nothing, graph.node("Shape", places))
        scores = graph.node("ScatterElements", padded, places, none, axis=1)
    most = graph.node("Min", graph.unsqueeze("k", 0), graph.constant([engine.items]))
    best, places = graph.nodes_with("TopK", 2, scores, most, axis=1)
    left = graph.node("Greater", best, nothing)
    number = graph.node("Add", places, graph.constant(1))
    graph.node("Where", left, number, graph.constant(0), name="indices")
    graph.node("Identity", best, name="scores")


def _item_lines(file: BundleFile, engine: NumpyEngine, table: ItemWeights | None) -> bytes:
    vocabulary = Vocabulary(file)
    bias = file.floats(file.manifest["output"]["bias"], 1).astype(np.float64)
    rows = np.zeros((engine.items, 0)) if table is None else _rows(file, table)
    lines = []
    for index in range(1, engine.items + 1):
        line: dict[str, Any] = {
            "id": vocabulary.ids[index - 1],
            "title": vocabulary.title_of(index),
            "category": vocabulary.category_name(index),
        }
        if table is not None:
            line |= {
                "rows": rows[index - 1].tolist(),
                "bias": float(bias[index - 1]),
                "count": int(engine.counts[index - 1]),
                "offered": bool(engine.offered[index - 1]),
            }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _rows(file: BundleFile, table: ItemWeights) -> Array:
    if file.manifest["output"]["kind"] == "matrix":
        return np.arange(file.manifest["items"])[:, None]
    return table.rows
