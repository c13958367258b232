"""Times RecTools' SASRecModel with its full softmax loss; train_speed.py starts it.

Beside the sizes all is as RecTools has it by default: batches made in the training process (no loader workers, which
would take the cores that train), no key padding mask, no validation. It ranks the items of its training data only.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from protocol import Clock, Options, report
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main() -> None:
    """Train as far as is timed, and report."""
    options, _ = Options.parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = Clock(options=options)

    def trainer() -> Any:
        # A plain function, since RecTools copies the trainer deeply, and with it a method's object.
        def tick(_trainer: Any, _module: Any, outputs: Any, batch: Any, _index: int) -> None:
            clock.tick(len(batch["x"]), float(outputs["loss"]))

        return Trainer(callbacks=[LambdaCallback(on_train_batch_end=tick)], **options.trainer())

    model = sasrec(options, trainer)
    model.fit(training_events(options))
    report(
        "rectools",
        ["rectools", "torch", "pytorch-lightning", "numpy"],
        options,
        blocks=clock.blocks(),
        losses=clock.losses,
        parameters=sum(parameter.numel() for parameter in model.torch_model.parameters()),
    )


def sasrec(options: Options, trainer: Callable[[], Trainer]) -> Any:
    """The untrained model; RecTools calls `trainer` when it is fitted."""
    return SASRecModel(
        n_factors=options.width,
        n_blocks=options.blocks,
        n_heads=options.heads,
        dropout_rate=options.dropout,
        session_max_len=options.history,
        batch_size=options.batch,
        lr=options.learning_rate,
        loss="softmax",
        get_trainer_func=trainer,
    )


def training_events(options: Options) -> Any:
    """events.csv as RecTools reads it."""
    events = pd.read_csv(options.data / "events.csv")
    events = events.rename(columns={"user": "user_id", "item": "item_id"})
    events["weight"], events["datetime"] = 1.0, pd.to_datetime(events.index, unit="s")
    return Dataset.construct(events)


if __name__ == "__main__":
    main()
