"""From an entry to its figures and ranks: trained, resumed or found there, and evaluated once.

DIR/runs/NAME-SEED/              run folder of a network
DIR/runs/NAME-SEED.PART.json     its figures, and what they were made from; NAME.PART.json of a baseline
DIR/runs/NAME-SEED.PART.parquet  user and ranks of each case
"""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lsan.comparison.entries import Entry, Policy
from lsan.config import recipe_to
from lsan.data.dataset import Dataset
from lsan.errors import DataError
from lsan.evaluation.latency import recommendation_microseconds
from lsan.evaluation.ranking import Scorer
from lsan.experiment import (
    Observer,
    Part,
    dataset_facts,
    evaluate,
    history_reader,
    make_split,
    resume_run,
    start_run,
)
from lsan.files import write_atomically
from lsan.models.baselines import BASELINES
from lsan.runs import MODEL, RunHeader, load_run, refuse_folder_of_others

#: Column of each policy in the file of ranks.
_RANKS: dict[Policy, str] = {"unseen items": "rank_unseen_items", "all items": "rank_all_items"}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model takes."""

    parameters: int | None
    """Learnt numbers; None for a baseline."""
    bytes: int | None
    """Size of model.safetensors; None for a baseline."""
    training_seconds: float
    """Until training stopped, validation included; of a baseline, to count."""
    recommendation_microseconds: float
    """From one history to its 10 best items, on one thread: median over histories."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an entry achieved."""

    entry: Entry
    """What was evaluated."""
    costs: Costs
    """What it took."""
    figures: dict[str, Any]
    """Its report, as `Report.to_json` gives it."""
    users: npt.NDArray[np.int64]
    """User of each case. Shape [cases]."""
    ranks: dict[Policy, npt.NDArray[np.float64]]
    """Rank of each case's answer. Shape [cases] each."""


def check_runs(entries: Sequence[Entry], dataset: Dataset, folder: Path) -> None:
    """See to it, before hours of training, that the runs in the folder are those that are asked for.

    Raises:
        DataError: when a run is of other data or of another recipe; the keys that differ are named. Or when the folder
            is itself a dataset or a run.
    """
    refuse_folder_of_others(folder)
    for entry in entries:
        run = folder / "runs" / entry.label
        if entry.baseline or not _is_there(run):
            continue
        header = RunHeader.read(run)
        advice = "name another --out, or delete that folder"
        if header.dataset["content_hash"] != dataset.content_hash:
            raise DataError(f"{run} was trained on other data ({header.dataset['name']}): {advice}")
        differences = _differences(recipe_to(header.recipe), recipe_to(entry.recipe))
        if differences:
            raise DataError(f"{run} was trained by another recipe ({'; '.join(differences)}): {advice}")


def _is_there(run: Path) -> bool:
    return run.is_dir() and any(run.iterdir())


def _differences(there: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys in which two recipes differ, with both values. How a recipe describes itself does not count."""
    found = []
    for key in sorted({*there, *asked} - {"description"}):
        one, other = there.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key} is {json.dumps(one)}, asked for is {json.dumps(other)}")
    return found


def find_outcome(
    entry: Entry,
    dataset: Dataset,
    part: Part,
    folder: Path,
    *,
    device: torch.device,
    observer: Observer,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Train what is untrained, resume what was interrupted, evaluate what was not evaluated.

    Raises:
        DataError: as `start_run`, `resume_run` and `load_run`.
    """
    run = folder / "runs" / entry.label
    if not entry.baseline:
        if _is_there(run):
            resume_run(run, dataset, device=device, observer=observer)
        else:
            start_run(dataset, entry.recipe, run, device=device, observer=observer)
    made_from = {
        "lsan": version("lsan"),
        "dataset": dataset.content_hash,
        "split": msgspec.to_builtins(entry.recipe.split),
        "part": part,
        "model": None if entry.baseline else hashlib.sha256((run / MODEL).read_bytes()).hexdigest(),
    }
    figures, ranks = (run.with_name(f"{entry.label}.{part}.{suffix}") for suffix in ("json", "parquet"))
    table = _ranks_in(ranks) if _made_from(figures) == made_from else None
    if table is None:
        content, table = _evaluate(entry, dataset, part, run, device=device, progress=progress)
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        run.parent.mkdir(parents=True, exist_ok=True)
        figures.unlink(missing_ok=True)
        write_atomically(ranks, buffer.getvalue())
        write_atomically(figures, (json.dumps({"made_from": made_from, **content}, indent=1) + "\n").encode())
    content = json.loads(figures.read_bytes())
    return Outcome(
        entry=entry,
        costs=Costs(**content["costs"]),
        figures=content["figures"],
        users=table["user"].to_numpy(),
        ranks={policy: table[column].to_numpy() for policy, column in _RANKS.items()},
    )


def _ranks_in(path: Path) -> pl.DataFrame | None:
    """The ranks of a file, None where there are none that can be read."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _made_from(figures: Path) -> Any:
    """What figures were made from, None where there are none that can be read."""
    try:
        return json.loads(figures.read_bytes())["made_from"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _evaluate(
    entry: Entry,
    dataset: Dataset,
    part: Part,
    run: Path,
    *,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Figures and costs as a JSON object; user and ranks of each case."""
    split = make_split(dataset, entry.recipe.split)
    scorer: Scorer
    if entry.baseline:
        started = time.monotonic()
        scorer = BASELINES[entry.name](dataset, split)
        costs = {"parameters": None, "bytes": None, "training_seconds": round(time.monotonic() - started, 3)}
        header = RunHeader(
            recipe=entry.recipe, timed=False, dataset=dataset_facts(dataset), progress={"finished": True}
        )
    else:
        loaded = load_run(run, device=device)
        scorer, header = loaded.network, loaded.header
        costs = {
            "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
            "bytes": (run / MODEL).stat().st_size,
            "training_seconds": header.progress["seconds"],
        }
    report = evaluate(scorer, dataset, split, header, part, device=device, progress=progress)
    if isinstance(scorer, torch.nn.Module):
        scorer.cpu()
    microseconds = recommendation_microseconds(
        scorer, split.test if part == "test" else split.validation, history_reader(dataset, split, header)
    )
    content = {
        "costs": {**costs, "recommendation_microseconds": round(microseconds, 1)},
        "figures": report.to_json(),
    }
    ranks = {"unseen items": report.unseen_items.ranks, "all items": report.all_items.ranks}
    return content, pl.DataFrame({"user": report.users, **{_RANKS[policy]: ranks[policy] for policy in _RANKS}})
