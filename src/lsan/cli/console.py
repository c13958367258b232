"""What the commands share on the terminal: tables, progress bars with an ETA, flags for recipe and device."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lsan.config import Recipe, load_recipe
from lsan.errors import ConfigError
from lsan.experiment import Device, Observer, choose_device
from lsan.presets import load_preset, preset_names
from lsan.training.parallel import worker

_WIDE = 160


def console(*, wide: bool = False) -> Console:
    """Standard output; wide where it is not a terminal, so that nothing is cut in a file or a pipe, or where that is
    asked for: a narrow terminal then wraps long lines."""
    width = max(Console().width, _WIDE) if wide else None if sys.stdout.isatty() else _WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def readable(text: str) -> str:
    """Text from a log as it may be printed: control characters would steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is left-aligned and the others are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    return table


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


def use_device(args: argparse.Namespace) -> torch.device:
    """Set the number of threads and choose the device.

    Raises:
        ConfigError: when the number of threads is below 1, or CUDA is asked for and absent.
    """
    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads {args.threads}: expected a whole number of at least 1")
        torch.set_num_threads(args.threads)
    return choose_device(cast(Device, args.device))


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on standard error; silent where that is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        yield progress


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


@contextmanager
def ranking_progress() -> Iterator["Ticker"]:
    """Shows how many cases are ranked."""
    with progress_display() as progress:
        yield Ticker(progress)


class Ticker:
    """Called with (done, total)."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("ranking")

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
