"""Times RePlay's compiled SasRec (ONNX, run by OpenVINO; width 64, 2 blocks, history 50); runtime.py starts it.

--histories is a JSON list of histories of raw ids, --items the number of items. The weights are random, since they do
not change its speed. It is asked as a service would ask it: ids become indices through a dictionary, `predict` scores
all items, those of the history are left out, and the ten best become ids again.
"""

import argparse
import json
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.models.nn.sequential.compiled import SasRecCompiled
from replay.models.nn.sequential.sasrec import SasRec

BEST, HISTORY = 10, 50


def main() -> None:
    """Compile, recommend, and report."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--histories", type=Path, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    histories = json.loads(arguments.histories.read_text())
    known = {raw: index for index, raw in enumerate(dict.fromkeys(raw for history in histories for raw in history))}
    ids = [*known, *(f"item {index}" for index in range(len(known), arguments.items))]
    source = TensorFeatureSource(FeatureSource.INTERACTIONS, "item")
    schema = TensorSchema(
        TensorFeatureInfo(
            "item", feature_type=FeatureType.CATEGORICAL, is_seq=True, feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[source], cardinality=arguments.items, padding_value=arguments.items,
        )
    )  # fmt: skip
    model = SasRec(schema, block_count=2, head_count=2, hidden_size=64, max_seq_len=HISTORY).eval()
    compiled = SasRecCompiled.compile(model, mode="one_query", num_threads=arguments.threads)

    def recommend(history: list[str]) -> list[tuple[str, float]]:
        indices = torch.tensor([[known[raw] for raw in history[-HISTORY:]]])
        batch = {"feature_tensor": {"item": indices}, "padding_mask": torch.ones_like(indices, dtype=torch.bool)}
        scores = compiled.predict(batch)[0]
        scores[indices[0]] = -torch.inf
        best = scores.topk(BEST)
        return [(ids[index], score) for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    taken = []
    for history in [*histories, *histories]:
        begun = time.perf_counter()
        recommend(history)
        taken.append((time.perf_counter() - begun) * 1e6)
    timed = np.array(taken[len(histories) :])
    found = {"median": float(np.median(timed)), "p99": float(np.quantile(timed, 0.99)), "queries": len(timed)}
    names = ("replay-rec", "openvino", "torch", "numpy")
    print(json.dumps({**found, **{name: version(name) for name in names}}))


if __name__ == "__main__":
    main()
