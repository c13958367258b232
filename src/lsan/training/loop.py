"""The training loop: shuffled epochs, early stopping on a validation figure, checkpoints, exact resumption."""

import copy
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lsan.config import Recipe
from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.data.windows import HistoryReader
from lsan.errors import DataError
from lsan.models.histories import Histories
from lsan.models.recommender import Lsan
from lsan.training.batches import epoch_batches, read_batch, training_examples
from lsan.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from lsan.training.losses import full_cross_entropy

logger = logging.getLogger(__name__)

#: Seconds between checkpoints inside an epoch.
CHECKPOINT_SECONDS = 300.0


def stream(seed: int, *names: str | int) -> int:
    """The seed of a named random stream: equal names give equal numbers, whatever was drawn elsewhere."""
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls out to. It prints nothing and knows nothing of evaluation."""

    validate: Callable[[Lsan], dict[str, float]]
    """Validation metrics of a network; "nDCG@10" is the one that training stops on."""
    keep: Callable[[Lsan], None]
    """Called with the network after each epoch that is the best so far."""
    record: Callable[[list[dict[str, float]]], None]
    """Called after each epoch with the records of all epochs so far."""
    step: Callable[[int, int, int], None]
    """Called after each step with (epoch, step, steps in the epoch)."""


def train(
    network: Lsan,
    dataset: Dataset,
    split: Split,
    reader: HistoryReader,
    recipe: Recipe,
    *,
    device: torch.device,
    checkpoint: Path,
    hooks: Hooks,
) -> Progress:
    """Train `network` in place, continuing from `checkpoint` if that file exists.

    What is validated, and at its best given to `hooks.keep`, is an exponential average of the weights (Polyak and
    Juditsky 1992): after step t it moves by 1 - min(averaging, t / (t + 9)) towards them, so it forgets its start soon.

    Every step draws from a stream of its own (seed, epoch, step), so a continued run equals an uninterrupted one, bit
    for bit on the CPU with the same number of threads.

    Raises:
        DataError: when the loss becomes NaN or infinite, or the checkpoint is damaged.
    """
    settings, seed = recipe.training, recipe.seed
    examples = training_examples(split, recipe.model.regime, recipe.model.history)
    lengths = reader.lengths(examples.start, examples.stop)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    average = copy.deepcopy(network).eval()
    progress = load_checkpoint(checkpoint, network, average, optimizer) if checkpoint.exists() else Progress()
    started, saved = time.monotonic() - progress.seconds, time.monotonic()
    while progress.epoch < settings.epochs and progress.epoch - progress.best_epoch < settings.patience:
        order = np.random.default_rng(stream(seed, "order", progress.epoch))
        batches = epoch_batches(lengths, settings.batch_size, order)
        network.train()
        while progress.step < len(batches):
            torch.manual_seed(stream(seed, "dropout", progress.epoch, progress.step))
            histories, targets = read_batch(
                reader, dataset.items, examples, batches[progress.step], recipe.model.regime
            )
            loss, count = _step(network, optimizer, histories.to(device), targets.to(device))
            if not np.isfinite(loss):
                raise DataError(
                    f"the loss became {loss} in epoch {progress.epoch + 1}, step {progress.step + 1}: "
                    "lower training.learning_rate"
                )
            progress.loss_sum += loss * count
            progress.targets += count
            progress.step += 1
            progress.updates += 1
            decay = min(settings.averaging, progress.updates / (progress.updates + 9))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
            hooks.step(progress.epoch, progress.step, len(batches))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                progress.seconds = time.monotonic() - started
                save_checkpoint(checkpoint, network, average, optimizer, progress)
                saved = time.monotonic()
        metrics = hooks.validate(average)
        progress.epoch += 1
        if metrics["nDCG@10"] > progress.best:
            progress.best, progress.best_epoch = metrics["nDCG@10"], progress.epoch
            hooks.keep(average)
        progress.seconds = time.monotonic() - started
        progress.history.append(
            {
                "epoch": progress.epoch,
                "loss": progress.loss_sum / progress.targets,
                **{f"validation {name}": value for name, value in metrics.items()},
                "seconds": round(progress.seconds, 1),
            }
        )
        hooks.record(progress.history)
        progress.step, progress.loss_sum, progress.targets = 0, 0.0, 0
        save_checkpoint(checkpoint, network, average, optimizer, progress)
        saved = time.monotonic()
    return progress


def _step(
    network: Lsan, optimizer: torch.optim.Optimizer, histories: Histories, targets: torch.Tensor
) -> tuple[float, int]:
    """One update. Returns the mean loss and the number of targets. The encoder runs in bfloat16 on CUDA, the loss and
    the weights stay in float32."""
    with torch.autocast(targets.device.type, dtype=torch.bfloat16, enabled=targets.device.type == "cuda"):
        if targets.dim() == 1:
            hidden = network.last_hidden(histories)
        else:
            chosen = targets > 0
            hidden, targets = network.hidden(histories)[chosen], targets[chosen]
    loss = full_cross_entropy(hidden.float(), network.output(), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), len(targets)
