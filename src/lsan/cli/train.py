"""`lsan train`: a dataset and a recipe become a run folder; `--resume` goes on with an interrupted run."""

import argparse
from pathlib import Path

from lsan.cli.console import add_device_arguments, training_observer, use_device
from lsan.config import PAPER, load_recipe
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.experiment import resume_run, start_run
from lsan.runs import RunHeader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan train`."""
    parser.add_argument("dataset", metavar="DATASET", type=Path, nargs="?", help="folder that `lsan prepare` wrote")
    parser.add_argument(
        "--recipe", metavar="FILE", type=Path, help="TOML file, such as those in recipes/; default: the preset `paper`"
    )
    parser.add_argument("--out", metavar="RUN", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="go on with this run instead of starting one")
    parser.add_argument(
        "--dataset", dest="moved", metavar="DIR", type=Path, help="with --resume: the run's dataset, if it has moved"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="instead of the recipe's seed")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train.

    Raises:
        LsanError: when flags do not go together, or as `start_run` and `resume_run`.
    """
    if args.resume is not None:
        if args.dataset is not None:
            raise ConfigError("--resume goes on with the run's own dataset; if that has moved, name it with --dataset")
        if args.recipe is not None or args.out is not None or args.seed is not None:
            raise ConfigError(
                "--resume goes on with the run's own recipe, seed and folder: leave out --recipe, --seed and --out"
            )
        device = use_device(args)
        header = RunHeader.read(args.resume)
        moved = None if args.moved is None else Dataset.open(args.moved)
        if header.progress["finished"]:
            print(f"{args.resume} is finished already: nothing to do")
            return
        with training_observer(header.recipe.training.epochs, args.resume) as observer:
            resume_run(args.resume, moved, device=device, observer=observer)
        folder = args.resume
    else:
        if args.dataset is None or args.out is None or args.moved is not None:
            raise ConfigError("name a DATASET and a folder --out, or an interrupted run with --resume")
        dataset = Dataset.open(args.dataset)
        recipe = PAPER if args.recipe is None else load_recipe(args.recipe)
        if args.seed is not None:
            recipe = recipe.with_seed(args.seed)
        device = use_device(args)
        with training_observer(recipe.training.epochs, args.out) as observer:
            start_run(dataset, recipe, args.out, device=device, observer=observer)
        folder = args.out
    progress = RunHeader.read(folder).progress
    print(
        f"best epoch {progress['best_epoch']} of {progress['epochs']}, validation nDCG@10 "
        f"{progress['validation nDCG@10']:.4f}, {progress['seconds']:.0f} s; written to {folder}"
    )
