"""`lsan demo`: the whole way on the built-in simulated shop, in a few minutes on a laptop."""

import argparse
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lsan.cli.console import add_device_arguments, training_observer, use_device
from lsan.cli.describe import parts_table
from lsan.cli.export import show
from lsan.cli.page import how_to_look
from lsan.cli.prepare import summary_lines
from lsan.cli.recommend import recommendations_table
from lsan.cli.terminal import console, plain_table, ranking_progress
from lsan.config import ContextConfig, ModelConfig, Recipe, TrainingConfig, TwinAttentionConfig
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.data.simulate import ShopConfig, simulate_shop
from lsan.data.splits import Split
from lsan.evaluation.ranking import Scorer
from lsan.evaluation.report import Report
from lsan.experiment import evaluate, load_for_evaluation, start_run
from lsan.export.export import export_bundle
from lsan.files import refuse_existing
from lsan.models.baselines import Markov, Popularity
from lsan.page.site import site_files, write_site
from lsan.runs import MODEL
from lsan.runtime import Recommender

#: Causal, for speed. One full table: 2,000 items hardly need a smaller one, and digits of an index cannot tell the
#: kinds and styles of this shop apart (docs/log.md).
RECIPE = Recipe(
    description="LSAN on the simulated shop",
    model=ModelConfig(regime="causal", width=64, dropout=0.2, context=ContextConfig(), encoder=TwinAttentionConfig()),
    training=TrainingConfig(batch_size=32, learning_rate=3e-3, weight_decay=1e-5, epochs=24, patience=3),
)

#: A file that tells that a folder was made here and may be replaced.
MARKER = ".lsan-demo"

#: Test cases whose histories and recommendations are shown, and how much of a history.
SHOWN_CASES = (0, 1, 2)
SHOWN_EVENTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan demo`."""
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="folder to write; default demo")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the shop and the training")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Simulate, prepare, train, evaluate, export, recommend and write a page; print all of it. A demo of before is
    replaced.

    Raises:
        LsanError: when `--out` holds something that is not a demo.
    """
    started = time.monotonic()
    device = use_device(args)
    out, folder = console(), args.out
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()

    out.rule("1. a simulated shop", align="left")
    simulation = simulate_shop(ShopConfig(seed=args.seed))
    simulation.interactions.write_csv(folder / "log.csv")
    simulation.items.write_csv(folder / "items.csv")
    out.print(f"{folder / 'log.csv'} and {folder / 'items.csv'}: what a shop would export")

    out.rule("2. lsan prepare", align="left")
    dataset = prepare_dataset(folder / "log.csv", folder / "dataset", items=folder / "items.csv")
    for line in summary_lines(dataset.summary):
        out.print(line)

    out.rule("3. lsan train", align="left")
    recipe = RECIPE.with_seed(args.seed)
    with training_observer(recipe.training.epochs, folder / "run") as observer:
        start_run(dataset, recipe, folder / "run", device=device, observer=observer)
    out.print(f"picture of the learning curve: {folder / 'run' / 'learning-curve.png'}")

    out.rule("4. lsan evaluate", align="left")
    run, dataset, split = load_for_evaluation(folder / "run", dataset, device=device)
    reports = {}
    scorers: dict[str, Scorer] = {
        "popularity": Popularity(dataset, split),
        "Markov chain": Markov(dataset, split),
        "LSAN (one full table)": run.network,
    }
    for name, scorer in scorers.items():
        with ranking_progress() as progress:
            reports[name] = evaluate(scorer, dataset, split, run.header, "test", device=device, progress=progress)
    out.print(comparison_table(reports))
    out.print(f"{len(split.test):,} users, the last event of each among all {len(dataset.catalogue):,} items; "
              "items already bought are left out; [95% interval]")  # fmt: skip

    out.rule("5. lsan describe", align="left")
    out.print(parts_table(run.network))
    out.print(f"{MODEL}: {(folder / 'run' / MODEL).stat().st_size:,} bytes")

    out.rule("6. lsan export", align="left")
    bundle = folder / "model.lsan"
    with ranking_progress() as progress:
        show(out, export_bundle(folder / "run", bundle, dataset=dataset, progress=progress))
    out.print(f"{bundle}: all that recommending takes, without torch")

    out.rule("7. lsan recommend", align="left")
    recommender = Recommender.load(bundle)
    for case in SHOWN_CASES:
        _show_user(out, recommender, dataset, split, case)

    out.rule("8. lsan page", align="left")
    write_site(folder / "page", site_files(bundle.read_bytes()))
    out.print(f"{folder / 'page'}: the same in a browser, offline")
    out.print(how_to_look(folder / "page"))
    out.print(f"done in {time.monotonic() - started:.0f} s; everything is in {folder}/")


def comparison_table(reports: dict[str, Report]) -> Table:
    """HR@10 and nDCG@10 of each model, items already seen left out."""
    table = plain_table("test", "HR@10", "nDCG@10")
    for name, report in reports.items():
        figures = [report.unseen_items.accuracy[metric] for metric in ("HR@10", "nDCG@10")]
        table.add_row(name, *(f"{figure.mean:.4f} [{figure.low:.4f}, {figure.high:.4f}]" for figure in figures))
    return table


def _show_user(out: Console, recommender: Recommender, dataset: Dataset, split: Split, case: int) -> None:
    """History without the test event, what came next, and the recommendations."""
    start, stop = int(split.test.start[case]), int(split.test.stop[case])
    catalogue = dataset.catalogue
    assert dataset.timestamps is not None
    times = [float(moment) / 1000 for moment in dataset.timestamps[start:stop]]
    indices = [int(index) for index in dataset.items[start:stop]]
    answer = recommender.recommend([catalogue.ids[index - 1] for index in indices], 10, times=times)
    history = plain_table("bought", "category", "when")
    for index, moment in list(zip(indices, times, strict=True))[-SHOWN_EVENTS:]:
        when = datetime.fromtimestamp(moment, UTC).strftime("%a %d %b %Y %H:%M")
        history.add_row(catalogue.title_of(index), catalogue.categories[index - 1] or "", when)
    out.print(f"\n{dataset.user_ids()[int(split.test.users[case])]}, the last {SHOWN_EVENTS} of {len(indices)} events:")
    out.print(history)
    bought = int(dataset.items[stop])
    place = next((rank for rank, item in enumerate(answer, start=1) if item.id == catalogue.ids[bought - 1]), None)
    out.print(
        f"then bought: {catalogue.title_of(bought)} ({f'number {place} below' if place else 'not among the 10 below'})"
    )
    out.print(recommendations_table(answer))


def _clear(folder: Path) -> None:
    """Remove an earlier demo, known by its marker, and nothing else."""
    if folder.is_symlink() or not (folder / MARKER).exists():
        refuse_existing(folder)
    else:
        shutil.rmtree(folder)
