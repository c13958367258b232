"""`lsan train` from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from lsan.cli import main
from lsan.cli.console import training_observer
from lsan.data.dataset import Dataset
from lsan.presets import load_preset
from lsan.runs import MODEL, RunHeader

RECIPE = """
description = "tiny"
[model]
regime = "causal"
width = 4
history = 6
[training]
epochs = 2
batch_size = 64
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_it_prints_a_line_an_epoch_and_writes_a_run(
    small_shop: Dataset, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "one"
    assert main(["train", str(small_shop.path), "--recipe", str(recipe), "--out", str(out), "--seed", "5"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line[:9] for line in lines[:2]] == ["epoch   1", "epoch   2"]
    assert "validation nDCG@10" in lines[0]
    assert lines[-1].startswith("best epoch ")
    assert lines[-1].endswith(f"written to {out}")
    assert captured.err == ""
    header = RunHeader.read(out)
    assert header.recipe.seed == 5
    assert header.recipe.description == "tiny"
    assert header.dataset["content_hash"] == small_shop.content_hash
    assert header.dataset["users"] == 120
    assert (out / MODEL).exists()
    figure = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["validation nDCG@10"]
    assert f"validation nDCG@10 {figure:.4f}" in lines[0]


@pytest.mark.parametrize(("flags", "preset"), [([], "lsan"), (["--preset", "paper"], "paper")])
def test_without_a_recipe_it_takes_a_preset(
    small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], preset: str
) -> None:
    class StoppedHereError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise StoppedHereError

    monkeypatch.setattr("lsan.experiment.train", stop)
    with pytest.raises(StoppedHereError):
        main(["train", str(small_shop.path), "--out", str(tmp_path / "run"), *flags])
    assert RunHeader.read(tmp_path / "run").recipe == load_preset(preset)


def test_a_finished_run_is_left_as_it_is(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(small_run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder} is finished already: nothing to do\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_first_of_several_processes_says_how_to_go_on(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lsan.cli.console.worker", lambda: number)
    with pytest.raises(KeyboardInterrupt), training_observer(3, tmp_path):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ("" if number else f"go on with: lsan train --resume {tmp_path}\n")
