"""What a search writes down: search.json says what is searched, trials.jsonl what came of it."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec

from lsan.config import Count, Recipe
from lsan.errors import DataError
from lsan.files import write_atomically
from lsan.tuning.space import Space, space_from

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


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    write_atomically(folder / "trials.jsonl", b"".join(msgspec.json.encode(trial) + b"\n" for trial in trials))


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best validation nDCG@10, the earlier of two alike; None if none was finished."""
    return max((trial for trial in trials if trial.outcome == "finished"), key=lambda trial: trial.figure, default=None)


def run_folder(folder: Path, number: int) -> Path:
    """The run folder of a trial."""
    return folder / "trials" / f"{number:03}"
