"""The trained recommender: raw ids in, titles and scores out."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsan.answers import RawId, Recommendations, Time, milliseconds, stamps_of
from lsan.config import Recipe
from lsan.data.prepare import prepare_dataset
from lsan.data.windows import Window
from lsan.errors import ConfigError
from lsan.experiment import Device, Observer, choose_device, start_run
from lsan.files import new_folder
from lsan.models.histories import Histories
from lsan.presets import load_preset
from lsan.runs import Run, load_run, write_run


class Recommender:
    """A trained model with its catalogue."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._device = next(run.network.parameters()).device
        self._known = torch.cat([torch.zeros(1, dtype=torch.bool), run.network.offered.cpu()])  # index 0 is no item

    @classmethod
    def fit(
        cls,
        log: Any,
        recipe: Recipe | None = None,
        *,
        items: Any = None,
        device: Device = "auto",
        observer: Observer | None = None,
    ) -> "Recommender":
        """Train on an interaction log: a Polars or pandas frame, or a file that `lsan prepare` reads.

        Args:
            log: columns for user, item and, if there are times, timestamp, under their usual names.
            recipe: what to train, by default the preset `lsan`; `load_recipe` reads one from a file.
            items: optional frame or file of item ids, titles and categories.
            observer: told about steps and epochs.

        Raises:
            DataError: when the log is malformed or too small to hold anything out.
            ConfigError: when the device is absent, or `recipe` is no recipe.
        """
        if not isinstance(recipe, Recipe | None):
            raise ConfigError(f"recipe: expected what load_recipe or load_preset gives, not {type(recipe).__name__}")
        with tempfile.TemporaryDirectory(prefix="lsan-") as folder:
            dataset = prepare_dataset(log, Path(folder) / "dataset", items=items)
            run = Path(folder) / "run"
            start_run(
                dataset,
                recipe or load_preset("lsan"),
                run,
                device=choose_device(device),
                observer=observer or Observer(),
            )
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
        times: Sequence[Time | None] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
    ) -> Recommendations:
        """The k best next items after a history.

        Args:
            history: raw item ids, oldest first. Ids that the model does not know are skipped and named in the answer.
            k: how many.
            times: when each event of the history happened, None where unknown.
            at: when the recommendation is asked for: by default the time of the last event. Without `times` the events
                are taken to have happened then too, as in a session of an hour. Models whose training data had no times
                of day read neither.
            exclude_seen: leave out the items of the history; None follows the recipe.

        Raises:
            ConfigError: when k is below 1, or `times` is not as long as the history.
        """
        return self.recommend_many(
            [history], k, times=None if times is None else [times], at=at, exclude_seen=exclude_seen
        )[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[RawId]],
        k: int = 10,
        *,
        times: Sequence[Sequence[Time | None]] | None = None,
        at: Time | None = None,
        exclude_seen: bool | None = None,
        batch_size: int = 256,
    ) -> list[Recommendations]:
        """`recommend` for many histories."""
        if any(isinstance(history, str) for history in histories):
            raise ConfigError("a history is a list of item ids, not a string")
        if times is not None and len(times) != len(histories):
            raise ConfigError(f"times for {len(times)} histories, but {len(histories)} histories")
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
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
        times: Sequence[Sequence[Time | None]] | None,
        at: Time | None,
        k: int,
        exclude_seen: bool,
    ) -> list[Recommendations]:
        catalogue, length = self.run.catalogue, self.run.header.recipe.model.history
        indices = [catalogue.indices_of(history) for history in histories]
        items = np.zeros((len(histories), length), dtype=np.int64)
        moments, asked = np.full_like(items, -1), np.full(len(histories), -1, dtype=np.int64)
        for row, history in enumerate(histories):
            stamps = stamps_of(history, None if times is None else times[row], at, timed=self.run.header.timed)
            events = [pair for pair in zip(indices[row], stamps, strict=True) if self._known[pair[0]]]
            for back, (index, stamp) in enumerate(reversed(events[-length:]), start=1):
                items[row, -back], moments[row, -back] = index, stamp
            asked[row] = milliseconds(at) if at is not None and self.run.header.timed else stamps[-1] if stamps else -1
        batch = Histories.of(Window(items=items, times=moments, asked=asked), np.zeros(len(items), dtype=np.int64))
        with torch.inference_mode():
            scores = self.run.network.scores(batch.to(self._device)).cpu()
            scores[:, ~self._known[1:]] = -torch.inf
            if exclude_seen:
                for row, known in enumerate(indices):
                    scores[row, [index - 1 for index in known if index]] = -torch.inf
            best = scores.sort(dim=1, descending=True, stable=True)  # stable: ties in the order of the catalogue
        answers = []
        for row, history in enumerate(histories):
            ranked = zip(best.values[row, :k].tolist(), best.indices[row, :k].tolist(), strict=True)
            pairs = [(column + 1, score) for score, column in ranked if score > -math.inf]
            answers.append(
                Recommendations(
                    [index for index, _ in pairs],
                    [score for _, score in pairs],
                    self._call,
                    unknown_ids=tuple(
                        raw for raw, index in zip(history, indices[row], strict=True) if not self._known[index]
                    ),
                    by_popularity=not items[row].any(),
                )
            )
        return answers

    def _call(self, index: int) -> tuple[RawId, str, str | None]:
        """Id, title and category of an item."""
        catalogue = self.run.catalogue
        return catalogue.ids[index - 1], catalogue.title_of(index), catalogue.categories[index - 1]
