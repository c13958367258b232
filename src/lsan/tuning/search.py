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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch

from lsan.config import Count, Recipe, recipe_to
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError, DivergenceError, MissingExtraError
from lsan.experiment import Observer, dataset_facts, dataset_of, start_run
from lsan.files import new_folder, refuse_existing, write_atomically
from lsan.pictures import trials_picture
from lsan.runs import CATALOGUE, CHECKPOINT, MODEL
from lsan.training.loop import stream
from lsan.tuning.space import Space, is_number, is_range, space_from, values_of, with_values

if TYPE_CHECKING:
    import optuna

#: Trials before the first is chosen by what the earlier ones gave, and before the first may be pruned.
_STARTUP = 5
#: Epochs that every trial gets before it may be pruned.
_WARMUP = 3

Outcome = Literal["finished", "pruned", "failed"]


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What search.json holds."""

    format: Literal["lsan-search"] = "lsan-search"
    version: Literal[1] = 1
    lsan: str = metadata.version("lsan")
    """The version of lsan that began it."""
    recipe: Recipe
    """What is varied; its seed is that of the search and of every training."""
    space: Space
    """Where it is varied."""
    dataset: dict[str, Any]
    """name, path and content_hash of the dataset, and its counts."""
    trials: Count
    """How many trials there are to be."""

    def __post_init__(self) -> None:
        if not all(isinstance(self.dataset.get(name), str) for name in ("path", "content_hash")):
            raise ValueError("dataset needs a path and a content_hash")

    def write(self, folder: Path) -> None:
        write_atomically(folder / "search.json", msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, folder: Path) -> "Search":
        """Read search.json.

        Raises:
            DataError: when the folder is not that of a search, or is of another version.
            ConfigError: when its space does not fit its recipe.
        """
        path = Path(folder) / "search.json"
        try:
            search = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); name a folder of `lsan tune`") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: damaged or of another version ({error}); search anew") from error
        space_from(search.space, search.recipe, where=f"{path}: space")
        return search


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of trials.jsonl."""

    number: int
    """0, 1, ...; its run folder is trials/NNN."""
    outcome: Outcome
    """failed: the loss became infinite, memory did not suffice, or the values do not go together."""
    figures: list[float]
    """Validation nDCG@10 by epoch."""
    seconds: float
    """It took."""
    values: dict[str, Any]
    """By dotted key of the recipe."""
    reason: str = ""
    """Why it failed."""

    @property
    def figure(self) -> float:
        """The best validation nDCG@10; -1 where no epoch was finished."""
        return max(self.figures, default=-1.0)


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
    _require_packages()
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
    _require_packages()
    search = Search.read(folder)
    if trials is not None:
        search = msgspec.structs.replace(search, trials=trials)
        search.write(folder)
    dataset = dataset_of(search.dataset, dataset)
    return _run(search, dataset, folder, device=device, minutes=minutes, observer=observer)


def read_trials(folder: Path) -> list[Trial]:
    """The finished trials of a search.

    Raises:
        DataError: when trials.jsonl is damaged.
    """
    path = Path(folder) / "trials.jsonl"
    try:
        return [msgspec.json.decode(line, type=Trial) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); search anew") from error


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best validation nDCG@10, the earlier of two alike; None if none was finished."""
    return max((trial for trial in trials if trial.outcome == "finished"), key=lambda trial: trial.figure, default=None)


def run_folder(folder: Path, number: int) -> Path:
    """The run folder of a trial."""
    return folder / "trials" / f"{number:03}"


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
    while len(trials) < search.trials and (minutes is None or time.monotonic() - started < 60 * minutes):
        trial = _try(search, dataset, folder, trials, device=device, observer=observer)
        trials.append(trial)
        write_atomically(folder / "trials.jsonl", b"".join(msgspec.json.encode(trial) + b"\n" for trial in trials))
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
    asked = _ask(search, trials)
    values = {key: _value(entry, asked.params[key]) for key, entry in search.space.items()}
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
    except (ConfigError, DivergenceError, torch.OutOfMemoryError) as error:
        outcome, reason = "failed", str(error).partition("\n")[0]
    return Trial(
        number=number,
        outcome=outcome,
        values=values,
        figures=figures,
        seconds=round(time.monotonic() - started, 1),
        reason=reason,
    )


def _ask(search: Search, trials: list[Trial]) -> "optuna.Trial":
    """The next trial, with values drawn: a tree-structured Parzen estimator (Bergstra et al. 2011) and the median rule
    for pruning, both from Optuna, which here keeps nothing: it is told all earlier trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {
        "finished": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=stream(search.recipe.seed, "search", len(trials)) % 2**32, n_startup_trials=_STARTUP
        ),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=_WARMUP),
    )
    distributions = {key: _distribution(entry) for key, entry in search.space.items()}
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.outcome],
                value=None if trial.outcome == "failed" else trial.figure,
                params={key: _parameter(search.space[key], value) for key, value in trial.values.items()},
                distributions=distributions,
                intermediate_values=dict(enumerate(trial.figures, 1)),
            )
        )
    own = values_of(search.recipe, list(search.space))
    if not trials and all(_holds(search.space[key], value) for key, value in own.items()):
        study.enqueue_trial({key: _parameter(search.space[key], value) for key, value in own.items()})
    return study.ask(distributions)


def _distribution(entry: list[Any]) -> "optuna.distributions.BaseDistribution":
    """A range, or which of the choices it is: numbers are near to their neighbours, others are not."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if is_range(entry):
        low, high, scale = entry
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(low, high, log=scale == "log")
    if all(is_number(choice) for choice in entry):
        return IntDistribution(0, len(entry) - 1)
    return CategoricalDistribution(range(len(entry)))


def _value(entry: list[Any], parameter: Any) -> Any:
    """From Optuna's parameter to the recipe's value; three digits do."""
    if not is_range(entry):
        return entry[parameter]
    return min(max(float(f"{parameter:.3g}"), entry[0]), entry[1]) if isinstance(parameter, float) else parameter


def _parameter(entry: list[Any], value: Any) -> Any:
    """From the recipe's value to Optuna's parameter."""
    return value if is_range(entry) else entry.index(value)


def _holds(entry: list[Any], value: Any) -> bool:
    return is_number(value) and entry[0] <= value <= entry[1] if is_range(entry) else value in entry


def _delete_unfinished(folder: Path, trials: list[Trial]) -> None:
    """Delete what a killed trial left behind."""
    finished = {run_folder(folder, trial.number) for trial in trials}
    for path in (folder / "trials").iterdir():
        if path not in finished:
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
        {key: [_parameter(entry, trial.values[key]) for trial in trials] for key, entry in search.space.items()},
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


def _require_packages() -> None:
    try:
        import optuna  # noqa: F401
        import tomli_w  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('lsan tune needs packages that are not installed: pip install "lsan[tune]"') from error
