"""`lsan export`: a run as one file that recommends without torch."""

import argparse
from pathlib import Path
from typing import get_args

from rich.console import Console

from lsan.cli.inspect import parts_table
from lsan.cli.terminal import console, plain_table, ranking_progress
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.export.export import Exported, export_bundle, items_path
from lsan.export.onnx_settings import ANSWERS, PRECISIONS
from lsan.export.program import Arithmetic
from lsan.export.static_engines import STATIC_ENGINES
from lsan.export.static_export import export_static
from lsan.export.verify import HISTORIES
from lsan.extras import require_extra
from lsan.files import refuse_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan export`."""
    parser.add_argument(
        "source", metavar="RUN_OR_FILE", type=Path,
        help="folder that `lsan train` or `lsan compress` wrote; for --to onnx also a file that `lsan export` wrote",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file, such as model.lsan")
    parser.add_argument(
        "--to", choices=["bundle", "onnx", "executorch", "litert"], default="bundle", help="default: bundle"
    )
    parser.add_argument(
        "--arithmetic", choices=get_args(Arithmetic),
        help="of a bundle; int8 rounds what goes into the encoder's matrices to 8 bits too: faster, nearly as accurate "
        "(the report tells); for runs whose encoder is quantised. Default: float32",
    )  # fmt: skip
    parser.add_argument("--dataset", metavar="DIR", type=Path, help="the run's dataset, if it has moved")
    parser.add_argument(
        "--onnx-output", choices=ANSWERS, help="the best items (top-k, the default), or products with the item tables"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of an ONNX model's numbers; default: float32")


def run(args: argparse.Namespace) -> None:
    """Export, and print what was written and found.

    Raises:
        LsanError: when the run cannot be used, or the file does not answer as the model does; then nothing is written.
    """
    refuse_folder(args.out)  # before the test cases are ranked
    if args.to != "bundle" and args.arithmetic is not None:
        raise ConfigError("--arithmetic goes with a bundle; an ONNX model has --precision")
    if args.to == "onnx":
        _to_onnx(args)
        return
    for flag in ("onnx_output", "precision"):
        if getattr(args, flag) is not None:
            raise ConfigError(f"--{flag.replace('_', '-')} goes with --to onnx")
    if args.to in STATIC_ENGINES:
        _to_static_engine(args)
        return
    if args.source.is_file():
        raise ConfigError(f"{args.source} is a file, and a bundle is made of a run's folder; --to onnx takes a file")
    with ranking_progress() as progress:
        exported = export_bundle(
            args.source, args.out, arithmetic=args.arithmetic or "float32", dataset=_dataset(args), progress=progress
        )
    show(console(), exported)
    console().print(f"written {args.out}")


def _to_onnx(args: argparse.Namespace) -> None:
    require_extra("onnx", "onnx", "onnxruntime", needed_by="--to onnx")
    from lsan.export.onnx_export import export_onnx

    with ranking_progress() as progress:
        exported = export_onnx(
            args.source, args.out, answer=args.onnx_output or ANSWERS[0], precision=args.precision or PRECISIONS[0],
            dataset=_dataset(args), progress=progress,
        )  # fmt: skip
    answer = "products with the item tables out" if args.onnx_output == "tables" else "ten titles out"
    show(console(), exported, whole_name="both files", answer=answer)
    console().print(f"written {args.out} and {items_path(args.out)}")


def _to_static_engine(args: argparse.Namespace) -> None:
    with ranking_progress() as progress:
        exported = export_static(args.source, args.out, engine=args.to, dataset=_dataset(args), progress=progress)
    show(console(), exported, whole_name="both files")
    console().print(f"written {args.out} and {items_path(args.out)}")


def _dataset(args: argparse.Namespace) -> Dataset | None:
    return None if args.dataset is None else Dataset.open(args.dataset)


def show(out: Console, exported: Exported, *, whole_name: str = "the file", answer: str = "ten titles out") -> None:
    """Bytes by part, and what was found of what was written."""
    out.print(parts_table(exported.parts, whole_name))
    out.print()
    for line in _findings(exported, answer):
        out.print(line)
    if exported.report is not None:
        table = plain_table("test, by the file itself", "HR@10", "nDCG@10")
        policies = {"unseen items only": exported.report.unseen_items, "all items": exported.report.all_items}
        for name, policy in policies.items():
            figures = [policy.accuracy[metric] for metric in ("HR@10", "nDCG@10")]
            table.add_row(name, *(f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in figures))
        out.print(table)


def _findings(exported: Exported, answer: str) -> list[str]:
    lines = [
        f"scores differ from the model's by at most {exported.difference:.1e} of the largest, on made-up histories"
    ]
    if exported.agreement is None:
        lines.append(
            f"no dataset is at hand: nothing was compared on {HISTORIES} real histories, and the accuracy of the file "
            "was not measured; of a run, --dataset DIR says where it is"
        )
    else:
        found = exported.agreement
        lines.append(f"and by at most {found.difference:.1e}: {found.histories:,} histories of test cases")
    if exported.latency is not None:
        median, slow = exported.latency
        lines.append(
            f"raw ids in, {answer}: {median:.0f} microseconds (99th percentile {slow:.0f}), one thread, "
            f"{exported.engine}"
        )
    return lines
