"""`lsan compress`: a trained run becomes one of a few hundred kilobytes."""

import argparse
import re
import sys
from pathlib import Path

from lsan.cli.console import add_device_arguments, use_device
from lsan.cli.terminal import console, plain_table, progress_display, ranking_progress
from lsan.compression.compress import Compression
from lsan.compression.report import METRICS, Change, change, write_report
from lsan.compression.search import MARGIN, Candidate, Tried, candidates, choose_for_loss, choose_for_size
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.experiment import Observer, Part, dataset_of, evaluate, split_for_evaluation
from lsan.export.bundle import shipped_parts
from lsan.runs import load_finished, load_run, refuse_folder_of_others

_LARGEST = 2**50
_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1_000_000, "kib": 1024, "mib": 1024**2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan compress`."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="a finished run; several on the same data teach together, and the student is shaped after the first",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the steps and the result")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "--target-size",
        metavar="SIZE",
        type=_size,
        help="at most so many bytes without ids, titles and categories, such as 250kB",
    )
    goal.add_argument(
        "--max-loss", metavar="SHARE", type=_share, help="as small as it gets at this loss of nDCG@10, such as 1%%"
    )
    parser.add_argument("--tries", metavar="N", type=int, default=2, help="plans to carry out at most; default 2")
    parser.add_argument("--dataset", metavar="DIR", type=Path, help="the run's dataset, if it has moved")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Compress, and print the plans, the bytes by part and the accuracy before and after. What is there in --out is
    used, so the same command goes on after an interruption.

    Raises:
        LsanError: when a run cannot be used, or no plan is as small as asked for.
    """
    if args.tries < 1:
        raise ConfigError(f"--tries {args.tries}: expected a whole number of at least 1")
    device = use_device(args)
    teachers = [load_finished(folder, device=device) for folder in args.runs]
    dataset = dataset_of(teachers[0].header.dataset, None if args.dataset is None else Dataset.open(args.dataset))
    refuse_folder_of_others(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    with progress_display() as progress:
        task = progress.add_task("")

        def step(epoch: int, step: int, steps: int) -> None:
            progress.update(task, description=f"epoch {epoch + 1}", completed=step, total=steps)

        def teaching(done: int, examples: int) -> None:
            progress.update(task, description="asking the teacher", completed=done, total=examples)

        def epoch(record: dict[str, float]) -> None:
            print(f"  epoch {record['epoch']:3.0f}  validation nDCG@10 {record['validation nDCG@10']:.4f}", flush=True)

        observer = Observer(
            begin=lambda header, folder: print(f"training {folder}", flush=True),
            step=step, epoch=epoch, teaching=teaching,
        )  # fmt: skip
        compression = Compression(teachers=teachers, dataset=dataset, folder=args.out, device=device, observer=observer)
        recipe, catalogue = compression.recipe, dataset.catalogue
        categories = int(catalogue.category_of_item.max()) if recipe.model.context is not None else 0
        known = candidates(
            recipe, len(catalogue), *compression.scoring(), compression.popularity(),
            categories=categories, all_offered=bool(teachers[0].network.offered.all()),
        )  # fmt: skip
        figure = teachers[0].header.progress["validation nDCG@10"]
        _print_plans(known, args.target_size)
        if args.target_size is not None:
            tried = choose_for_size(compression, known, args.target_size, args.tries, _print_tried)
        else:
            tried = choose_for_loss(compression, known, figure, args.max_loss, args.tries, _print_tried)
    if not tried:
        raise ConfigError("the files became larger than planned: ask for a larger size")
    changes = _changes(compression, tried[0])
    before = sum(shipped_parts(teachers[0]).values())
    write_report(args.out, args.runs, before, tried, changes)
    _print_report(before, tried[0], changes)
    if args.max_loss is not None and tried[0].figure < (1 - args.max_loss) * figure:
        print(f"no plan that was tried keeps {1 - args.max_loss:.1%}: more --tries may", file=sys.stderr)
    print(f"the compressed run is {tried[0].folder}; written {args.out / 'compression.json'} and accuracy-bytes.png")


def _changes(compression: Compression, chosen: Tried) -> list[Change]:
    """The figures of the (first) teacher and of the compressed model, as its file has it."""
    header, device = compression.teachers[0].header, compression.device
    split = split_for_evaluation(compression.teachers[0], compression.dataset)
    networks = [compression.teachers[0].network, load_run(chosen.folder, device=device).network]
    changes = []
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        with ranking_progress() as progress:
            reports = [
                evaluate(network, compression.dataset, split, header, part, device=device, progress=progress)
                for network in networks
            ]
        before, after = (one.unseen_items if header.recipe.exclude_seen else one.all_items for one in reports)
        changes.append(change(part, before, after, reports[0].users))
    return changes


def _print_plans(known: list[Candidate], target: int | None) -> None:
    table = plain_table("plan", "bytes", "estimated loss")
    shown = known if target is None else [one for one in known if one.size + MARGIN <= target]
    for candidate in sorted(shown, key=lambda one: one.loss)[:8]:
        table.add_row(candidate.plan.name, f"{candidate.size:,}", f"{candidate.loss:.1%}")
    out = console(wide=True)  # a line that wraps still has its name and all figures
    out.print("plans that no other one beats in both bytes and estimated loss, best first")
    out.print(table)


def _print_tried(tried: Tried) -> None:
    print(f"{tried.plan.name}: {tried.size:,} bytes, validation nDCG@10 {tried.figure:.4f}", flush=True)


def _print_report(before: int, chosen: Tried, changes: list[Change]) -> None:
    out = console(wide=True)  # a line that wraps still has its name and all figures
    table = plain_table("part", "bytes")
    for part, size in chosen.parts.items():
        table.add_row(part, f"{size:,}")
    out.print(f"\n{chosen.plan.name}: {chosen.size:,} bytes, {before / chosen.size:.1f} times smaller")
    out.print(table)
    table = plain_table("", "before", "after", "difference", "kept")
    for one in changes:
        for name in METRICS:
            columns = [one.before[name], one.after[name], one.difference[name]]
            figures = (f"{mean:.4f} [{low:.4f}, {high:.4f}]" for mean, low, high in columns)
            table.add_row(f"{one.part} {name}", *figures, f"{one.share(name):.3f}")
    out.print("\naccuracy [95% bootstrap interval over users]")
    out.print(table)


def _size(text: str) -> int:
    """Bytes, from 250kB, 0.3MB, 256KiB or 250000."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: expected a number and kB, MB, KiB or MiB")
    size = float(match[1]) * _UNITS[match[2]]
    if size > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:20]}... is no size of a model")
    return round(size)


def _share(text: str) -> float:
    """A share, from 1% or 0.01."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(%?)", text.strip())
    share = -1.0 if match is None else float(match[1]) / (100 if match[2] else 1)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1: expected one such as 1% or 0.01")
    return share
