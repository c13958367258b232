"""`lsan evaluate`: both policies printed and named, figures and per-user ranks written."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lsan.cli import main
from lsan.data.dataset import Dataset
from lsan.evaluation.metrics import accuracy
from lsan.runs import METRICS


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_tables_figures_and_ranks(folder: Path, small_shop: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("unseen items only") < printed.index("all items (the user's own history is ranked too)")
    assert "120 test cases, each ranked among 60 items" in printed
    figures = json.loads((folder / "test.json").read_text())
    ranks = pl.read_parquet(folder / "test-ranks.parquet")
    assert figures["part"] == "test"
    assert figures["cases"] == ranks.height == 120
    assert ranks["user"].to_list() == small_shop.user_ids().to_list()
    last = [small_shop.catalogue.ids[small_shop.items[stop - 1] - 1] for stop in small_shop.offsets[1:]]
    assert ranks["item"].to_list() == last
    for policy, column in (("unseen items", "rank_unseen_items"), ("all items", "rank_all_items")):
        values = ranks[column].to_numpy()
        assert ((values >= 1) & (values <= 60) | np.isinf(values)).all()
        for name, by_case in accuracy(values).items():
            mean, low, high = figures[policy][name]
            assert mean == pytest.approx(by_case.mean())
            assert low <= mean <= high
            assert f"{mean:.4f} [{low:.4f}, {high:.4f}]" in printed
        assert {f"coverage@{k}" for k in (5, 10, 20)} <= set(figures[policy])
        assert f"{figures[policy]['popularity bias@10']:.2f}x" in printed
        assert f"{figures[policy]['coverage@10']:.1%}" in printed
    assert (ranks["rank_unseen_items"] <= ranks["rank_all_items"]).sum() > 100
    assert all(name in printed for name in ("HR", "nDCG", "MRR", "@5", "@10", "@20", "95%"))


def test_validation_figures_are_those_of_training(folder: Path) -> None:
    assert main(["evaluate", str(folder), "--part", "validation", "--device", "cpu"]) == 0
    figures = json.loads((folder / "validation.json").read_text())
    best = max(json.loads(line)["validation nDCG@10"] for line in (folder / METRICS).read_text().splitlines())
    assert figures["unseen items"]["nDCG@10"][0] == pytest.approx(best)


def test_the_same_figures_every_time(folder: Path) -> None:
    contents = []
    for _ in range(2):
        assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
        contents.append((folder / "test.json").read_bytes())
    assert contents[0] == contents[1]


def test_a_dataset_that_has_moved(folder: Path, small_shop: Dataset, tmp_path: Path) -> None:
    content = json.loads((folder / "run.json").read_text())
    content["dataset"]["path"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(content))
    assert main(["evaluate", str(folder)]) == 2
    assert not (folder / "test.json").exists()
    assert main(["evaluate", str(folder), "--dataset", str(small_shop.path)]) == 0
    assert (folder / "test.json").exists()
