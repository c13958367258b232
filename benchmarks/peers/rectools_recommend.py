"""Times RecTools' `recommend` of a SASRecModel (width 64, 2 blocks); runtime.py starts it.

--data is a CSV of user, item, datetime. The model is trained for one step only, since its weights do not change its
speed. With --queries it recommends for that many users one by one, else for all users at once.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

BEST = 10


def main() -> None:
    """Fit, recommend, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--history", type=int, required=True, help="events that the model reads")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    events = pd.read_csv(arguments.data)
    events[Columns.Weight] = 1
    events[Columns.Datetime] = pd.to_datetime(events["time"], unit="ms")
    events = events.rename(columns={"user": Columns.User, "item": Columns.Item})
    dataset = Dataset.construct(events.drop(columns="time"))
    model = SASRecModel(
        n_factors=64, n_blocks=2, n_heads=2, session_max_len=arguments.history, loss="softmax", batch_size=128,
        get_trainer_func=lambda: Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ),
    )  # fmt: skip
    model.fit(dataset)
    users = events[Columns.User].unique()
    if arguments.queries == 0:
        begun = time.perf_counter()
        model.recommend(users, dataset, k=BEST, filter_viewed=True)
        seconds = time.perf_counter() - begun
        found = {"users a second": len(users) / seconds, "users": len(users)}
    else:
        chosen = users[np.linspace(0, len(users) - 1, arguments.queries).astype(int)]
        taken = []
        for user in [*chosen[:5], *chosen]:
            begun = time.perf_counter()
            model.recommend([user], dataset, k=BEST, filter_viewed=True)
            taken.append((time.perf_counter() - begun) * 1e6)
        timed = np.array(taken[5:])
        found = {"median": float(np.median(timed)), "p99": float(np.quantile(timed, 0.99)), "queries": len(timed)}
    print(json.dumps({**found, "rectools": version("rectools"), "torch": version("torch"), "numpy": version("numpy")}))


if __name__ == "__main__":
    main()
