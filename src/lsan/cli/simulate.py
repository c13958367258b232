"""`lsan simulate`: the log and the item file of the built-in simulated shop."""

import argparse
from pathlib import Path

from lsan.data.simulate import ShopConfig, simulate_shop
from lsan.files import new_folder, refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan simulate`."""
    default = ShopConfig()
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder to write log.csv and items.csv to; must not exist yet",
    )
    parser.add_argument(
        "--users", metavar="N", type=int, default=default.users, help=f"shoppers (default {default.users})"
    )
    parser.add_argument(
        "--items",
        metavar="N",
        type=int,
        default=default.items,
        help=f"catalogue size (default {default.items})",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=default.seed, help=f"random seed (default {default.seed})"
    )


def run(args: argparse.Namespace) -> None:
    """Simulate, write, and say what was written."""
    config = ShopConfig(users=args.users, items=args.items, seed=args.seed)
    refuse_existing(args.out)
    simulation = simulate_shop(config)
    with new_folder(args.out) as folder:
        simulation.interactions.write_csv(folder / "log.csv")
        simulation.items.write_csv(folder / "items.csv")
    events = simulation.interactions.height
    print(f"{args.out / 'log.csv'}: {events:,} events of {config.users:,} users (seed {config.seed})")
    print(f"{args.out / 'items.csv'}: {config.items:,} items with titles and categories")
    print(f"next: lsan prepare {args.out / 'log.csv'} --items {args.out / 'items.csv'} --out DATASET")
