"""What the commands share on the terminal: the progress of training, flags for recipe and device."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch

from lsan.cli.terminal import progress_display
from lsan.config import Recipe, load_recipe
from lsan.errors import ConfigError
from lsan.experiment import Device, Observer, choose_device
from lsan.presets import load_preset, preset_names
from lsan.training.parallel import worker


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --preset, --recipe and --seed."""
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument(
        "--preset", metavar="NAME", help=f"a recipe that comes with lsan: {', '.join(preset_names())}; default lsan"
    )
    recipe.add_argument("--recipe", metavar="FILE", type=Path, help="a recipe of your own, a TOML file")
    parser.add_argument("--seed", metavar="N", type=int, help="instead of the recipe's seed")


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that these flags name.

    Raises:
        ConfigError: when there is no such preset, or the recipe or the seed is not valid.
    """
    recipe = load_preset(args.preset or "lsan") if args.recipe is None else load_recipe(args.recipe)
    return recipe if args.seed is None else recipe.with_seed(args.seed)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto is CUDA where there is one (default)",
    )
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads; default: one a core")


#: More would be a mistake, and PyTorch ends the process where it cannot make them.
_MOST_THREADS = 1024


def use_device(args: argparse.Namespace) -> torch.device:
    """Set the number of threads and choose the device.

    Raises:
        ConfigError: when the number of threads is below 1 or above 1,024, or CUDA is asked for and absent.
    """
    if args.threads is not None:
        if not 1 <= args.threads <= _MOST_THREADS:
            raise ConfigError(f"--threads {args.threads}: expected a whole number of 1 to {_MOST_THREADS}")
        torch.set_num_threads(args.threads)
    return choose_device(cast(Device, args.device))


@contextmanager
def training_observer(epochs: int, folder: Path) -> Iterator[Observer]:
    """Shows each epoch's progress and prints a line when it is done. The ETA of the whole is for all `epochs`; early
    stopping may end it sooner. Where several processes train together, only the first one reports."""
    if worker() > 0:
        yield Observer()
        return
    with progress_display() as progress:
        whole = progress.add_task(f"at most {epochs} epochs", total=float(epochs))
        current = progress.add_task("epoch")

        def step(epoch: int, step: int, steps: int) -> None:
            progress.update(current, description=f"epoch {epoch + 1}", completed=step, total=steps)
            progress.update(whole, completed=epoch + step / steps)

        def epoch(record: dict[str, float]) -> None:
            print(
                f"epoch {record['epoch']:3.0f}  loss {record['loss']:.4f}"
                f"  validation nDCG@10 {record['validation nDCG@10']:.4f}  HR@10 {record['validation HR@10']:.4f}"
                f"  {record['seconds']:.0f} s",
                flush=True,
            )

        try:
            yield Observer(step=step, epoch=epoch)
        except KeyboardInterrupt:
            print(f"go on with: lsan train --resume {folder}", file=sys.stderr)
            raise
