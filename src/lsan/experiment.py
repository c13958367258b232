"""Wires data, training and evaluation: a dataset and a recipe become a run folder, a run folder becomes a report."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from lsan.config import CodedTableConfig, FullTableConfig, Recipe, SplitConfig
from lsan.data.dataset import Dataset
from lsan.data.splits import Cases, Split, leave_one_out, temporal, temporal_quantiles
from lsan.data.windows import HistoryReader, has_hours
from lsan.errors import ConfigError, DataError
from lsan.evaluation.metrics import ndcg
from lsan.evaluation.ranking import Ranking, Rankings, Scorer, rank_cases
from lsan.evaluation.report import Report, make_report
from lsan.files import new_folder, refuse_existing, write_atomically
from lsan.models.encoders.users import UserVectors
from lsan.models.events import training_events, training_popularity
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.codes import make_codes
from lsan.models.item_tables.warm_start import cooccurrence_vectors
from lsan.models.network import Network
from lsan.models.numbering import item_numbers
from lsan.models.packing import matrix_bits
from lsan.models.quantisation import round_in_use
from lsan.pictures import learning_curve
from lsan.runs import CHECKPOINT, METRICS, Run, RunHeader, load_run, new_network, write_catalogue, write_model
from lsan.training.batches import training_examples
from lsan.training.distillation import Teaching
from lsan.training.loop import Hooks, stream, train
from lsan.training.parallel import wait_for_all, worker

Part = Literal["validation", "test"]
Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: Device) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        ConfigError: when CUDA is asked for and absent, or the name is another one.
    """
    if name not in get_args(Device):
        raise ConfigError(f"device {name!r}: expected one of {', '.join(get_args(Device))}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available to PyTorch here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def make_split(dataset: Dataset, config: SplitConfig) -> Split:
    """The split that a recipe names."""
    if config.method == "leave-one-out":
        return leave_one_out(dataset)
    if config.validation_from is not None and config.test_from is not None:
        cut_offs = [_milliseconds(time) for time in (config.validation_from, config.test_from)]
        return temporal(dataset, validation_from=cut_offs[0], test_from=cut_offs[1])
    return temporal_quantiles(dataset, validation=config.validation_share, test=config.test_share)


def _milliseconds(time: datetime) -> int:
    return round(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Who wants to know how a training goes. An exception that one of them raises stops it."""

    begin: Callable[[RunHeader, Path], None] = lambda header, folder: None
    """Called with the run folder, which is there by then, before training starts or goes on."""
    step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    """Called with (epoch, step, steps in the epoch) after each step."""
    teaching: Callable[[int, int], None] = lambda done, examples: None
    """Called with (done, examples) while `lsan compress` asks the teachers."""
    epoch: Callable[[dict[str, float]], None] = lambda record: None
    """Called with the record of each finished epoch, as in metrics.jsonl."""


def start_run(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    observer: Observer,
    network: Network | None = None,
    goes_on: bool = False,
    teaching: Teaching | None = None,
) -> None:
    """Train a model into a new run folder.

    Args:
        network: what to begin with instead of first weights drawn by the recipe's seed.
        goes_on: whether it has learnt before, and is kept if no epoch is better.
        teaching: what to learn from, where the recipe asks for distillation.

    Raises:
        DataError: when the folder exists, or the split leaves nothing to train on or to select on.
        ConfigError: when the recipe asks for distillation and there is no teaching.
    """
    _need_teaching(recipe, teaching)
    if len(dataset.catalogue) == 1:
        raise DataError(f"{dataset.path}: there is one item only, so nothing to rank")
    refuse_existing(folder)
    wait_for_all()  # before one of them makes it
    split = make_split(dataset, recipe.split)
    header = RunHeader(
        recipe=recipe,
        timed=dataset.timestamps is not None and has_hours(dataset.timestamps),
        dataset=dataset_facts(dataset),
        progress={"finished": False},
    )
    if recipe.model.time is not None and not header.timed:
        raise DataError(f"{dataset.path}: [model.time] needs times of day, and this data has none")
    network = _fresh_network(dataset, split, recipe, device) if network is None else network.to(device)
    if len(training_examples(split, recipe.model.regime, recipe.model.history)) == 0:
        raise DataError(f"{dataset.path}: no user has two or more training events, so there is nothing to learn from")
    if worker() == 0:
        with new_folder(folder) as temporary:
            write_catalogue(temporary, dataset.catalogue)
            header.write(temporary)
    wait_for_all()
    _train(
        network, dataset, split, header, folder, goes_on=goes_on, teaching=teaching, device=device, observer=observer
    )


def resume_run(
    folder: Path,
    dataset: Dataset | None,
    *,
    device: torch.device,
    observer: Observer,
    teaching: Teaching | None = None,
) -> None:
    """Go on with an interrupted training; the result equals that of an uninterrupted one. A finished run is left as it
    is. `teaching` as for `start_run`.

    Raises:
        ConfigError: as `start_run`.
        DataError: when the folder is not a run or the dataset is not the one it began with.
    """
    header = RunHeader.read(folder)
    if header.progress["finished"]:
        return
    _need_teaching(header.recipe, teaching)
    dataset = dataset_of(header.dataset, dataset)
    split = make_split(dataset, header.recipe.split)
    network = _fresh_network(dataset, split, header.recipe, device)
    _train(network, dataset, split, header, folder, teaching=teaching, device=device, observer=observer)


def _need_teaching(recipe: Recipe, teaching: Teaching | None) -> None:
    if recipe.training.distillation is not None and teaching is None:
        raise ConfigError(
            "[training.distillation] is for students, which `lsan compress` trains by itself: leave it out"
        )


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What is recorded of a dataset that something was trained on."""
    return {
        "name": dataset.path.resolve().name,
        "path": str(dataset.path.resolve()),
        "content_hash": dataset.content_hash,
        "users": dataset.users,
        "items": len(dataset.catalogue),
        "events": dataset.events,
    }


def dataset_of(facts: dict[str, Any], dataset: Dataset | None) -> Dataset:
    """The dataset of which these facts were recorded: `dataset` if given, else the folder that they name.

    Raises:
        DataError: when it is missing or its content differs.
    """
    if dataset is None:
        path = Path(facts["path"])
        if not path.exists():
            raise DataError(f"the dataset {path} is gone: name its new place with --dataset")
        dataset = Dataset.open(path)
    if dataset.content_hash != facts["content_hash"]:
        raise DataError(f"{dataset.path} is not the data that was trained on (its content differs)")
    return dataset


def _fresh_network(dataset: Dataset, split: Split, recipe: Recipe, device: torch.device) -> Network:
    """The network before training, the same for the same recipe and data."""
    torch.manual_seed(stream(recipe.seed, "weights"))
    numbers = torch.from_numpy(item_numbers(dataset, split, recipe.model.table))
    popularity = training_popularity(dataset, split)
    network = new_network(recipe, dataset.catalogue, popularity, numbers, dataset.users)
    table = recipe.model.table
    if isinstance(table, CodedTableConfig) or (
        isinstance(table, FullTableConfig) and table.first_vectors == "co-occurrence"
    ):
        users, events = training_events(dataset, split)
        vectors = cooccurrence_vectors(users, events, len(popularity), recipe.model.vector_width)
        if isinstance(network.table, CodedTable) and isinstance(table, CodedTableConfig):
            try:
                codes = make_codes(vectors, table, stream(recipe.seed, "codes"), weights=(popularity + 1) ** 0.5)
            except ValueError as error:
                raise ConfigError(f"[model.table]: {error}") from error
            turn = network.table.turn
            network.table.start(codes.widened(None if turn is None else turn.detach()))
        else:
            with torch.no_grad():
                network.table.weight.copy_(vectors)
    vectors_of_users = getattr(network.encoder, "users", None)
    if isinstance(vectors_of_users, UserVectors):  # those who teach nothing are like those who are not there
        with torch.no_grad():
            vectors_of_users.weight[torch.from_numpy(split.train_stop - split.train_start < 2)] = 0.0
    return network.to(device)


def _train(
    network: Network,
    dataset: Dataset,
    split: Split,
    header: RunHeader,
    folder: Path,
    *,
    goes_on: bool = False,
    teaching: Teaching | None,
    device: torch.device,
    observer: Observer,
) -> None:
    recipe = header.recipe
    reader = history_reader(dataset, split, header)
    round_in_use(network, matrix_bits(network.state_dict(), recipe.model))
    cases, most = split.validation, recipe.training.validation_cases
    if most is not None:
        cases = cases.spread(most)

    def validate(network: Network) -> dict[str, float]:
        rankings = rank_cases(
            network, dataset, cases, reader,
            known_items=split.known_items, device=device, lists=False,
        )  # fmt: skip
        ranks = _selected(rankings, recipe).ranks
        return {"nDCG@10": float(ndcg(ranks, 10).mean()), "HR@10": float((ranks <= 10).mean())}

    def record(history: list[dict[str, float]]) -> None:
        write_atomically(folder / METRICS, "".join(json.dumps(line) + "\n" for line in history).encode())
        observer.epoch(history[-1])

    if worker() == 0:
        observer.begin(header, folder)
    progress = train(
        network, dataset, split, reader, recipe, device=device, checkpoint=folder / CHECKPOINT,
        teaching=teaching, goes_on=goes_on,
        hooks=Hooks(validate=validate, keep=partial(write_model, folder), record=record, step=observer.step),
    )  # fmt: skip
    if worker() > 0:
        return
    learning_curve(progress.history, folder / "learning-curve.png")
    finished = {
        "finished": True,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "validation nDCG@10": progress.best,
        "seconds": round(progress.seconds, 1),
    }
    RunHeader(recipe=recipe, timed=header.timed, dataset=header.dataset, progress=finished).write(folder)
    (folder / CHECKPOINT).unlink()


def history_reader(dataset: Dataset, split: Split, header: RunHeader) -> HistoryReader:
    """Reads histories as the run's model wants them."""
    return HistoryReader(dataset, header.recipe.model.history, timed=header.timed, known_items=split.known_items)


def _selected(rankings: Rankings, recipe: Recipe) -> Ranking:
    return rankings.unseen_items if recipe.exclude_seen else rankings.all_items


def evaluate(
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    header: RunHeader,
    part: Part,
    *,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Full ranking of one part of the split by a network or a baseline."""
    cases: Cases = split.test if part == "test" else split.validation
    rankings = rank_cases(
        scorer, dataset, cases, history_reader(dataset, split, header),
        known_items=split.known_items, device=device, lists=True, progress=progress,
    )  # fmt: skip
    popularity = np.concatenate([[0], training_popularity(dataset, split).numpy()])
    answers = dataset.items[cases.stop].astype(np.int64)
    return make_report(rankings, users=cases.users, answers=answers, popularity=popularity)


def load_for_evaluation(folder: Path, dataset: Dataset | None, *, device: torch.device) -> tuple[Run, Dataset, Split]:
    """A run, its dataset and its split, in which items that were removed from the run are not known.

    Raises:
        DataError: as `load_run` and `dataset_of`.
    """
    run = load_run(folder, device=device)
    dataset = dataset_of(run.header.dataset, dataset)
    return run, dataset, split_for_evaluation(run, dataset)


def split_for_evaluation(run: Run, dataset: Dataset) -> Split:
    """The run's split of its dataset, in which items that were removed from the run are not known."""
    split = make_split(dataset, run.header.recipe.split)
    offered = run.network.offered.cpu().numpy()[: len(dataset.catalogue)]  # items may have been added since
    if not offered.all():
        known = np.concatenate([[False], offered])
        split = replace(split, known_items=known if split.known_items is None else known & split.known_items)
    return split


def report_json(report: Report, header: RunHeader, part: Part) -> dict[str, Any]:
    """A report as a JSON object, with what it was made from."""
    return {"part": part, "dataset": header.dataset, "seed": header.recipe.seed, **report.to_json()}
