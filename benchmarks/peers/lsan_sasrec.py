"""Times lsan; train_speed.py starts it. Always whole epochs, since the cost of a step depends on its histories."""

import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import polars as pl
import torch
from protocol import REPEATS, Options, report

from lsan.config import FullTableConfig, ModelConfig, Recipe, SasRecConfig, TrainingConfig
from lsan.data.dataset import Dataset, write_dataset
from lsan.data.splits import Cases, Split
from lsan.data.windows import HistoryReader
from lsan.models.events import training_popularity
from lsan.models.network import Network
from lsan.models.numbering import item_numbers
from lsan.runs import new_network
from lsan.training.loop import Hooks, train

PRECISIONS: dict[str, Literal["auto", "float32", "bfloat16"]] = {
    "default": "auto",
    "float32": "float32",
    "mixed": "bfloat16",
}


def main() -> None:
    """Train one epoch and those that are timed, and report."""
    options, _ = Options.parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with TemporaryDirectory() as name:
        dataset = written(options, Path(name) / "dataset")
        split = everything(dataset)
        recipe = Recipe(
            model=ModelConfig(
                history=options.history,
                width=options.width,
                dropout=options.dropout,
                table=FullTableConfig(first_vectors="random"),
                encoder=SasRecConfig(heads=options.heads, blocks=options.blocks),
            ),
            training=TrainingConfig(
                batch_size=options.batch,
                learning_rate=options.learning_rate,
                epochs=1 + REPEATS,
                patience=1 + REPEATS,
                precision=PRECISIONS[options.precision],
            ),
        )
        numbers = torch.from_numpy(item_numbers(dataset, split, recipe.model.table))
        popularity = training_popularity(dataset, split)
        network = new_network(recipe, dataset.catalogue, popularity, numbers, dataset.users)
        ends: list[float] = []

        def validate(_network: Network) -> dict[str, float]:
            ends.append(time.perf_counter())
            return {"nDCG@10": float(len(ends))}

        progress = train(
            network,
            dataset,
            split,
            HistoryReader(dataset, options.history, timed=False, known_items=None),
            recipe,
            device=torch.device("cpu"),
            checkpoint=Path(name) / "checkpoint",
            hooks=Hooks(
                validate=validate,
                keep=lambda network: None,
                record=lambda history: None,
                step=lambda epoch, step, steps: None,
            ),
        )
    report(
        "lsan",
        ["lsan", "torch", "numpy"],
        options,
        blocks=[(b - a, options.examples) for a, b in pairwise(ends)],
        losses=[record["loss"] for record in progress.history],
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def written(options: Options, folder: Path) -> Dataset:
    """The sequences as a prepared dataset, the whole catalogue in it."""
    frame = pl.read_parquet(options.data / "sequences.parquet")
    ids = pl.DataFrame({"id": range(options.items)})
    write_dataset(
        folder,
        offsets=np.concatenate([[0], frame["item"].list.len().cum_sum().to_numpy()]).astype(np.int64),
        items=(frame["item"].explode() + 1).to_numpy().astype(np.int32),
        timestamps=None,
        catalogue=ids.with_columns(title=pl.lit(None, pl.String), category=pl.lit(None, pl.String)),
        users=frame.select(id="user"),
        summary={},
    )
    return Dataset.open(folder)


def everything(dataset: Dataset) -> Split:
    """All events train: what is held out was never written."""
    nothing = np.empty(0, np.int64)
    cases = Cases(users=nothing, start=nothing, stop=nothing)
    return Split(
        train_start=dataset.offsets[:-1],
        train_stop=dataset.offsets[1:],
        validation=cases,
        test=cases,
        known_items=None,
    )


if __name__ == "__main__":
    main()
