"""`lsan compare` from the command line: interrupted, gone on with, and refused."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lsan.cli
from lsan.cli import compare, main
from lsan.comparison import outcomes
from lsan.comparison.outcomes import find_outcome
from lsan.data.dataset import Dataset

RECIPE = """
[model]
width = 4
history = 6
[training]
epochs = 1
batch_size = 64
"""


@pytest.fixture
def command(small_shop: Dataset, tmp_path: Path) -> Callable[..., int]:
    """`lsan compare` of two baselines and a tiny network with two seeds; more flags as arguments."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    models = ["popularity", "item-knn", str(tmp_path / "tiny.toml")]

    def run(*flags: str) -> int:
        return main(
            ["compare", str(small_shop.path), "--models", *models, "--seeds", "2", "--out", str(tmp_path / "out"),
             "--device", "cpu", *flags]
        )  # fmt: skip

    return run


def models_of(page: str) -> set[str]:
    return {line.split(" ")[1] for line in page.splitlines() if line.startswith("| ")} - {"model", "---"}


def test_interrupted_and_gone_on_with(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    evaluated: list[str] = []

    def interrupted(entry: Any, *args: Any, **kwargs: Any) -> Any:
        if entry.label == "tiny-1":
            raise KeyboardInterrupt
        return find_outcome(entry, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(compare, "find_outcome", interrupted)
        assert command() == 130
    captured = capsys.readouterr()
    assert "3 of 4 are done; the same command goes on" in captured.err
    assert "the best" in captured.out
    assert models_of((out / "comparison.md").read_text()) == {"popularity", "item-knn", "tiny"}
    [tiny] = [row for row in json.loads((out / "comparison.json").read_text())["rows"] if row["name"] == "tiny"]
    assert tiny["seeds"] == [0]

    def watched(entry: Any, *args: Any, **kwargs: Any) -> Any:
        evaluated.append(entry.label)
        return evaluate_entry(entry, *args, **kwargs)

    evaluate_entry = outcomes._evaluate
    monkeypatch.setattr(outcomes, "_evaluate", watched)
    assert command() == 0
    captured = capsys.readouterr()
    assert evaluated == ["tiny-1"]
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["popularity", "item-knn", "tiny-0", "tiny-1"]
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert next(row for row in rows if row["name"] == "tiny")["seeds"] == [0, 1]
    figure = rows[0]["accuracy"]["unseen items"]["nDCG@10"]
    assert f"{figure['mean']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]" in captured.out
    assert "120 test cases of 120 users" in captured.out
    assert (out / "accuracy-bytes.png").exists()
    # every line whole, however narrow
    assert max(map(len, lines)) <= 160
    assert sum("…" in line for line in lines) == 0


def test_terms_for_all(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--split", "temporal", "--include-seen", "--part", "validation") == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (content["split"]["method"], content["policy"], content["part"]) == ("temporal", "all items", "validation")
    assert content["users"] < content["cases"]
    assert "temporal split; all items are ranked" in capsys.readouterr().out
    # the same folder for other terms
    assert command("--split", "temporal") == 2
    assert "exclude_seen is false, asked for is true" in capsys.readouterr().err


def test_an_unknown_model(small_shop: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(small_shop.path), "--models", "popular", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "no model 'popular'; there are the baselines popularity, recent-popularity, markov, item-knn" in message
    assert "sasrec" in message
    assert not out.exists()


def test_a_training_that_fails_leaves_the_rest_on_record(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE + "learning_rate = 999999.0\naveraging = 0\n")
    status = command()
    captured = capsys.readouterr()
    assert status == 2, captured.out
    assert "learning_rate" in captured.err
    assert models_of((tmp_path / "out" / "comparison.md").read_text()) == {"popularity", "item-knn"}


def test_ranks_that_cannot_be_read_are_made_again(command: Callable[..., int], tmp_path: Path) -> None:
    def accuracies() -> list[Any]:
        assert command() == 0
        return [row["accuracy"] for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]]

    first = accuracies()
    for file in (tmp_path / "out" / "runs").glob("*.parquet"):
        file.write_bytes(b"")
    assert accuracies() == first


def test_it_may_be_stopped_while_it_is_still_importing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lsan.cli, "_module", interrupted)
    assert main(["compare"]) == 130
    assert capsys.readouterr().err == "lsan: interrupted\n"


def test_a_full_disk_is_called_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(command: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lsan.cli, "_module", full)
    assert main(["compare"]) == 2
    assert "No space left on device: free some space and start it again" in capsys.readouterr().err
