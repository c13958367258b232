"""Trackers: each epoch's figures and the recipe, sent to TensorBoard or MLflow while a model trains."""

import json
import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lsan.config import recipe_to
from lsan.errors import ConfigError, DataError
from lsan.experiment import Observer
from lsan.extras import require_extra
from lsan.files import write_atomically
from lsan.runs import METRICS, RunHeader

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a tracker does with one training. Without its package, making one raises `MissingExtraError`."""

    trace: ClassVar[str]
    """What it leaves in the folder of a run that it has followed."""

    def begin(self, header: RunHeader, folder: Path) -> None:
        """The run folder is there and training is about to start or to go on.

        Raises:
            ConfigError: when the tracker cannot be reached.
        """

    def epoch(self, history: list[dict[str, float]]) -> None:
        """An epoch is done: all records so far, as in metrics.jsonl. After a resumption, one may come again."""

    def end(self, *, finished: bool) -> None:
        """Training ended, or stopped before its end; `begin` may not have been called."""


def tracker_names() -> list[str]:
    """Names of all trackers."""
    return sorted(_TRACKERS)


def trackers_of(folder: Path) -> list[str]:
    """Names of the trackers that have followed this run."""
    return sorted(name for name, tracker in _TRACKERS.items() if (folder / tracker.trace).exists())


@contextmanager
def tracked(observer: Observer, names: Collection[str]) -> Iterator[Observer]:
    """`observer`, with trackers beside it that hear what it hears.

    Raises:
        MissingExtraError: when a tracker's package is not installed.
    """
    trackers: list[Tracker] = [_TRACKERS[name]() for name in sorted(set(names))]
    place = Path()

    def begin(header: RunHeader, folder: Path) -> None:
        nonlocal place
        place = folder
        observer.begin(header, folder)
        for tracker in trackers:
            tracker.begin(header, folder)

    def epoch(record: dict[str, float]) -> None:
        observer.epoch(record)
        history = [json.loads(line) for line in (place / METRICS).read_text().splitlines()]
        for tracker in trackers:
            tracker.epoch(history)

    finished = False
    try:
        yield replace(observer, begin=begin, epoch=epoch)
        finished = True
    finally:
        for tracker in trackers:
            tracker.end(finished=finished)


def _figures(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """What is shown of each epoch, under names that every tracker accepts: MLflow takes no "@"."""
    rows, before = [], 0.0
    for record in history:
        row = {
            name.replace("validation ", "validation/").replace("@", "_at_").replace(" ", "_"): value
            for name, value in record.items()
            if name not in ("epoch", "seconds")
        }
        rows.append(row | {"epoch_seconds": record["seconds"] - before})
        before = record["seconds"]
    return rows


def _parameters(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a recipe by dotted key; those that are not set are left out."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            values |= _parameters(value, f"{prefix}{key}.")
        elif value is not None:
            values[prefix + key] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return values


class TensorBoard:
    """Event files in RUN/tensorboard: scalars by epoch, the recipe as text and for the HPARAMS page."""

    trace: ClassVar[str] = "tensorboard"

    def __init__(self) -> None:
        require_extra("tensorboard", "tensorboard", needed_by="--track tensorboard")
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._make_writer: Any = SummaryWriter
        self._make_hparams: Any = hparams
        self._writer: Any = None

    def begin(self, header: RunHeader, folder: Path) -> None:
        self._header, self._folder = header, folder / self.trace

    def epoch(self, history: list[dict[str, float]]) -> None:
        last, rows = int(history[-1]["epoch"]), _figures(history)
        first = last  # the first epoch that is written now
        if self._writer is None:
            if self._folder.exists():  # `purge_step` hides this epoch if it was written before the training stopped
                self._writer = self._make_writer(str(self._folder), purge_step=last)
            else:
                self._writer = self._make_writer(str(self._folder))
                self._write_recipe(rows[-1])
                first = 1
        for epoch in range(first, last + 1):
            for name, value in rows[epoch - 1].items():
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def _write_recipe(self, figures: dict[str, float]) -> None:
        recipe = recipe_to(self._header.recipe)
        text = json.dumps({"recipe": recipe, "dataset": self._header.dataset}, indent=1)
        self._writer.add_text("recipe", f"```json\n{text}\n```")
        shown = {name: value for name, value in figures.items() if name.startswith("validation/")}
        for summary in self._make_hparams(_parameters(recipe), shown):
            self._writer.file_writer.add_summary(summary)

    def end(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()


#: How often a server that does not answer is tried again, after 2, 4 and 8 seconds: MLflow's own 7 times would hold up
#: every epoch for 4 minutes.
_RETRIES = "3"


class MLflow:
    """A run in MLflow's default store or that of MLFLOW_TRACKING_URI: metrics by epoch, the recipe as parameters.

    The experiment is named after the dataset, the run after its folder. RUN/mlflow.json keeps the run's id, and the
    address of the default store, which depends on the folder that `lsan` was started in."""

    trace: ClassVar[str] = "mlflow.json"

    def __init__(self) -> None:
        # the last two are MLflow's for its default store, and not among mlflow-skinny's own
        require_extra("mlflow", "mlflow", "alembic", "sqlalchemy", needed_by="--track mlflow")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)
        from mlflow import MlflowClient

        self._make_client = MlflowClient
        self._run: str | None = None

    def begin(self, header: RunHeader, folder: Path) -> None:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        path = folder / self.trace
        kept = _read_kept(path)
        store = None if "MLFLOW_TRACKING_URI" in os.environ else kept["store"]
        try:
            self._client = self._make_client(tracking_uri=store)
            if kept["run"] is None:
                self._run = self._new_run(header, folder)
                store = None if "MLFLOW_TRACKING_URI" in os.environ else self._client.tracking_uri
                write_atomically(path, json.dumps({"run": self._run, "store": store}).encode() + b"\n")
            else:
                self._run = kept["run"]
                self._client.update_run(self._run, status="RUNNING")
            parameters = _parameters(recipe_to(header.recipe)).items()
            self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in parameters])
            self._done = {metric.step for metric in self._client.get_metric_history(self._run, "loss")}
        except MlflowException as error:
            self._run = None
            raise ConfigError(
                f"MLflow cannot be used: {error}; check MLFLOW_TRACKING_URI, or go on without it: "
                f"{f'delete {path}, then ' if path.exists() else ''}`lsan train --resume {folder}`"
            ) from error

    def _new_run(self, header: RunHeader, folder: Path) -> str:
        name = header.dataset["name"]
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"lsan.version": version("lsan"), "lsan.dataset": header.dataset["content_hash"]}
        run_id: str = self._client.create_run(number, run_name=folder.resolve().name, tags=tags).info.run_id
        return run_id

    def epoch(self, history: list[dict[str, float]]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        for record, row in zip(history, _figures(history), strict=True):
            epoch = int(record["epoch"])
            if epoch in self._done:
                continue
            try:
                self._client.log_batch(self._run, metrics=[Metric(name, row[name], now, epoch) for name in row])
            except MlflowException as error:  # training is worth more than its record, and the next epoch tries again
                logger.warning("MLflow did not take epoch %d, which is kept in %s: %s", epoch, METRICS, error)
                return
            self._done.add(epoch)

    def end(self, *, finished: bool) -> None:
        from mlflow.exceptions import MlflowException

        if self._run is None:
            return
        try:
            self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")
        except MlflowException as error:
            logger.warning("MLflow was not told that run %s ended: %s", self._run, error)


def _read_kept(path: Path) -> dict[str, str | None]:
    if not path.exists():
        return {"run": None, "store": None}
    try:
        kept = json.loads(path.read_bytes())
        return {"run": kept["run"], "store": kept["store"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged; delete it to track this run anew") from error


_TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
