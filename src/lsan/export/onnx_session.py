"""An ONNX model of `make_onnx` in onnxruntime, and whether it answers as the bundle does."""

import json

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.errors import BundleError
from lsan.export.onnx import ALL_SCORES, OnnxModel, with_all_scores
from lsan.models.histories import Histories
from lsan.runtime.engine import Engine
from lsan.runtime.file import Array, BundleFile, FloatArray, IntArray

_BUG = "this is a bug in lsan, or in this version of onnxruntime; please report it"

#: Pairs of events that are looked at in one call: attention takes memory for each.
_PAIRS = 2**22

#: Made-up histories that are compared with the bundle's engine, and how many of their best items.
_MADE_UP, _BEST = 24, 10

#: Their longest, beside the few events that the engine does not read.
_LONGEST = 256


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """A session of one thread, else as onnxruntime has it by itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxScorer:
    """A model that scores items in one batch, whatever its answers are."""

    def __init__(self, made: OnnxModel, file: BundleFile, order: IntArray | None = None) -> None:
        """`order[i]` is the run's index of the bundle's item i + 1; by default they are the same."""
        self.timed, self._exclude_seen = file.manifest["timed"], file.manifest["exclude_seen"]
        items = file.manifest["items"]
        order = np.arange(1, items + 1) if order is None else order
        self._place = np.argsort(order)  # of the run's item v at v - 1
        self._index = np.concatenate([[0], self._place + 1]).astype(np.int32)
        self.answers_top_k = any(output.name == "indices" for output in made.model.graph.output)
        model = with_all_scores(made.model) if self.answers_top_k else made.model
        self._session = session_of(model.SerializeToString())
        self._offered = np.ones(items, dtype=bool)
        if "offered" in file.tensors:
            self._offered = file.packed("offered", 1, items).astype(bool)
        if not self.answers_top_k:
            lines = [json.loads(line) for line in made.items.splitlines()]
            self._rows = np.array([line["rows"] for line in lines])
            self._bias = np.array([line["bias"] for line in lines], dtype=np.float32)
            self._counts = np.array([line["count"] for line in lines])
            self._offered = np.array([line["offered"] for line in lines])

    def every(self, items: IntArray, times: IntArray, asked: IntArray) -> FloatArray:
        """Scores of all items after histories [batch, time] of the bundle's items. Shape [batch, V]."""
        if self.answers_top_k:
            return self._run([ALL_SCORES], items, times, asked, 1)[0]
        products = self._run(["products"], items, times, asked)[0]
        scores = self._bias + np.zeros((len(items), 1), dtype=np.float32)
        for rows in self._rows.T:
            scores += products[:, rows]
        present = items > 0
        empty = ~(present & self._offered[items - 1]).any(1)
        scores[empty] = np.log1p(self._counts)
        return scores

    def best(self, items: IntArray, times: IntArray, asked: IntArray, k: int) -> tuple[Array, FloatArray]:
        """The outputs `indices` and `scores`, after they were compared with `every`: the best in their order, ties by
        the lower number, without what is not offered and, where the bundle says so, without the history's items.

        Raises:
            BundleError: when they are not.
        """
        indices, scores, left = self._run(["indices", "scores", ALL_SCORES], items, times, asked, k)
        left[:, ~self._offered] = -np.inf
        if self._exclude_seen:
            for row, history in enumerate(items):
                left[row, history[history > 0] - 1] = -np.inf
        order = np.argsort(-left, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(left, order, 1)
        if not np.array_equal(values, scores) or not np.array_equal(np.where(values > -np.inf, order + 1, 0), indices):
            raise BundleError(f"the model's best items are not those of the highest scores; {_BUG}")
        return indices, scores

    def _run(
        self, outputs: list[str], items: IntArray, times: IntArray, asked: IntArray, k: int | None = None
    ) -> list[Array]:
        """Outputs, for a few histories at a time."""
        best = {} if k is None else {"k": np.array(k)}
        rows = max(1, _PAIRS // items.shape[1] ** 2)
        pieces = [
            self._session.run(outputs, self.inputs(items[piece], times[piece], asked[piece]) | best)
            for piece in (slice(begin, begin + rows) for begin in range(0, len(items), rows))
        ]
        return [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)]

    def inputs(self, items: IntArray, times: IntArray, asked: IntArray) -> dict[str, Array]:
        """What the model reads, but for `k`."""
        given: dict[str, Array] = {"items": items.astype(np.int32)}
        if self.timed:
            given |= {"times": times.astype(np.int64), "asked": asked.astype(np.int64)}
        return given

    def given(self, histories: Histories) -> tuple[npt.NDArray[np.int32], IntArray, IntArray]:
        """Histories of the run's items as the bundle's items, times, and when it is asked."""
        return self._index[histories.items.numpy()], histories.times.numpy(), histories.asked.numpy()

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        """Scores of the run's items 1..V (column v - 1)."""
        return torch.from_numpy(self.every(*self.given(histories))[:, self._place])


def verify_model(scorer: OnnxScorer, file: BundleFile, engine: Engine, tolerance: float) -> float:
    """Largest difference between the model's scores and the bundle's test vectors, as a share of the largest absolute
    score. Made-up histories of all lengths in one batch are compared with the bundle's engine as well.

    Raises:
        BundleError: when a score is off by more than `tolerance`, or other items are best.
    """
    items: IntArray = file.tensors["check.items"].astype(np.int64)
    times: IntArray = file.tensors["check.times"] if engine.timed else np.full_like(items, -1)
    asked: IntArray = file.tensors["check.asked"] if engine.timed else np.full(len(items), -1)
    top, expected = file.tensors["check.top"], file.tensors["check.scores"]
    found = np.take_along_axis(scorer.every(items, times, asked), top - 1, 1)
    worst = _off(found, expected, tolerance, "a test vector")
    items, times, asked = made_up(engine)
    every = []
    for row, history in enumerate(items):
        known = history > 0
        moments = times[row][known] if engine.timed else None
        every.append(engine.scores(history[known].astype(np.int32), moments, int(asked[row]) if engine.timed else -1))
    _off(scorer.every(items, times, asked), np.stack(every), tolerance, "a made-up history")
    if scorer.answers_top_k:
        scorer.best(items, times, asked, min(_BEST, engine.items))
    return worst


def _off(found: FloatArray, expected: FloatArray, tolerance: float, what: str) -> float:
    scale = np.maximum(np.abs(expected).max(1), 1e-30)
    off = float((np.abs(found - expected).max(1) / scale).max())
    if not off <= tolerance:
        raise BundleError(f"scores after {what} are off by {off:.2e} of the largest, allowed are {tolerance}; {_BUG}")
    return off


def made_up(engine: Engine) -> tuple[IntArray, IntArray, IntArray]:
    """Items, times, and when it is asked: histories of no event to more than the engine reads, padded on the left."""
    random = np.random.default_rng(0)
    lengths = np.linspace(0, min(engine.history, _LONGEST) + 3, _MADE_UP).astype(np.int64)
    present = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
    items = np.where(present, random.integers(1, engine.items + 1, present.shape), 0)
    times = np.cumsum(random.integers(1, 400_000_000, present.shape), axis=1) + 1_000_000_000_000
    known = present & (random.random(present.shape) < 0.9)
    asked = np.where(np.arange(_MADE_UP) % 3 == 0, -1, times[:, -1] + 7_654_321)
    return items, np.where(known, times, -1), asked
