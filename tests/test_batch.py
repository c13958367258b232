"""`lsan batch`: recommendations for every user of a log."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

import lsan.batch
from lsan.batch import recommend_all
from lsan.cli import main
from lsan.data.dataset import Dataset
from lsan.errors import BundleError, ConfigError, DataError
from lsan.export.bundle import make_bundle
from lsan.runs import load_run
from lsan.runtime import Recommender


@pytest.fixture(scope="module")
def bundle(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.lsan"
    path.write_bytes(make_bundle(load_run(small_run, device=torch.device("cpu"))).content)
    return path


def history_of(dataset: Dataset, user: int) -> tuple[list[int | str], list[float]]:
    events = slice(int(dataset.offsets[user]), int(dataset.offsets[user + 1]))
    assert dataset.timestamps is not None
    times = [milliseconds / 1000 for milliseconds in dataset.timestamps[events].tolist()]
    return [dataset.catalogue.ids[item - 1] for item in dataset.items[events].tolist()], times


def test_everyone_gets_what_recommend_gives(
    bundle: Path, small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsan.batch, "_USERS", 50)  # three pieces
    done: list[tuple[int, int]] = []
    found = recommend_all(
        bundle, small_shop.path, tmp_path / "recs.parquet", 4, progress=lambda users, of: done.append((users, of))
    )
    frame = pl.read_parquet(tmp_path / "recs.parquet")
    assert frame.columns == ["user", "rank", "item", "score", "title"]
    assert done == [(50, 120), (100, 120), (120, 120)]
    assert (found.users, found.rows, found.unknown) == (120, len(frame), 0)
    recommender = Recommender.load(bundle)
    for user in (0, 49, 50, 119):
        history, times = history_of(small_shop, user)
        expected = recommender.recommend(history, 4, times=times)
        rows = frame.filter(pl.col("user") == small_shop.user_ids()[user]).sort("rank")
        assert rows["rank"].to_list() == [1, 2, 3, 4]
        assert rows["item"].to_list() == [item.id for item in expected]
        assert rows["title"].to_list() == [item.title for item in expected]
        assert rows["score"].to_list() == pytest.approx([item.score for item in expected], abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs.parquet"]


def test_a_log_is_prepared_first_and_unknown_items_are_counted(bundle: Path, tmp_path: Path) -> None:
    ids = Recommender.load(bundle).vocabulary.ids
    rows = [f"{user},{item},{1_700_000_000 + n}" for n, (user, item) in enumerate(
        [("a", ids[0]), ("a", "what"), ("b", "what"), ("b", ids[1]), ("b", ids[2]), ("a", ids[5])]
    )]  # fmt: skip
    (tmp_path / "log.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    found = recommend_all(bundle, tmp_path / "log.csv", tmp_path / "recs.parquet", 3)
    assert (found.users, found.rows, found.unknown) == (2, 6, 2)


def test_it_goes_on_after_a_stop(
    bundle: Path, small_shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsan.batch, "_USERS", 50)
    expected = recommend_all(bundle, small_shop.path, tmp_path / "whole.parquet", 4)

    def stop(done: int, of: int) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend_all(bundle, small_shop.path, tmp_path / "recs.parquet", 4, progress=stop)
    assert not (tmp_path / "recs.parquet").exists()
    pieces = sorted((tmp_path / ".recs.parquet.parts").glob("*.parquet"))
    assert [piece.name for piece in pieces] == ["000000.parquet", "000001.parquet"]
    before = [piece.stat().st_mtime_ns for piece in pieces]

    def check(done: int, of: int) -> None:
        assert [piece.stat().st_mtime_ns for piece in pieces] == before

    assert recommend_all(bundle, small_shop.path, tmp_path / "recs.parquet", 4, progress=check) == expected
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_pieces_of_another_job_are_not_used(bundle: Path, small_shop: Dataset, tmp_path: Path) -> None:
    recommend_all(bundle, small_shop.path, tmp_path / "four.parquet", 4)
    parts = tmp_path / ".recs.parquet.parts"
    parts.mkdir()
    shutil.copy(tmp_path / "four.parquet", parts / "000000.parquet")
    assert recommend_all(bundle, small_shop.path, tmp_path / "recs.parquet", 2).rows == 240


def test_users_for_whom_nothing_is_left(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsan.batch, "_USERS", 1)
    ids = Recommender.load(bundle).vocabulary.ids
    rows = [f"a,{item},{1_700_000_000 + n}" for n, item in enumerate(ids)] + [f"b,{ids[0]},1700000000"]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    found = recommend_all(bundle, tmp_path / "log.csv", tmp_path / "recs.parquet", 10**12)
    assert (found.users, found.rows) == (2, len(ids) - 1)
    assert set(pl.read_parquet(tmp_path / "recs.parquet")["user"]) == {"b"}


def test_errors(bundle: Path, small_shop: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k must be"):
        recommend_all(bundle, small_shop.path, tmp_path / "recs.parquet", 0)
    with pytest.raises(DataError, match="is a folder"):
        recommend_all(bundle, small_shop.path, tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        recommend_all(bundle, tmp_path / "none.csv", tmp_path / "recs.parquet")
    with pytest.raises(BundleError, match="cannot be read"):
        recommend_all(tmp_path / "none.lsan", small_shop.path, tmp_path / "recs.parquet")


def test_what_is_read_is_not_written_over(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,timestamp\na,1,1700000000\n")
    for out in (bundle, tmp_path / "log.csv"):
        before = out.read_bytes()
        with pytest.raises(DataError, match="is what is read, and would be lost"):
            recommend_all(bundle, tmp_path / "log.csv", out)
        assert out.read_bytes() == before


def test_a_log_with_columns_of_other_names(
    bundle: Path, small_shop: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = Recommender.load(bundle).vocabulary.ids
    usual, other = tmp_path / "usual.csv", tmp_path / "other.csv"
    usual.write_text(f"user,item,timestamp\na,{ids[0]},1700000000\na,{ids[1]},1700000009\n")
    other.write_text(f"wer;was;wann\na;{ids[1]};1700000009\na;;1700000010\na;{ids[0]};1700000000\n")
    out = tmp_path / "recs.parquet"
    assert main(["batch", str(bundle), "--histories", str(usual), "--out", str(out)]) == 0
    expected = pl.read_parquet(out)
    asked = ["batch", str(bundle), "--histories", str(other), "--out", str(out)]
    assert main(asked) == 2
    assert "name it with --user" in capsys.readouterr().err
    asked += ["--user", "wer", "--item", "was", "--timestamp", "wann"]
    assert main(asked) == 2
    assert "other.csv, line 3, field 'was'" in capsys.readouterr().err
    assert main([*asked, "--on-bad-rows", "skip"]) == 0
    assert "1 bad rows of" in capsys.readouterr().out
    assert pl.read_parquet(out).equals(expected)
    asked[3] = str(small_shop.path)
    assert main(asked) == 2
    assert "leave out what describes the columns" in capsys.readouterr().err


def test_a_folder_of_files_is_a_log_too(bundle: Path, tmp_path: Path) -> None:
    ids = Recommender.load(bundle).vocabulary.ids
    (tmp_path / "log").mkdir()
    for user in ("a", "b"):
        rows = {"user": [user] * 2, "item": [ids[0], ids[1]], "timestamp": [1_700_000_000, 1_700_000_001]}
        pl.DataFrame(rows).write_parquet(tmp_path / "log" / f"{user}.parquet")
    assert recommend_all(bundle, tmp_path / "log", tmp_path / "recs.parquet", 3).users == 2
