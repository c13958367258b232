"""`lsan plan`: what a model will cost, before training."""

import argparse

from lsan.cli.console import add_recipe_arguments, chosen_recipe
from lsan.cli.terminal import console, plain_table
from lsan.compression.costs import costs_of_options
from lsan.config import recipe_from, recipe_to
from lsan.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan plan`."""
    parser.add_argument("--items", metavar="N", type=_count, required=True, help="size of the catalogue")
    parser.add_argument("--events", metavar="N", type=_count, help="events to train on; default 10 an item")
    parser.add_argument("--width", metavar="N", type=_count, help="instead of the recipe's")
    parser.add_argument("--history", metavar="N", type=_count, help="instead of the recipe's")
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Print a table of options.

    Raises:
        LsanError: when a value is out of range, or the recipe's encoder is none that the cost model knows.
    """
    content = recipe_to(chosen_recipe(args))
    content["model"] |= {name: value for name in ("width", "history") if (value := getattr(args, name)) is not None}
    recipe = recipe_from(content, where="lsan plan")
    if args.items < 2:
        raise ConfigError(f"--items {args.items}: expected at least 2")
    options = list(costs_of_options(recipe, args.items, args.events or 10 * args.items))
    table = plain_table("items have", "file", "memory to train", "memory to serve", "a recommendation")
    for one in options:
        table.add_row(
            one.option, _bytes(one.shipped), _bytes(one.training), _bytes(one.serving), f"{one.microseconds:,.0f} µs"
        )
    out = console(wide=True)  # a line that wraps still has its name and all figures
    model = recipe.model
    narrow = "" if model.item_width is None else f", items of width {model.item_width}"
    out.print(f"{args.items:,} items, width {model.width}{narrow}, histories of {model.history} events, full length")
    out.print(table)
    if not any("codes" in one.option for one in options):
        out.print(
            f"no codes: {args.items:,} items cannot fill 256 rows"
            if args.items < 256
            else f"no codes: a width of {model.vector_width} cannot be cut into 4, 8, 16 or 32 parts"
        )
    out.print(
        "file: without ids, titles and categories. Memory and time are estimates (docs/compress.md), time for this "
        "machine, on which a small model was timed; catalogues past 200,000 items should be trained with a sampled loss"
    )


def _count(text: str) -> int:
    try:
        value = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        value = 0
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 to {2**31 - 1:,}")
    return value


def _bytes(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= 0.9995 * unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit:,} {name}"
    return f"{size} B"
