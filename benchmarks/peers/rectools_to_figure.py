"""Trains RecTools' SASRecModel until it ranks the validation cases well enough or its time is up; time_to_accuracy.py
starts it. A line of JSON after each epoch: seconds of training alone, nDCG@10 by full ranking without items seen.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from protocol import Options
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback
from rectools_sasrec import sasrec, training_events

BATCH = 512

#: First place that counts nothing.
BEYOND = 11


def main() -> None:
    """Train, and print a line an epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--goal", type=float, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    options, arguments = Options.parse(parser)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cases = pd.read_json(options.data / "validation.jsonl", lines=True)
    seconds, begun = 0.0, 0.0

    def trainer() -> Any:
        # Plain functions, since RecTools copies the trainer deeply, and with it a method's object.
        def start(_trainer: Any, _module: Any) -> None:
            nonlocal begun
            begun = time.perf_counter()

        def tick(trainer: Any, _module: Any, _outputs: Any, _batch: Any, _index: int) -> None:
            trainer.should_stop = seconds + time.perf_counter() - begun > 60 * arguments.minutes

        def end(trainer: Any, module: Any) -> None:
            nonlocal seconds
            seconds += time.perf_counter() - begun
            figure = validation_ndcg(module.torch_model, model.data_preparator.item_id_map, cases, options)
            line = {"epoch": trainer.current_epoch + 1, "seconds": round(seconds, 1), "validation nDCG@10": figure}
            print(json.dumps(line), flush=True)
            trainer.should_stop |= figure >= arguments.goal

        callback = LambdaCallback(on_train_epoch_start=start, on_train_batch_end=tick, on_train_epoch_end=end)
        return Trainer(**options.trainer() | {"callbacks": [callback], "max_epochs": -1, "max_steps": -1})

    model = sasrec(options, trainer)
    model.fit(training_events(options))


@torch.no_grad()
def validation_ndcg(network: Any, ids: Any, cases: pd.DataFrame, options: Options) -> float:
    """Mean nDCG@10 over all cases; an answer that was not in training is a miss."""
    training = network.training
    network.eval()
    items = network.item_model.get_all_embeddings()
    known = set(ids.external_ids)
    total = 0.0
    for begin in range(0, len(cases), BATCH):
        part = cases.iloc[begin : begin + BATCH]
        histories = [ids.convert_to_internal([i for i in history if i in known]) for history in part["history"]]
        x = np.zeros((len(part), options.history), dtype=np.int64)
        for row, history in zip(x, histories, strict=True):
            latest = history[-options.history :]
            row[options.history - len(latest) :] = latest
        last = network.encode_sessions({"x": torch.from_numpy(x)}, items)[:, -1]
        scores = last @ items.T
        scores[:, 0] = -torch.inf  # padding
        for own, history, answer in zip(scores, histories, part["answer"], strict=True):
            own[history] = -torch.inf
            if answer in known:
                score = own[int(ids.convert_to_internal([answer])[0])]
                place = 1 + int((own > score).sum()) if torch.isfinite(score) else BEYOND
                total += float(place < BEYOND) / float(np.log2(1 + place))
    network.train(training)
    return total / len(cases)


if __name__ == "__main__":
    main()
