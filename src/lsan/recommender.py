"""The trained recommender: raw ids in, titles and scores out."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsan.config import PAPER, Recipe
from lsan.data.catalogue import RawId
from lsan.data.prepare import prepare_dataset
from lsan.data.windows import hour_slots
from lsan.errors import ConfigError
from lsan.experiment import Device, Observer, choose_device, start_run
from lsan.files import new_folder
from lsan.models.histories import Histories
from lsan.runs import Run, load_run, write_run

#: A point in time: a datetime (UTC where it has no zone) or seconds since 1970 UTC.
Time = datetime | float


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One recommended item."""

    id: RawId
    """Raw id, as the log had it."""
    title: str
    """Title; the raw id where the item has none."""
    category: str | None
    """Category, None where unknown."""
    score: float
    """The model's score (a logit over the catalogue): larger is better, comparable within one answer."""


@dataclass(frozen=True, kw_only=True)
class Recommendations(Sequence[Recommendation]):
    """The answer to one history, best first. Fewer than k when the catalogue has no more."""

    items: tuple[Recommendation, ...]
    """Best first."""
    unknown_ids: tuple[RawId, ...]
    """Ids of the history that the catalogue lacks; they were skipped."""
    by_popularity: bool
    """True when no id of the history was known, so that the most popular items are given."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)


class Recommender:
    """A trained model with its catalogue."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._device = next(run.network.parameters()).device

    @classmethod
    def fit(
        cls,
        log: Any,
        recipe: Recipe = PAPER,
        *,
        items: Any = None,
        device: Device = "auto",
        observer: Observer | None = None,
    ) -> "Recommender":
        """Train on an interaction log: a Polars or pandas frame, or a file that `lsan prepare` reads.

        Args:
            log: columns for user, item and, if there are times, timestamp, under their usual names.
            recipe: what to train, by default the preset `paper`; `load_recipe` reads one from a file.
            items: optional frame or file of item ids, titles and categories.
            observer: told about steps and epochs.

        Raises:
            DataError: when the log is malformed or too small to hold anything out.
            ConfigError: when the device is absent.
        """
        with tempfile.TemporaryDirectory(prefix="lsan-") as folder:
            dataset = prepare_dataset(log, Path(folder) / "dataset", items=items)
            run = Path(folder) / "run"
            start_run(dataset, recipe, run, device=choose_device(device), observer=observer or Observer())
            return cls.load(run, device=device)

    @classmethod
    def load(cls, folder: str | Path, *, device: Device = "auto") -> "Recommender":
        """Load a run folder.

        Raises:
            DataError: when the folder is not a usable run.
            ConfigError: when the device is absent.
        """
        return cls(load_run(Path(folder), device=choose_device(device)))

    def save(self, folder: str | Path) -> None:
        """Write a run folder that `load` reads, in a process that has never seen the data.

        Raises:
            DataError: when the folder exists and is not empty, or cannot be written.
        """
        with new_folder(Path(folder)) as temporary:
            write_run(temporary, self.run)

    def recommend(
        self,
        history: Sequence[RawId],
        k: int = 10,
        *,
        times: Sequence[Time] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
    ) -> Recommendations:
        """The k best next items after a history.

        Args:
            history: raw item ids, oldest first. Unknown ids are skipped and named in the answer.
            k: how many.
            times: when each event of the history happened.
            at: when all of them did, if `times` is not given: the hour of a session. Models whose training data had no
                times of day read neither.
            exclude_seen: leave out the items of the history; None follows the recipe.

        Raises:
            ConfigError: when k is below 1, `times` is not as long as the history, or both `times` and `at` are given.
        """
        return self.recommend_many(
            [history], k, times=None if times is None else [times], at=at, exclude_seen=exclude_seen
        )[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[RawId]],
        k: int = 10,
        *,
        times: Sequence[Sequence[Time]] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
        batch_size: int = 256,
    ) -> list[Recommendations]:
        """`recommend` for many histories."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        if times is not None and at is not None:
            raise ConfigError("give either the times of the events or one time for all of them, not both")
        if exclude_seen is None:
            exclude_seen = self.run.header.recipe.exclude_seen
        answers: list[Recommendations] = []
        for begin in range(0, len(histories), batch_size):
            batch = slice(begin, begin + batch_size)
            answers += self._answer(histories[batch], None if times is None else times[batch], at, k, exclude_seen)
        return answers

    def _answer(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[Time]] | None,
        at: Time | None,
        k: int,
        exclude_seen: bool,
    ) -> list[Recommendations]:
        catalogue = self.run.catalogue
        indices = [catalogue.indices_of(history) for history in histories]
        slots = [
            self._slots(history, None if times is None else times[row], at) for row, history in enumerate(histories)
        ]
        length = max(1, *(len(row) for row in indices))
        items, hours = np.zeros((2, len(histories), length), dtype=np.int64)
        for row, (known, hour) in enumerate(zip(indices, slots, strict=True)):
            kept = np.array(known, dtype=np.int64) > 0
            if kept.any():
                items[row, -kept.sum() :] = np.array(known)[kept]
                hours[row, -kept.sum() :] = np.array(hour)[kept]
        with torch.inference_mode():
            scores = self.run.network.scores(Histories.of(items, hours).to(self._device)).cpu()
            if exclude_seen:
                for row, known in enumerate(indices):
                    scores[row, [index - 1 for index in known if index]] = -torch.inf
            best = scores.topk(min(k, len(catalogue)), dim=1)
        return [
            Recommendations(
                items=tuple(
                    Recommendation(
                        id=catalogue.ids[column],
                        title=catalogue.title_of(column + 1),
                        category=catalogue.categories[column],
                        score=score,
                    )
                    for score, column in zip(best.values[row].tolist(), best.indices[row].tolist(), strict=True)
                    if score > -math.inf
                ),
                unknown_ids=tuple(raw for raw, index in zip(history, indices[row], strict=True) if not index),
                by_popularity=not any(indices[row]),
            )
            for row, history in enumerate(histories)
        ]

    def _slots(self, history: Sequence[RawId], times: Sequence[Time] | None, at: Time | None) -> list[int]:
        """The hour slot of each event, 0 where unknown or not read by the model."""
        if times is not None and len(times) != len(history):
            raise ConfigError(f"{len(times)} times for a history of {len(history)} events")
        if not self.run.header.hours or (times is None and at is None):
            return [0] * len(history)
        moments = [at] * len(history) if times is None else times
        return [int(hour_slots(np.array([_milliseconds(moment)]))[0]) for moment in moments if moment is not None]


def _milliseconds(time: Time) -> int:
    if isinstance(time, datetime):
        time = time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    if not math.isfinite(time):
        raise ConfigError(f"a time must be a finite number of seconds since 1970, got {time}")
    return math.floor(time * 1000)
