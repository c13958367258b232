"""`lsan train` from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from lsan.cli import main
from lsan.data.dataset import Dataset
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


def test_a_finished_run_is_left_as_it_is(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(small_run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder} is finished already: nothing to do\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
