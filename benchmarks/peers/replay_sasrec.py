"""Times RePlay's SasRec with cross-entropy over the whole catalogue; train_speed.py starts it.

Without options it is `SasRec.from_params`: loss CE, which scores padding too. RePlay has two classes that make the same
training faster. `--loss LogInCE` scores real targets only; with one positive item it is the same cross-entropy, but for
the 1e-6 that it adds in the logarithm. `--bucket ROWS` (LengthBucketedQueryEncoder) encodes so many histories of
similar length at a time; it fails in mixed precision (RePlay 0.22.0), and is left out there.
"""

import argparse
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import LambdaCallback
from protocol import Clock, Options, report
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import (
    ParquetModule,
    TensorFeatureInfo,
    TensorFeatureSource,
    TensorSchema,
)
from replay.nn.lightning import LightningModule
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.loss import LogInCE
from replay.nn.sequential import LengthBucketedQueryEncoder, SasRec
from replay.nn.transform.template import make_default_sasrec_transforms


def main() -> None:
    """Train as far as is timed, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loss", choices=["CE", "LogInCE"], default="CE")
    parser.add_argument("--bucket", type=int)
    options, arguments = Options.parse(parser)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    schema = TensorSchema(
        TensorFeatureInfo(
            "item",
            feature_type=FeatureType.CATEGORICAL,
            is_seq=True,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item")],
            cardinality=options.items,
            padding_value=options.items,
            embedding_dim=options.width,
        )
    )
    model = SasRec.from_params(
        schema,
        embedding_dim=options.width,
        num_heads=options.heads,
        num_blocks=options.blocks,
        max_sequence_length=options.history,
        dropout=options.dropout,
    )
    if arguments.loss == "LogInCE":
        model = SasRec(model.body, LogInCE(options.items))
    if arguments.bucket is not None and options.precision != "mixed":
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, arguments.bucket)
    data = ParquetModule(
        batch_size=options.batch,
        metadata={"train": {"item": {"shape": options.history + 1, "padding": options.items}}},
        transforms={"train": make_default_sasrec_transforms(schema)["train"]},
        train_path=str(options.data / "sequences.parquet"),
    )
    clock = Clock(options=options)

    def tick(_trainer: Any, _module: Any, outputs: Any, batch: Any, _index: int) -> None:
        clock.tick(len(batch["positive_labels"]), float(outputs["loss"]))

    lightning.Trainer(callbacks=[LambdaCallback(on_train_batch_end=tick)], **options.trainer()).fit(
        LightningModule(model, OptimizerFactory(learning_rate=options.learning_rate)), data
    )
    report(
        "replay",
        ["replay-rec", "torch", "lightning", "numpy"],
        options,
        blocks=clock.blocks(),
        losses=clock.losses,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


if __name__ == "__main__":
    main()
