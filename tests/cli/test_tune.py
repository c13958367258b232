"""`lsan tune` from the command line."""

from pathlib import Path

import pytest

from lsan.cli import main
from lsan.data.dataset import Dataset

RECIPE = "[model]\nwidth = 4\nhistory = 6\n[training]\nepochs = 1\nbatch_size = 64\n"


def test_it_prints_trials_and_the_best_and_goes_on(
    small_shop: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, space, out = tmp_path / "tiny.toml", tmp_path / "space.toml", tmp_path / "search"
    recipe.write_text(RECIPE)
    space.write_text('training.learning_rate = [1e-4, 1e-1, "log"]\nmodel.dropout = [0.0, 0.5]\n')
    arguments = ["tune", str(small_shop.path), "--recipe", str(recipe), "--space", str(space), "--seed", "4"]
    assert main([*arguments, "--out", str(out), "--trials", "2"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line[:9] for line in lines[:2]] == ["trial   0", "trial   1"]
    assert lines[0].endswith("learning_rate=0.001 dropout=0.5")
    assert lines[2].split() == ["trial", "nDCG@10", "epochs", "seconds", "learning_rate", "dropout"]
    assert lines[-1] == f"2 finished of 2 trials; best recipe: {out}/best.toml"
    assert captured.err == ""
    assert main(["tune", "--resume", str(out), "--trials", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines[:4]] == [f"trial   {number}" for number in range(2, 6)]
    assert len(lines) == 4 + 1 + 5 + 1
    assert (
        main(["train", str(small_shop.path), "--recipe", str(out / "best.toml"), "--out", str(tmp_path / "run")]) == 0
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["DATA"], "name a DATASET and a folder --out"),
        (["DATA", "--out", "new", "--trials", "0"], "--trials 0: expected a whole number"),
        (["DATA", "--out", "new", "--timeout", "nan"], "--timeout nan: expected minutes above 0"),
        (["--resume", "old", "--seed", "3"], "--resume goes on with the search's own"),
        (["--resume", "nothing"], "name a folder of `lsan tune`"),
        (["DATA", "--out", "new", "--space", "nothing.toml"], "cannot read the space"),
    ],
)
def test_flags_that_do_not_go_together(
    arguments: list[str], says: str, small_shop: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *[str(small_shop.path) if word == "DATA" else word for word in arguments]]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
