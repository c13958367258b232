"""`lsan evaluate`: full ranking of the held-out events, with intervals, and the per-user ranks as a file."""

import argparse
import io
import json
import math
from pathlib import Path

import polars as pl
from rich.table import Table

from lsan.cli.console import add_device_arguments, use_device
from lsan.cli.terminal import console, plain_table, ranking_progress
from lsan.data.dataset import Dataset
from lsan.evaluation.metrics import CUT_OFFS
from lsan.evaluation.report import PolicyReport, Report
from lsan.experiment import evaluate, load_for_evaluation, report_json
from lsan.files import write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan evaluate`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="folder that `lsan train` wrote")
    parser.add_argument("--dataset", metavar="DIR", type=Path, help="the run's dataset, if it has moved")
    parser.add_argument(
        "--part", choices=["test", "validation"], default="test", help="which held-out events; default test"
    )
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate, print two tables, and write RUN/PART.json (figures) and RUN/PART-ranks.parquet (per-user ranks).

    Raises:
        LsanError: when the run or its dataset cannot be used.
    """
    device = use_device(args)
    dataset = None if args.dataset is None else Dataset.open(args.dataset)
    run, dataset, split = load_for_evaluation(args.folder, dataset, device=device)
    with ranking_progress() as progress:
        report = evaluate(run.network, dataset, split, run.header, args.part, device=device, progress=progress)
    known = len(dataset.catalogue) if split.known_items is None else int(split.known_items.sum())
    out = console(wide=True)  # a line that wraps still has its name and all figures
    for table in report_tables(report):
        out.print(table)
        out.print()
    out.print(
        f"{len(report.answers):,} {args.part} cases, each ranked among {known:,} items; "
        "ties count half; [95% bootstrap interval over users]",
    )
    figures = args.folder / f"{args.part}.json"
    ranks = args.folder / f"{args.part}-ranks.parquet"
    write_atomically(figures, (json.dumps(report_json(report, run.header, args.part), indent=1) + "\n").encode())
    write_atomically(ranks, _ranks_file(report, dataset))
    out.print(f"written {figures} and {ranks}")


def report_tables(report: Report) -> list[Table]:
    """One table a policy for items already seen."""
    return [
        _policy_table("unseen items only (the user's own history is left out)", report.unseen_items),
        _policy_table("all items (the user's own history is ranked too)", report.all_items),
    ]


def _policy_table(title: str, policy: PolicyReport) -> Table:
    table = plain_table("", *(f"@{k}" for k in CUT_OFFS), title=title)
    for name in ("HR", "nDCG", "MRR"):
        figures = [policy.accuracy[f"{name}@{k}"] for k in CUT_OFFS]
        table.add_row(name, *(f"{figure.mean:.4f} [{figure.low:.4f}, {figure.high:.4f}]" for figure in figures))
    table.add_row("coverage", *(f"{policy.coverage[k]:.1%}" for k in CUT_OFFS))
    table.add_row("popularity bias", *(_times(policy.popularity_bias[k]) for k in CUT_OFFS))
    return table


def _times(ratio: float) -> str:
    return "-" if math.isnan(ratio) else f"{ratio:.2f}x"


def _ranks_file(report: Report, dataset: Dataset) -> bytes:
    content = io.BytesIO()
    catalogue = pl.Series(dataset.catalogue.ids)
    pl.DataFrame(
        {
            "user": dataset.user_ids()[report.users],
            "item": catalogue[report.answers - 1],
            "rank_unseen_items": report.unseen_items.ranks,
            "rank_all_items": report.all_items.ranks,
        }
    ).write_parquet(content)
    return content.getvalue()
