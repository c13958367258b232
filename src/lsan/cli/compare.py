"""`lsan compare`: several models on one dataset, trained, evaluated and set beside the best."""

import argparse
import sys
from pathlib import Path
from typing import get_args

import torch

from lsan.cli.console import add_device_arguments, use_device
from lsan.cli.terminal import console, plain_table, progress_display
from lsan.comparison.entries import Entry, find_entries
from lsan.comparison.outcomes import Outcome, check_runs, find_outcome
from lsan.comparison.report import COLUMNS, explanation, table_rows, write_comparison
from lsan.comparison.rows import Comparison, compare
from lsan.data.dataset import Dataset
from lsan.data.splits import SplitName
from lsan.experiment import Observer, Part
from lsan.models.baselines import BASELINES
from lsan.presets import preset_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan compare`."""
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder that `lsan prepare` wrote")
    parser.add_argument(
        "--models",
        metavar="MODEL",
        nargs="+",
        required=True,
        help=f"baselines ({', '.join(BASELINES)}), presets ({', '.join(preset_names())}), and recipe files (NAME.toml)",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of runs and results")
    parser.add_argument(
        "--seeds", metavar="N", type=int, default=3, help="train each network with seeds 0 to N - 1; default 3"
    )
    parser.add_argument("--part", choices=get_args(Part), default="test", help="which held-out events; default test")
    parser.add_argument("--split", choices=get_args(SplitName), help="instead of the recipes' own split")
    parser.add_argument(
        "--include-seen", action="store_true", help="recommend items of the user's own history too, in every model"
    )
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Compare; what is there already is used, so the same command goes on after an interruption. Whatever ends it, the
    models that are done are written and printed.

    Raises:
        LsanError: when a model is unknown, the folder holds other runs, or a training fails.
    """
    entries = find_entries(args.models, seeds=args.seeds, split=args.split, include_seen=args.include_seen)
    dataset = Dataset.open(args.dataset)
    device = use_device(args)
    check_runs(entries, dataset, args.out)
    outcomes: list[Outcome] = []
    try:
        for number, entry in enumerate(entries, start=1):
            title = f"{entry.label} ({number} of {len(entries)})"
            outcome = _outcome(entry, title, dataset, args.part, args.out, device)
            outcomes.append(outcome)
            (ndcg, *_), (hit_rate, *_) = (outcome.figures[entry.policy][key] for key in ("nDCG@10", "HR@10"))
            print(
                f"{entry.label}: {args.part} nDCG@10 {ndcg:.4f}, HR@10 {hit_rate:.4f}, "
                f"trained in {outcome.costs.training_seconds:.0f} s",
                flush=True,
            )
    except KeyboardInterrupt:
        print(f"{len(outcomes)} of {len(entries)} are done; the same command goes on", file=sys.stderr)
        raise
    finally:
        if outcomes:
            _report(compare(outcomes, dataset, args.part), args.out)


def _outcome(entry: Entry, title: str, dataset: Dataset, part: Part, folder: Path, device: torch.device) -> Outcome:
    """The entry's outcome, with a progress bar until it is there. Early stopping may end a training sooner than the bar
    says."""
    with progress_display() as progress:
        task = progress.add_task(title, total=None)

        def step(epoch: int, step: int, steps: int) -> None:
            progress.update(task, completed=epoch + step / steps, total=float(entry.recipe.training.epochs))

        def ranked(done: int, total: int) -> None:
            progress.update(task, description=f"{title}: ranking", completed=done, total=float(total))

        return find_outcome(entry, dataset, part, folder, device=device, observer=Observer(step=step), progress=ranked)


def _report(comparison: Comparison, folder: Path) -> None:
    write_comparison(comparison, folder)
    out = console(wide=True)
    table = plain_table(*COLUMNS)
    for row in table_rows(comparison):
        table.add_row(*row)
    out.print()
    out.print(table)
    out.print(f"\n{explanation(comparison)}\nwritten {folder / 'comparison.md'}, comparison.json and pictures")
