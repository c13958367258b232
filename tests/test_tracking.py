"""Trackers are told what metrics.jsonl says, each epoch once, also when a training stops and goes on."""

import json
import logging
import os
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before MLflow is first imported: importing it starts the sender

from lsan.cli import main
from lsan.config import ModelConfig, Recipe, TrainingConfig
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError, MissingExtraError
from lsan.experiment import Observer, resume_run, start_run
from lsan.tracking import tracked, tracker_names, trackers_of

CPU = torch.device("cpu")
RECIPE = Recipe(
    description="tracked",
    model=ModelConfig(width=8, history=6),
    training=TrainingConfig(batch_size=64, learning_rate=1e-2, epochs=3),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose mlflow.db is MLflow's default store for those who work in it; making its tables takes seconds."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a folder mlruns is made where one stands
        MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return folder


@pytest.fixture(autouse=True)
def _inside_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def mlflow_run(store: Path, folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(json.loads((folder / "mlflow.json").read_text())["run"])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: (epoch, value) by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def metrics(store: Path, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What MLflow shows: (epoch, value) by name."""
    from mlflow import MlflowClient

    client, run = MlflowClient(f"sqlite:///{store}/mlflow.db"), mlflow_run(store, folder)
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: sorted((metric.step, metric.value) for metric in history) for name, history in histories.items()}


def told(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What metrics.jsonl says, under the trackers' names."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [0.0, *(record["seconds"] for record in records)]
    names = {
        "loss": "loss",
        "validation nDCG@10": "validation/nDCG_at_10",
        "validation HR@10": "validation/HR_at_10",
    }
    shown = {new: [(record["epoch"], record[old]) for record in records] for old, new in names.items()}
    times = [(epoch, after - before) for epoch, (before, after) in enumerate(pairwise(seconds), 1)]
    return shown | {"epoch_seconds": times}


def assert_same(shown: dict[str, list[tuple[int, float]]], expected: dict[str, list[tuple[int, float]]]) -> None:
    assert shown.keys() == expected.keys()
    for name, values in expected.items():
        assert [epoch for epoch, _ in shown[name]] == [epoch for epoch, _ in values], name
        if name != "epoch_seconds":  # an epoch that was repeated took another time; event files hold 32-bit floats
            assert [value for _, value in shown[name]] == [pytest.approx(value, rel=1e-6) for _, value in values], name


def test_a_tracked_run_from_the_command_line(small_shop: Dataset, store: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'description = "by hand"\n[model]\nwidth = 8\nhistory = 6\n[training]\nbatch_size = 64\nepochs = 2\n'
    )
    folder = tmp_path / "first-run"
    arguments = ["train", str(small_shop.path), "--recipe", str(recipe), "--out", str(folder)]
    assert main([*arguments, "--track", "tensorboard", "--track", "mlflow"]) == 0
    assert trackers_of(folder) == tracker_names() == ["mlflow", "tensorboard"]
    assert_same(scalars(folder), told(folder))
    assert_same(metrics(store, folder), told(folder))
    run = mlflow_run(store, folder)
    assert run.info.run_name == "first-run"
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["model.encoder.kind"] == "sasrec"
    assert "model.context" not in run.data.params
    assert run.data.tags["lsan.dataset"] == small_shop.content_hash


def test_tensorboard_knows_the_recipe(small_shop: Dataset, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder = tmp_path / "run"
    with tracked(Observer(), ["tensorboard"]) as observer:
        start_run(small_shop, RECIPE, folder, device=CPU, observer=observer)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"description": "tracked"' in text
    start = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert start.session_start_info.hparams["training.learning_rate"].number_value == 1e-2


def stopping(observer: Observer, *, at: int) -> Observer:
    """Stops the training after that epoch is recorded and tracked."""

    def epoch(record: dict[str, float]) -> None:
        observer.epoch(record)
        if record["epoch"] == at:
            raise InterruptedError

    return replace(observer, epoch=epoch)


@pytest.mark.parametrize("late", [False, True], ids=["from-the-start", "from-the-resumption"])
def test_resuming_goes_on_with_the_tracked_run(small_shop: Dataset, store: Path, tmp_path: Path, late: bool) -> None:
    """Epoch 2 is recorded, then the process dies before its checkpoint is written, so epoch 2 is trained again."""
    folder = tmp_path / "run"
    with pytest.raises(InterruptedError), tracked(Observer(), [] if late else tracker_names()) as observer:
        start_run(small_shop, RECIPE, folder, device=CPU, observer=stopping(observer, at=2))
    before = None if late else mlflow_run(store, folder).info
    if before is not None:
        assert before.status == "KILLED"
        assert_same(scalars(folder), told(folder))
    if not late:
        os.chdir(tmp_path)  # not where the default store is
    with tracked(Observer(), tracker_names() if late else trackers_of(folder)) as observer:
        resume_run(folder, None, device=CPU, observer=observer)
    assert not (tmp_path / "mlflow.db").exists()
    expected = told(folder)
    assert len(expected["loss"]) == 3
    assert_same(scalars(folder), expected)
    assert_same(metrics(store, folder), expected)
    after = mlflow_run(store, folder).info
    assert after.status == "FINISHED"
    assert before is None or before.run_id == after.run_id


def test_an_epoch_that_mlflow_did_not_take_is_sent_with_the_next(
    small_shop: Dataset, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log_batch = MlflowClient.log_batch
    calls: list[bool] = []

    def sometimes(self: MlflowClient, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        calls.append(bool(metrics))
        if calls.count(True) == 1 and metrics:
            raise MlflowException("the server is away")
        log_batch(self, run_id, metrics=metrics, params=params)

    monkeypatch.setattr(MlflowClient, "log_batch", sometimes)
    folder = tmp_path / "run"
    with caplog.at_level(logging.WARNING, "lsan"), tracked(Observer(), ["mlflow"]) as observer:
        start_run(small_shop, RECIPE, folder, device=CPU, observer=observer)
    warnings = [record.getMessage() for record in caplog.records if record.name == "lsan.tracking"]
    assert warnings == ["MLflow did not take epoch 1, which is kept in metrics.jsonl: the server is away"]
    assert_same(metrics(store, folder), told(folder))


def test_a_store_that_cannot_be_used_stops_a_training_before_it_starts(
    small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://store")
    folder = tmp_path / "run"
    with (
        pytest.raises(ConfigError, match="check MLFLOW_TRACKING_URI"),
        tracked(Observer(), ["mlflow"]) as observer,
    ):
        start_run(small_shop, RECIPE, folder, device=CPU, observer=observer)
    assert not (folder / "metrics.jsonl").exists()
    (folder / "mlflow.json").write_text("{}")
    with (
        pytest.raises(DataError, match=r"mlflow\.json: damaged; delete it"),
        tracked(Observer(), ["mlflow"]) as observer,
    ):
        resume_run(folder, None, device=CPU, observer=observer)


def test_a_server_that_does_not_answer_is_not_tried_for_long(
    small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")  # and what is set meanwhile is taken back afterwards
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with HTTPServer(("127.0.0.1", 0), Away) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with (
                pytest.raises(ConfigError, match=r"MLflow cannot be used: .*503"),
                tracked(Observer(), ["mlflow"]) as observer,
            ):
                start_run(small_shop, RECIPE, tmp_path / "run", device=CPU, observer=observer)
        finally:
            server.shutdown()
            thread.join()
    assert len(asked) == 4


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_a_missing_package_is_named_before_anything_is_written(
    name: str, module: str, small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="pip install"), tracked(Observer(), [name]):
        pass
    out = tmp_path / "run"
    assert main(["train", str(small_shop.path), "--out", str(out), "--track", name]) == 2
    assert f'pip install "lsan[{name}]"' in capsys.readouterr().err
    assert not out.exists()
