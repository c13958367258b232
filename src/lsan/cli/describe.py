"""`lsan describe`: the parts of a trained model, with shapes and bytes."""

import argparse
from pathlib import Path

import torch
from rich.table import Table

from lsan.cli.terminal import console, plain_table, readable
from lsan.models.network import Network
from lsan.models.packing import layout, matrix_bits
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
    """Every part that is saved: name, shape, type, numbers, and bytes in the file; then the totals."""
    parameters = {name for name, _ in network.named_parameters()}
    table = plain_table("part", "shape", "dtype", "numbers", "bytes")
    total = learnt = 0
    state = network.state_dict()
    held, bits = layout(state, network.config), matrix_bits(state, network.config)
    for name, tensor in state.items():
        own = [one for key, one in held.items() if key == name or (key not in state and key.startswith(f"{name}."))]
        size = sum(one.nbytes for one in own)
        table.add_row(
            name if name in parameters else f"{name} (not learnt)",
            " x ".join(map(str, tensor.shape)),
            f"int{bits[name]}" if name in bits else str(own[0].dtype).removeprefix("torch."),
            f"{tensor.numel():,}",
            f"{size:,}",
        )
        total += size
        learnt += tensor.numel() if name in parameters else 0
    table.add_section()
    table.add_row("learnt parameters", "", "", f"{learnt:,}", "")
    table.add_row("all parts", "", "", "", f"{total:,}")
    return table
