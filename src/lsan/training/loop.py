"""The training loop: shuffled epochs, early stopping on a validation figure, checkpoints, exact resumption."""

import copy
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parametrize

from lsan.config import Bert4RecConfig, Recipe
from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.data.windows import HistoryReader
from lsan.errors import DivergenceError
from lsan.models.histories import Histories
from lsan.models.item_tables import OutputFactors
from lsan.models.network import Network
from lsan.training.batches import (
    epoch_batches,
    hidden_at_targets,
    in_pieces,
    read_batch,
    target_events,
    training_examples,
)
from lsan.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from lsan.training.distillation import Teaching, teachers_loss
from lsan.training.losses import Loss, make_loss, native_precision
from lsan.training.memory import keep_freed_memory
from lsan.training.parallel import add_over_workers, from_first_worker, wait_for_all, worker, workers

#: Positions, padding included, that are computed at once: what larger batches give is added up. On the CPU more take
#: more memory and are no faster.
PIECE = {"cpu": 16_384, "cuda": 1_048_576}

#: Seconds between checkpoints inside an epoch.
CHECKPOINT_SECONDS = 300.0


def stream(seed: int, *names: str | int) -> int:
    """The seed of a named random stream: equal names give equal numbers, whatever was drawn elsewhere."""
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls out to. It prints nothing and knows nothing of evaluation."""

    validate: Callable[[Network], dict[str, float]]
    """Validation metrics of a network; "nDCG@10" is the one that training stops on."""
    keep: Callable[[Network], None]
    """Called with the network after each epoch that is the best so far."""
    record: Callable[[list[dict[str, float]]], None]
    """Called after each epoch with the records of all epochs so far."""
    step: Callable[[int, int, int], None]
    """Called after each step with (epoch, step, steps in the epoch)."""


def train(
    network: Network,
    dataset: Dataset,
    split: Split,
    reader: HistoryReader,
    recipe: Recipe,
    *,
    device: torch.device,
    checkpoint: Path,
    hooks: Hooks,
    teaching: Teaching | None = None,
    goes_on: bool = False,
) -> Progress:
    """Train `network` in place, continuing from `checkpoint` if that file exists. `teaching` is for a recipe that asks
    for distillation. `goes_on` says that the network has learnt before: if no epoch is better, it stays as it is, and
    the best figure is of epoch 0, which is not in the history.

    What is validated, and at its best given to `hooks.keep`, is an exponential average of the weights (Polyak and
    Juditsky 1992): after step t it moves by 1 - min(averaging, t / (t + 9)) towards them, so it forgets its start soon.

    Every step draws from a stream of its own (seed, epoch, step), so a continued run equals an uninterrupted one, bit
    for bit on the CPU with the same number of threads.

    Raises:
        DivergenceError: when the loss becomes NaN or infinite.
        DataError: when the checkpoint is damaged.
    """
    keep_freed_memory()
    settings, seed, regime = recipe.training, recipe.seed, recipe.model.regime
    examples = training_examples(split, regime, recipe.model.history)
    lengths = reader.lengths(examples.start, examples.stop)
    precision = native_precision(settings.precision, device)
    loss_of = make_loss(settings.loss, network.popularity, precision, r_drop=settings.r_drop)
    times = 2 if settings.r_drop else 1  # that an example is computed
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    average = copy.deepcopy(network).eval()
    if checkpoint.exists():
        progress = load_checkpoint(checkpoint, network, average, optimizer)
    else:  # from here on the network that was given is no longer needed
        progress = Progress()
        begun = time.monotonic()
        if goes_on:
            progress.best = from_first_worker(hooks.validate(average)["nDCG@10"] if worker() == 0 else 0.0, device)
            if worker() == 0:
                hooks.keep(average)
        progress.seconds = time.monotonic() - begun
        _save(checkpoint, network, average, optimizer, progress)
    wait_for_all()  # the first one may have nothing left to do, and takes the checkpoint away
    started, saved = time.monotonic() - progress.seconds, time.monotonic()
    while progress.epoch < settings.epochs and progress.epoch - progress.best_epoch < settings.patience:
        order = np.random.default_rng(stream(seed, "order", progress.epoch))
        batches = epoch_batches(lengths, settings.batch_size, order)
        network.train()
        while progress.step < len(batches):
            if settings.decay == "linear":
                left = 1 - (progress.epoch + progress.step / len(batches)) / settings.epochs
                optimizer.param_groups[0]["lr"] = settings.learning_rate * left
            share = batches[progress.step][worker() :: workers()]
            torch.manual_seed(stream(seed, "dropout", progress.epoch, progress.step, *[worker()] * (worker() > 0)))
            pieces = []
            for piece in in_pieces(share, lengths, PIECE[device.type] // times):
                piece = np.tile(piece, times)
                histories, targets = read_batch(reader, dataset.items, examples, piece, regime)
                loss_here = loss_of
                if isinstance(recipe.model.encoder, Bert4RecConfig):
                    targets = targets * _mask(histories.present, recipe.model.encoder.mask_share)
                elif teaching is not None and settings.distillation is not None:
                    events = target_events(examples, piece, histories.items.shape[1], regime)[(targets > 0).numpy()]
                    items, shares = teaching.of(events)
                    weight = settings.distillation.weight
                    loss_here = partial(_distilled, loss_of, weight, items.to(device), shares.to(device))
                pieces.append(_Piece(histories.to(device), targets.to(device), loss_here))
            loss, count = _update(network, optimizer, pieces, precision)
            if not np.isfinite(loss):
                raise DivergenceError(
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
                _save(checkpoint, network, average, optimizer, progress)
                saved = time.monotonic()
        metrics = hooks.validate(average) if worker() == 0 else {"nDCG@10": 0.0}
        figure = from_first_worker(metrics["nDCG@10"], device)
        progress.epoch += 1
        better = figure > progress.best
        if better:
            progress.best, progress.best_epoch = figure, progress.epoch
        if better and worker() == 0:
            hooks.keep(average)
        progress.seconds = time.monotonic() - started
        progress.history.append(
            {
                "epoch": progress.epoch,
                "loss": progress.loss_sum / max(1, progress.targets),
                **{f"validation {name}": value for name, value in metrics.items()},
                "seconds": round(progress.seconds, 1),
            }
        )
        if worker() == 0:
            hooks.record(progress.history)
        progress.step, progress.loss_sum, progress.targets = 0, 0.0, 0
        _save(checkpoint, network, average, optimizer, progress)
        saved = time.monotonic()
    return progress


def _save(
    checkpoint: Path, network: Network, average: Network, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Worker 0 writes, when its own clock says so; the others wait for it in the next step."""
    if worker() == 0:
        save_checkpoint(checkpoint, network, average, optimizer, progress)


@dataclass(frozen=True)
class _Piece:
    """Part of a batch that is computed at once."""

    histories: Histories
    targets: torch.Tensor
    """As `read_batch` gives them; in the cloze regime 0 where nothing is hidden."""
    loss_of: Loss


def _predictions(network: Network, piece: _Piece) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden vectors [positions, width] and what they should rank first [positions], padding left out."""
    chosen = piece.targets > 0
    if isinstance(network.config.encoder, Bert4RecConfig):
        hidden = network.cloze(piece.histories, chosen)[chosen]
    else:
        hidden = hidden_at_targets(network, piece.histories, piece.targets)
    return hidden, piece.targets[chosen]


def _mask(present: torch.Tensor, share: float) -> torch.Tensor:
    """Which events are hidden in the cloze regime: each with probability `share`, and the last where none is, as that
    is what prediction asks for (Sun et al. 2019, section 3.6, who add examples with only the last one hidden)."""
    masked = present & (torch.rand(present.shape, device=present.device) < share)
    masked[:, -1] |= ~masked.any(1)
    return masked


def _distilled(
    loss_of: Loss,
    weight: float,
    items: torch.Tensor,
    shares: torch.Tensor,
    hidden: torch.Tensor,
    output: OutputFactors,
    targets: torch.Tensor,
) -> torch.Tensor:
    return loss_of(hidden, output, targets) + weight * teachers_loss(hidden, output, targets, items, shares)


def _update(
    network: Network, optimizer: torch.optim.Optimizer, pieces: Sequence[_Piece], precision: torch.dtype
) -> tuple[float, int]:
    """One update by the mean loss over all targets of all pieces, whose gradients are added up one after the other.
    Returns that loss and the number of targets, over all workers."""
    device = pieces[0].targets.device
    count = torch.stack([(piece.targets > 0).sum() for piece in pieces]).sum().float()
    add_over_workers([count])
    optimizer.zero_grad(set_to_none=False)  # new ones each time would lie between what a step frees, and split it up
    total = torch.zeros((), device=device)
    with parametrize.cached():  # what rounds weights keeps nothing for its way back, so every piece may go it
        for piece in pieces:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
                hidden, targets = _predictions(network, piece)
            loss = hidden.sum()  # 0: there are no targets
            if len(targets):
                loss = piece.loss_of(hidden.float(), network.output(), targets) * (len(targets) / count)
            loss.backward()
            total += loss.detach()
    if workers() > 1:
        gradients = []
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
        add_over_workers([total, *gradients])
    optimizer.step()
    return total.item(), int(count)
