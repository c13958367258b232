"""The search: trials one after another, each a training in a run folder of its own, the weak ones stopped early.

search.json      format, version, recipe, space, dataset, how many trials
trials.jsonl     one line a finished trial: outcome, values, validation nDCG@10 by epoch, seconds
trials/NNN       run folders; weights only in that of the best
best.toml        the recipe with the values of the best trial
trials.png       picture of the trials

What is drawn for a trial depends only on the recipe's seed, the trial's number and the lines before it. So a search
that was killed goes on as if it had not been: the trial under way is trained again from its start.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from lsan.config import Recipe, recipe_to
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DivergenceError
from lsan.experiment import Observer, dataset_facts, dataset_of, start_run
from lsan.extras import require_extra
from lsan.files import new_folder, refuse_existing, write_atomically
from lsan.pictures import trials_picture
from lsan.runs import CATALOGUE, CHECKPOINT, MODEL
from lsan.tuning.proposals import parameter_of, propose, value_of
from lsan.tuning.records import Outcome, Search, Trial, best_trial, read_trials, run_folder, write_trials
from lsan.tuning.space import Space, is_range, with_values


@dataclass(frozen=True, kw_only=True)
class SearchObserver:
    """Who wants to know how a search goes."""

    begin: Callable[[int, Recipe], Observer] = lambda number, recipe: Observer()
    """Called with number and recipe of a trial that begins; what it returns observes the training."""
    end: Callable[[Trial], None] = lambda trial: None
    """Called with each finished trial."""


def start_search(
    dataset: Dataset,
    recipe: Recipe,
    space: Space,
    folder: Path,
    *,
    trials: int,
    device: torch.device,
    minutes: float | None = None,
    observer: SearchObserver,
) -> list[Trial]:
    """Search into a new folder. Where the space has all of the recipe's own values, the first trial is the recipe.

    Args:
        minutes: no trial begins later than this after the start.

    Raises:
        DataError: when the folder exists, or as `start_run`.
        MissingExtraError: when Optuna or tomli-w is not installed.
    """
    require_extra("tune", "optuna", "tomli_w", needed_by="lsan tune")
    refuse_existing(folder)
    search = Search(recipe=recipe, space=space, dataset=dataset_facts(dataset), trials=trials)
    with new_folder(folder) as temporary:
        search.write(temporary)
        (temporary / "trials").mkdir()
    return _run(search, dataset, folder, device=device, minutes=minutes, observer=observer)


def resume_search(
    folder: Path,
    dataset: Dataset | None,
    *,
    trials: int | None = None,
    device: torch.device,
    minutes: float | None = None,
    observer: SearchObserver,
) -> list[Trial]:
    """Go on with a search.

    Args:
        trials: instead of the number that it began with, counting those that are done.
        minutes: no trial begins later than this from now.

    Raises:
        DataError: when the folder is not that of a search, or the dataset is not the one it began with.
        MissingExtraError: as `start_search`.
    """
    require_extra("tune", "optuna", "tomli_w", needed_by="lsan tune")
    search = Search.read(folder)
    if trials is not None:
        search = msgspec.structs.replace(search, trials=trials)
        search.write(folder)
    dataset = dataset_of(search.dataset, dataset)
    return _run(search, dataset, folder, device=device, minutes=minutes, observer=observer)


def _run(
    search: Search,
    dataset: Dataset,
    folder: Path,
    *,
    device: torch.device,
    minutes: float | None,
    observer: SearchObserver,
) -> list[Trial]:
    started = time.monotonic()
    trials = read_trials(folder)
    _delete_unfinished(folder, trials)
    _keep_best(search, folder, trials)  # again, for a kill after the last line was written
    while len(trials) < search.trials and (minutes is None or time.monotonic() - started < 60 * minutes):
        trial = _try(search, dataset, folder, trials, device=device, observer=observer)
        trials.append(trial)
        write_trials(folder, trials)
        _keep_best(search, folder, trials)
        observer.end(trial)
    if best_trial(trials) is not None:
        _draw(search, folder, trials)
    return trials


def _try(
    search: Search,
    dataset: Dataset,
    folder: Path,
    trials: list[Trial],
    *,
    device: torch.device,
    observer: SearchObserver,
) -> Trial:
    import optuna

    number, started = len(trials), time.monotonic()
    figures: list[float] = []
    asked = propose(search, trials)
    values = {key: value_of(entry, asked.params[key]) for key, entry in search.space.items()}
    outcome: Outcome = "finished"
    reason = ""
    try:
        recipe = with_values(search.recipe, values, where="these values do not go together")
        listener = observer.begin(number, recipe)

        def epoch(record: dict[str, float]) -> None:
            listener.epoch(record)
            figures.append(record["validation nDCG@10"])
            asked.report(figures[-1], len(figures))
            if asked.should_prune():
                raise optuna.TrialPruned

        listening = replace(listener, epoch=epoch)
        start_run(dataset, recipe, run_folder(folder, number), device=device, observer=listening)
    except optuna.TrialPruned:
        outcome = "pruned"
    except (ConfigError, DivergenceError) as error:
        outcome, reason = "failed", str(error).partition("\n")[0]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        outcome, reason = "failed", f"memory does not suffice: {error}".partition("\n")[0]
    return Trial(
        number=number,
        outcome=outcome,
        values=values,
        figures=figures,
        seconds=round(time.monotonic() - started, 1),
        reason=reason,
    )


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """On the CPU PyTorch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _delete_unfinished(folder: Path, trials: list[Trial]) -> None:
    """Delete what a killed trial left behind."""
    finished = {run_folder(folder, trial.number) for trial in trials}
    for path in (folder / "trials").iterdir():
        if path.is_dir() and path not in finished:
            shutil.rmtree(path)


def _keep_best(search: Search, folder: Path, trials: list[Trial]) -> None:
    """Write best.toml, and delete all weights but those of the best trial."""
    best = best_trial(trials)
    for trial in trials:
        if best is None or trial.number != best.number:
            for name in (MODEL, CHECKPOINT, CATALOGUE):
                (run_folder(folder, trial.number) / name).unlink(missing_ok=True)
    if best is not None:
        recipe = with_values(search.recipe, best.values, where="best trial")
        write_atomically(folder / "best.toml", _toml(recipe, f"best of {len(trials)} trials").encode())


def _draw(search: Search, folder: Path, trials: list[Trial]) -> None:
    ranges = {key: entry for key, entry in search.space.items() if is_range(entry)}
    trials_picture(
        [trial.figure for trial in trials],
        [trial.outcome == "finished" for trial in trials],
        {key: [parameter_of(entry, trial.values[key]) for trial in trials] for key, entry in search.space.items()},
        {key: [str(choice) for choice in entry] for key, entry in search.space.items() if key not in ranges},
        {key for key, (_, _, scale) in ranges.items() if scale == "log"},
        folder / "trials.png",
    )


def _toml(recipe: Recipe, description: str) -> str:
    import tomli_w

    def without_none(table: dict[str, Any]) -> dict[str, Any]:
        return {
            key: without_none(value) if isinstance(value, dict) else value
            for key, value in table.items()
            if value is not None
        }

    table = recipe_to(recipe)
    before = table["description"]
    return tomli_w.dumps(without_none(table | {"description": f"{before}; {description}" if before else description}))
