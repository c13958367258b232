"""`lsan recommend`: raw ids in, titles, ids and scores out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lsan.cli import main
from lsan.data.dataset import Dataset
from lsan.recommender import Recommender
from lsan.runs import load_run


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["recommend", *map(str, arguments), "--json", "--device", "cpu"]) == 0
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


@pytest.fixture
def history(small_shop: Dataset) -> list[str]:
    return [str(raw) for raw in small_shop.catalogue.ids[:3]]


def test_a_table(small_run: Path, history: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(small_run), "--history", *history, "-k", "4"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["title", "category", "id", "score"]
    expected = Recommender.load(small_run, device="cpu").recommend(history, 4)
    assert len(lines) == 1 + len(expected) == 5
    for line, item in zip(lines[1:], expected, strict=True):
        assert line.startswith(item.title)
        assert line.split()[-2:] == [str(item.id), f"{item.score:.3f}"]
        assert item.category is not None
        assert item.category in line
    assert captured.err == ""


def test_json(small_run: Path, history: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = answer(capsys, small_run, "--history", *history)
    expected = Recommender.load(small_run, device="cpu").recommend(history)
    assert given["unknown_ids"] == []
    assert given["by_popularity"] is False
    assert given["recommendations"] == [
        {"id": item.id, "title": item.title, "category": item.category, "score": item.score} for item in expected
    ]
    assert len(given["recommendations"]) == 10


def test_unknown_ids_are_named_and_skipped(
    small_run: Path, history: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(small_run), "--history", "what", *history, "17"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note: skipped unknown ids: what, 17\n"
    assert main(["recommend", str(small_run), "--history", *history]) == 0
    assert captured.out == capsys.readouterr().out
    assert answer(capsys, small_run, "--history", "what", *history)["unknown_ids"] == ["what"]


@pytest.mark.parametrize("unknown", [[], ["what"]])
def test_no_usable_history_falls_back_to_popularity_and_says_so(
    small_run: Path, unknown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(small_run), "--history", *unknown]) == 0
    assert "the most popular items" in capsys.readouterr().err
    given = answer(capsys, small_run, "--history", *unknown)
    assert given["by_popularity"] is True
    run = load_run(small_run, device=torch.device("cpu"))
    counts = [int(run.network.popularity[run.catalogue.index_of(item["id"]) - 1]) for item in given["recommendations"]]
    assert counts == sorted(run.network.popularity.tolist(), reverse=True)[:10]


def test_seen_items(small_run: Path, history: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*flags: str) -> list[str]:
        given = answer(capsys, small_run, "--history", *history, "-k", 99, *flags)
        return [item["id"] for item in given["recommendations"]]

    assert len(ids("--include-seen")) == 60
    assert ids() == ids("--exclude-seen") == [raw for raw in ids("--include-seen") if raw not in history]


def test_the_time_matters_to_a_model_with_hours(
    small_run: Path, history: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def scores(*flags: str) -> list[float]:
        given = answer(capsys, small_run, "--history", *history, "-k", 60, "--include-seen", *flags)
        return [item["score"] for item in given["recommendations"]]

    evening = scores("--at", "2026-11-21T20:30")
    assert evening != scores()
    assert evening != scores("--at", "2026-11-21T08:30")
    assert evening == scores("--at", "2026-11-21T20:59:59Z")
    assert evening == scores("--at", "2026-11-21T21:30+01:00")
    assert evening == scores("--at", "1795293000")  # 2026-11-21 20:30 UTC


def test_the_time_means_nothing_to_a_model_without_hours(
    small_run: Path, history: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(small_run, tmp_path / "run")
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "timed": False}))
    assert main(["recommend", str(folder), "--history", *history, "--at", "2026-11-21T20:30"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("note: ")
    assert "--at changes nothing" in captured.err
    assert captured.err.count("\n") == 1
    assert main(["recommend", str(folder), "--history", *history]) == 0
    assert capsys.readouterr().out == captured.out


def test_titles_with_brackets_are_printed_as_they_are(
    small_run: Path, history: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(small_run, tmp_path / "run")
    content = json.loads((folder / "catalogue.json").read_text())
    content["titles"] = [f"[/b] Socks [red] {number}" for number in range(60)]
    (folder / "catalogue.json").write_text(json.dumps(content))
    assert main(["recommend", str(folder), "--history", *history]) == 0
    assert capsys.readouterr().out.count("[/b] Socks [red]") == 10
