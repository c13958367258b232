"""Times a model that `lsan export --to onnx` wrote in onnxruntime, from raw ids to titles; runtime.py starts it.

--data holds model.onnx, model.onnx.items.jsonl and histories.json (lists of raw ids).
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime

BEST = 10


def main() -> None:
    """Load, ask every question, and report times and answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    items = [json.loads(line) for line in (folder / "model.onnx.items.jsonl").read_bytes().splitlines()]
    number_of = {item["id"]: number for number, item in enumerate(items, start=1)}
    titles = ["", *(item["title"] for item in items)]
    histories = json.loads((folder / "histories.json").read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # faster: 8 bits are decoded once
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    k = np.array(BEST)

    def recommend(history: list[object]) -> list[str]:
        numbers = np.array([[number_of.get(raw, 0) for raw in history]], dtype=np.int32)
        indices, _ = session.run(None, {"items": numbers, "k": k})
        return [titles[index] for index in indices[0].tolist() if index]

    for history in histories:
        recommend(history)
    seconds, answers = [], []
    for history in histories:
        begun = time.perf_counter()
        answers.append(recommend(history))
        seconds.append(time.perf_counter() - begun)
    taken = np.array(seconds) * 1e6
    print(json.dumps({
        "median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99)), "queries": len(taken),
        "version": version("onnxruntime"), "answers": answers,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
