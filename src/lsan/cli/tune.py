"""`lsan tune`: search for a better recipe on validation data; `--resume` goes on with an interrupted search."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsan.cli.console import add_device_arguments, add_recipe_arguments, chosen_recipe, use_device
from lsan.cli.terminal import console, plain_table, progress_display
from lsan.config import Recipe
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError
from lsan.experiment import Observer
from lsan.tuning.records import Search, Trial, best_trial
from lsan.tuning.search import SearchObserver, resume_search, start_search
from lsan.tuning.space import default_space, load_space

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan tune`."""
    parser.add_argument("dataset", metavar="DATASET", type=Path, nargs="?", help="folder that `lsan prepare` wrote")
    add_recipe_arguments(parser)
    parser.add_argument(
        "--space", metavar="FILE", type=Path, help="TOML file of what to vary, instead of the usual (docs/tuning.md)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--resume", metavar="DIR", type=Path, help="go on with this search instead of starting one")
    parser.add_argument(
        "--dataset", dest="moved", metavar="DIR", type=Path, help="with --resume: the search's dataset, if it has moved"
    )
    parser.add_argument(
        "--trials", metavar="N", type=int, help="trainings in all, those before --resume too; default 20"
    )
    parser.add_argument("--timeout", metavar="MINUTES", type=float, help="begin no trial later than this from now")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Search.

    Raises:
        LsanError: when flags do not go together, or as `start_search` and `resume_search`.
    """
    if args.trials is not None and args.trials < 1:
        raise ConfigError(f"--trials {args.trials}: expected a whole number of at least 1")
    if args.timeout is not None and not args.timeout > 0:
        raise ConfigError(f"--timeout {args.timeout}: expected minutes above 0")
    if args.resume is not None:
        if any(flag is not None for flag in (args.dataset, args.recipe, args.preset, args.space, args.out, args.seed)):
            raise ConfigError(
                "--resume goes on with the search's own dataset, recipe, space, seed and folder: leave out DATASET, "
                "--recipe, --preset, --space, --seed and --out (a dataset that has moved is named with --dataset)"
            )
        folder = args.resume
        moved = None if args.moved is None else Dataset.open(args.moved)
        trials = args.trials or Search.read(folder).trials
    else:
        if args.dataset is None or args.out is None or args.moved is not None:
            raise ConfigError("name a DATASET and a folder --out, or an interrupted search with --resume")
        folder = args.out
        dataset = Dataset.open(args.dataset)
        recipe = chosen_recipe(args)
        space = default_space(recipe) if args.space is None else load_space(args.space, recipe)
        trials = args.trials or 20
    device = use_device(args)
    try:
        with _observer(trials) as observer:
            if args.resume is not None:
                done = resume_search(
                    folder, moved, trials=args.trials, device=device, minutes=args.timeout, observer=observer
                )
            else:
                done = start_search(
                    dataset, recipe, space, folder,
                    trials=trials, device=device, minutes=args.timeout, observer=observer,
                )  # fmt: skip
    except KeyboardInterrupt:
        print(f"go on with: lsan tune --resume {folder}", file=sys.stderr)
        raise
    _report(done, trials, folder)


@contextmanager
def _observer(trials: int) -> Iterator[SearchObserver]:
    """Shows the progress of each trial and prints a line when it is done. Patience or pruning may end it sooner."""
    with progress_display() as progress:
        task = progress.add_task("trial")

        def begin(number: int, recipe: Recipe) -> Observer:
            epochs = recipe.training.epochs
            progress.reset(
                task, description=f"trial {number} of {trials}, at most {epochs} epochs", total=float(epochs)
            )
            return Observer(step=lambda epoch, step, steps: progress.update(task, completed=epoch + step / steps))

        def end(trial: Trial) -> None:
            outcome = {"finished": "", "pruned": "  pruned", "failed": f"  failed: {trial.reason}"}[trial.outcome]
            figure = f"{trial.figure:.4f}" if trial.figures else "none"
            names = _short(trial.values)
            values = " ".join(
                f"{name}={_text(value)}" for name, value in zip(names, trial.values.values(), strict=True)
            )
            print(
                f"trial {trial.number:3}  validation nDCG@10 {figure}  {len(trial.figures)} epochs"
                f"  {trial.seconds:.0f} s{outcome}  {values}",
                flush=True,
            )

        yield SearchObserver(begin=begin, end=end)


def _report(done: Sequence[Trial], trials: int, folder: Path) -> None:
    best = best_trial(done)
    if best is None:
        raise DataError(f"no trial was finished; the last one: {done[-1].reason if done else 'none began in time'}")
    finished = sorted(
        (trial for trial in done if trial.outcome == "finished"), key=lambda trial: (-trial.figure, trial.number)
    )
    keys = list(best.values)
    table = plain_table("trial", "nDCG@10", "epochs", "seconds", *_short(keys))
    for trial in finished[:_SHOWN]:
        values = [_text(trial.values[key]) for key in keys]
        table.add_row(
            str(trial.number), f"{trial.figure:.4f}", str(len(trial.figures)), f"{trial.seconds:.0f}", *values
        )
    console(wide=True).print(table)
    counts = {outcome: sum(trial.outcome == outcome for trial in done) for outcome in ("finished", "pruned", "failed")}
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count), end="")
    print(f" of {trials} trials; best recipe: {folder / 'best.toml'}")
    if len(done) < trials:
        print(f"out of time; go on with: lsan tune --resume {folder}")


def _short(keys: Iterable[str]) -> list[str]:
    """The last part of each dotted key; all of it where two end alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return [name if list(last.values()).count(name) == 1 else key for key, name in last.items()]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
