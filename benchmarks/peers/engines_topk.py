"""Times the ten best of a dense product by onnxruntime, NumPy or FAISS; runtime.py starts it.

--data holds codes.npy [V, N], rows.npy [N, K, part] and questions.npy (items 1..V); the vectors that are multiplied are
those that the codes stand for.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BEST = 10


def main() -> None:
    """Build, ask every question twice, time the second time, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", choices=["onnxruntime", "numpy", "faiss"], required=True)
    arguments = parser.parse_args()
    codes, rows = np.load(arguments.data / "codes.npy"), np.load(arguments.data / "rows.npy")
    questions = np.load(arguments.data / "questions.npy")
    tables, _, part = rows.shape
    vectors = np.empty((len(codes), tables * part), dtype=np.float32)
    for n in range(tables):
        vectors[:, n * part : (n + 1) * part] = rows[n][codes[:, n]]
    hidden = vectors[questions - 1].copy()
    best = {"onnxruntime": by_onnxruntime, "numpy": by_numpy, "faiss": by_faiss}[arguments.engine](vectors)
    seconds, scores = [], []
    for row in hidden[:3]:
        best(row[None])
    for row in hidden:
        begun = time.perf_counter()
        found = best(row[None])
        seconds.append(time.perf_counter() - begun)
        scores.append(np.asarray(found, dtype=np.float64).ravel().tolist())
    package = {"faiss": "faiss-cpu"}.get(arguments.engine, arguments.engine)
    taken = np.array(seconds) * 1e6
    print(json.dumps({
        "median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99)), "queries": len(taken),
        "version": version(package), "scores": scores,
    }))  # fmt: skip


Best = Callable[[Any], Any]


def by_numpy(vectors: Any) -> Best:
    def best(hidden: Any) -> Any:
        scores = vectors @ hidden[0]
        top = np.argpartition(scores, len(scores) - BEST)[-BEST:]
        return np.sort(scores[top])[::-1]

    return best


def by_faiss(vectors: Any) -> Best:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda hidden: index.search(hidden, BEST)[0]


def by_onnxruntime(vectors: Any) -> Best:
    """The vectors are an input that stays where it is: an initialiser of 10 million would not fit into a protobuf."""
    import onnxruntime
    from onnx import TensorProto, helper

    items, width = vectors.shape
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["hidden", "table"], ["scores"]),
            helper.make_node("TopK", ["scores", "k"], ["best", "places"]),
        ],
        "topk",
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, width]),
            helper.make_tensor_value_info("table", TensorProto.FLOAT, [width, items]),
        ],
        [
            helper.make_tensor_value_info("best", TensorProto.FLOAT, [1, BEST]),
            helper.make_tensor_value_info("places", TensorProto.INT64, [1, BEST]),
        ],
        [helper.make_tensor("k", TensorProto.INT64, [1], [BEST])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    table = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(vectors.T))

    def best(hidden: Any) -> Any:
        given = {"hidden": onnxruntime.OrtValue.ortvalue_from_numpy(hidden), "table": table}
        return session.run_with_ort_values(["best"], given)[0].numpy()

    return best


if __name__ == "__main__":
    main()
