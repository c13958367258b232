"""`lsan export`: a run as one file that recommends without torch."""

import argparse
from pathlib import Path
from typing import get_args

from rich.console import Console

from lsan.cli.inspect import parts_table
from lsan.cli.terminal import console, plain_table, ranking_progress
from lsan.data.dataset import Dataset
from lsan.export.export import Exported, export_bundle
from lsan.export.program import Arithmetic
from lsan.export.verify import HISTORIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan export`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="folder that `lsan train` or `lsan compress` wrote")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file, such as model.lsan")
    parser.add_argument(
        "--arithmetic", choices=get_args(Arithmetic), default="float32",
        help="int8 rounds what goes into the encoder's matrices to 8 bits too: faster, nearly as accurate (the report "
        "tells); for runs whose encoder is quantised",
    )  # fmt: skip
    parser.add_argument("--dataset", metavar="DIR", type=Path, help="the run's dataset, if it has moved")


def run(args: argparse.Namespace) -> None:
    """Export, and print what was written and found.

    Raises:
        LsanError: when the run cannot be used, or the file does not answer as the model does; then nothing is written.
    """
    dataset = None if args.dataset is None else Dataset.open(args.dataset)
    with ranking_progress() as progress:
        exported = export_bundle(args.folder, args.out, arithmetic=args.arithmetic, dataset=dataset, progress=progress)
    show(console(), exported)
    console().print(f"written {args.out}")


def show(out: Console, exported: Exported) -> None:
    """Bytes by part, and what the file was found to do."""
    out.print(parts_table(exported.parts))
    out.print()
    for line in _findings(exported):
        out.print(line)
    if exported.report is not None:
        table = plain_table("test, by the file itself", "HR@10", "nDCG@10")
        policies = {"unseen items only": exported.report.unseen_items, "all items": exported.report.all_items}
        for name, policy in policies.items():
            figures = [policy.accuracy[metric] for metric in ("HR@10", "nDCG@10")]
            table.add_row(name, *(f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in figures))
        out.print(table)


def _findings(exported: Exported) -> list[str]:
    lines = [
        f"scores differ from the model's by at most {exported.difference:.1e} of the largest, on made-up histories"
    ]
    if exported.agreement is None:
        lines.append(
            f"the run's dataset is not where it was: nothing was compared on {HISTORIES} real histories, and the "
            "accuracy of the file was not measured; --dataset DIR says where it is"
        )
    else:
        found = exported.agreement
        lines.append(f"and by at most {found.difference:.1e}: {found.histories:,} histories of test cases")
    if exported.latency is not None:
        median, slow = exported.latency
        lines.append(
            f"raw ids in, ten titles out: {median:.0f} microseconds (99th percentile {slow:.0f}), one thread, "
            f"{exported.engine}"
        )
    return lines
