"""`lsan train`: a dataset and a recipe become a run folder; `--resume` goes on with an interrupted run."""

import argparse
from pathlib import Path

from lsan.cli.console import add_device_arguments, add_recipe_arguments, chosen_recipe, training_observer, use_device
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.experiment import resume_run, start_run
from lsan.runs import RunHeader
from lsan.tracking import tracked, tracker_names, trackers_of
from lsan.training.parallel import join_workers, leave_workers, worker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan train`."""
    parser.add_argument("dataset", metavar="DATASET", type=Path, nargs="?", help="folder that `lsan prepare` wrote")
    add_recipe_arguments(parser)
    parser.add_argument("--out", metavar="RUN", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="go on with this run instead of starting one")
    parser.add_argument(
        "--dataset", dest="moved", metavar="DIR", type=Path, help="with --resume: the run's dataset, if it has moved"
    )
    parser.add_argument(
        "--track",
        action="append",
        choices=tracker_names(),
        default=[],
        help="also send recipe and figures to this tracker (may be given twice); a resumed run keeps those it has",
    )
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train; under `torchrun` together with the other processes, of which the first one reports.

    Raises:
        LsanError: when flags do not go together, or as `start_run` and `resume_run`.
    """
    if args.resume is not None:
        if args.dataset is not None:
            raise ConfigError("--resume goes on with the run's own dataset; if that has moved, name it with --dataset")
        if any(flag is not None for flag in (args.recipe, args.preset, args.out, args.seed)):
            raise ConfigError(
                "--resume goes on with the run's own recipe, seed and folder: "
                "leave out --recipe, --preset, --seed and --out"
            )
        device = join_workers(use_device(args))
        header = RunHeader.read(args.resume)
        moved = None if args.moved is None else Dataset.open(args.moved)
        if header.progress["finished"]:
            if worker() == 0:
                print(f"{args.resume} is finished already: nothing to do")
            leave_workers()
            return
        trackers = {*args.track, *trackers_of(args.resume)}
        with (
            training_observer(header.recipe.training.epochs, args.resume) as terminal,
            tracked(terminal, trackers) as observer,
        ):
            resume_run(args.resume, moved, device=device, observer=observer)
        folder = args.resume
    else:
        if args.dataset is None or args.out is None or args.moved is not None:
            raise ConfigError("name a DATASET and a folder --out, or an interrupted run with --resume")
        dataset = Dataset.open(args.dataset)
        recipe = chosen_recipe(args)
        device = join_workers(use_device(args))
        with (
            training_observer(recipe.training.epochs, args.out) as terminal,
            tracked(terminal, args.track) as observer,
        ):
            start_run(dataset, recipe, args.out, device=device, observer=observer)
        folder = args.out
    if worker() == 0:
        progress = RunHeader.read(folder).progress
        print(
            f"best epoch {progress['best_epoch']} of {progress['epochs']}, validation nDCG@10 "
            f"{progress['validation nDCG@10']:.4f}, {progress['seconds']:.0f} s; written to {folder}"
        )
    leave_workers()
