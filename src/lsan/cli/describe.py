"""`lsan describe`: the parts of a trained model, with shapes and bytes."""

import argparse
from pathlib import Path

import torch
from rich.table import Table

from lsan.cli.console import console, plain_table, readable
from lsan.models.network import Network
from lsan.runs import MODEL, load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan describe`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="folder that `lsan train` wrote")


def run(args: argparse.Namespace) -> None:
    """Print what the run is and the table of its parts.

    Raises:
        LsanError: when the run cannot be used.
    """
    run = load_run(args.folder, device=torch.device("cpu"))
    header, recipe = run.header, run.header.recipe
    out = console()
    if recipe.description:
        out.print(readable(recipe.description))
    out.print(
        f"trained on {header.dataset['name']}: {header.dataset['users']:,} users, {len(run.catalogue):,} items, "
        f"{header.dataset['events']:,} events; {recipe.model.regime} regime, seed {recipe.seed}"
    )
    out.print(parts_table(run.network))
    out.print(f"{MODEL}: {(args.folder / MODEL).stat().st_size:,} bytes on disk; ids and titles are in catalogue.json")


def parts_table(network: Network) -> Table:
    """Every tensor that is saved: name, shape, dtype, numbers and bytes; then the totals."""
    parameters = {name for name, _ in network.named_parameters()}
    table = plain_table("part", "shape", "dtype", "numbers", "bytes")
    total = learnt = 0
    for name, tensor in network.state_dict().items():
        table.add_row(
            name if name in parameters else f"{name} (not learnt)",
            " x ".join(map(str, tensor.shape)),
            str(tensor.dtype).removeprefix("torch."),
            f"{tensor.numel():,}",
            f"{tensor.nbytes:,}",
        )
        total += tensor.nbytes
        learnt += tensor.numel() if name in parameters else 0
    table.add_section()
    table.add_row("learnt parameters", "", "", f"{learnt:,}", "")
    table.add_row("all parts", "", "", "", f"{total:,}")
    return table
