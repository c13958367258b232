"""Ways to misuse the commands about runs: each ends in one clear line and exit code 2, and changes nothing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lsan.cli import main
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.runs import CHECKPOINT, MODEL


@dataclass(frozen=True)
class Place:
    """What a case has at hand: copies that it may damage."""

    run: Path
    """A finished run."""
    dataset: Path
    """The dataset that it was trained on."""
    folder: Path
    """The folder that holds both."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One misuse."""

    arguments: Callable[[Place], list[object]]
    """The command line."""
    says: tuple[str, ...]
    """What the error must say."""
    prepare: tuple[Callable[[Place], object], ...] = ()
    """What is damaged before, step by step."""


def header(place: Place, **progress_or_dataset: object) -> None:
    path = place.run / "run.json"
    content = json.loads(path.read_text())
    for name, value in progress_or_dataset.items():
        content["progress" if name == "finished" else "dataset"][name] = value
    path.write_text(json.dumps(content))


def recipe(text: str) -> Callable[[Place], object]:
    return lambda place: (place.folder / "r.toml").write_text(text)


def train(*flags: object) -> Callable[[Place], list[object]]:
    return lambda place: ["train", place.dataset, "--out", place.folder / "new", *flags]


def train_recipe(place: Place) -> list[object]:
    return [*train()(place), "--recipe", place.folder / "r.toml"]


def resume(*flags: object) -> Callable[[Place], list[object]]:
    return lambda place: ["train", "--resume", place.run, *flags]


def evaluate(*flags: object) -> Callable[[Place], list[object]]:
    return lambda place: ["evaluate", place.run, *flags]


def recommend(*flags: object) -> Callable[[Place], list[object]]:
    return lambda place: ["recommend", place.run, "--history", "SKU-1", *flags]


def other_dataset(place: Place) -> None:
    """The same folder with another content hash, as another log would have."""
    path = place.dataset / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "content_hash": "0" * 64}))


def short_dataset(place: Place) -> None:
    (place.folder / "log.csv").write_text("user,item\na,x\na,y\nb,x\n")
    prepare_dataset(place.folder / "log.csv", place.folder / "short")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damaged_checkpoint(place: Place) -> None:
    shutil.copy(place.run / MODEL, place.run / CHECKPOINT)
    cut_off(place.run / CHECKPOINT)


def unfinished(place: Place) -> None:
    header(place, finished=False)


CASES = {
    # train
    "train on nothing": Case(arguments=lambda p: ["train"], says=("DATASET", "--out", "--resume")),
    "no place to write": Case(arguments=lambda p: ["train", p.dataset], says=("--out",)),
    "not a dataset": Case(arguments=lambda p: ["train", p.run, "--out", p.folder / "new"], says=("lsan prepare",)),
    "no such dataset": Case(arguments=lambda p: ["train", p.folder / "no", "--out", p.folder / "new"], says=("no",)),
    "existing folder": Case(arguments=lambda p: ["train", p.dataset, "--out", p.run], says=("already exists",)),
    "existing file": Case(
        arguments=lambda p: ["train", p.dataset, "--out", p.run / "run.json"], says=("already exists", "file")
    ),
    "missing recipe": Case(arguments=train_recipe, says=("r.toml", "No such file")),
    "recipe that is not TOML": Case(prepare=(recipe("[model"),), arguments=train_recipe, says=("not valid TOML",)),
    "unknown recipe key": Case(
        prepare=(recipe("[model]\nwidht = 3"),), arguments=train_recipe, says=("r.toml", "`widht`", "$.model")
    ),
    "value out of range": Case(
        prepare=(recipe("[training]\nepochs = 0"),), arguments=train_recipe, says=("$.training.epochs", ">= 1")
    ),
    "width and heads": Case(
        prepare=(recipe('[model]\nwidth = 9\n[model.encoder]\nkind = "twin-attention"'),), arguments=train_recipe,
        says=("r.toml", "width 9", "heads 2"),
    ),
    "unknown encoder": Case(
        prepare=(recipe('[model.encoder]\nkind = "bertrec"'),), arguments=train_recipe,
        says=("r.toml", "'bertrec'", "$.model.encoder.kind", "sasrec, bert4rec,"),
    ),
    "another regime than the encoder's": Case(
        prepare=(recipe('[model.encoder]\nkind = "bert4rec"'),), arguments=train_recipe, says=('"cloze"', "$.model")
    ),
    "unknown preset": Case(arguments=train("--preset", "papers"), says=("'papers'", "lsan, paper, sasrec")),
    "preset and recipe": Case(
        arguments=train("--preset", "paper", "--recipe", "r.toml"), says=("--preset", "--recipe", "not allowed with")
    ),
    "shares of more than everything": Case(
        prepare=(recipe('[split]\nmethod = "temporal"\nvalidation_share = 0.6\ntest_share = 0.6'),),
        arguments=train_recipe, says=("less than 1", "0.6"),
    ),
    "seed out of range": Case(arguments=train("--seed", -1), says=("seed", ">= 0")),
    "seed in words": Case(arguments=train("--seed", "lucky"), says=("--seed", "lucky")),
    "no threads": Case(arguments=train("--threads", 0), says=("--threads 0", "of 1 to 1024")),
    "too many threads": Case(arguments=train("--threads", 100_000), says=("--threads 100000", "of 1 to 1024")),
    "a folder that is a dataset": Case(
        arguments=lambda p: ["compare", p.dataset, "--models", "popularity", "--out", p.dataset],
        says=("is a dataset", "name another folder"),
    ),
    "unknown device": Case(arguments=train("--device", "tpu"), says=("--device", "tpu", "cuda")),
    "unknown flag": Case(arguments=train("--epochs", 3), says=("--epochs",)),
    "too little data": Case(
        prepare=(short_dataset,),
        arguments=lambda p: ["train", p.folder / "short", "--out", p.folder / "new"],
        says=("three events",),
    ),
    "resume with a recipe": Case(arguments=resume("--recipe", "r.toml"), says=("--resume", "--recipe")),
    "resume with a preset": Case(arguments=resume("--preset", "paper"), says=("--resume", "--preset")),
    "resume with a seed": Case(arguments=resume("--seed", 0), says=("--resume", "--seed")),
    "resume elsewhere": Case(arguments=resume("--out", "new"), says=("--resume", "--out")),
    "resume no run": Case(arguments=lambda p: ["train", "--resume", p.dataset], says=("run.json", "lsan train")),
    "resume without the data": Case(
        prepare=(unfinished, lambda p: shutil.rmtree(p.dataset)), arguments=resume(), says=("is gone", "dataset")
    ),
    "resume on other data": Case(
        prepare=(unfinished, other_dataset), arguments=resume(), says=("not the data", "content differs")
    ),
    "resume from a damaged checkpoint": Case(
        prepare=(unfinished, damaged_checkpoint),
        arguments=resume(), says=(CHECKPOINT, "train again"),
    ),
    # evaluate
    "evaluate no run": Case(arguments=lambda p: ["evaluate", p.dataset], says=("run.json", "lsan train")),
    "evaluate nothing": Case(arguments=lambda p: ["evaluate"], says=("RUN",)),
    "unknown part": Case(arguments=evaluate("--part", "train"), says=("--part", "validation")),
    "dataset has moved": Case(
        prepare=(lambda p: shutil.move(p.dataset, p.folder / "x"),), arguments=evaluate(), says=("gone", "--dataset")
    ),
    "dataset of another log": Case(prepare=(other_dataset,), arguments=evaluate(), says=("not the data",)),
    "named dataset of another log": Case(
        prepare=(other_dataset,),
        arguments=lambda p: ["evaluate", p.run, "--dataset", p.dataset], says=("content differs",),
    ),
    "no model yet": Case(
        prepare=(unfinished, lambda p: (p.run / MODEL).unlink()), arguments=evaluate(), says=("train --resume",)
    ),
    # recommend and describe
    "no history": Case(arguments=lambda p: ["recommend", p.run], says=("--history",)),
    "none asked for": Case(arguments=recommend("-k", 0), says=("k must be at least 1",)),
    "some asked for": Case(arguments=recommend("-k", "some"), says=("-k", "some")),
    "time in words": Case(arguments=recommend("--at", "tonight"), says=("--at", "'tonight'", "ISO")),
    "no such hour": Case(arguments=recommend("--at", "2026-11-21T25:00"), says=("--at", "25:00")),
    "time is nan": Case(arguments=recommend("--at", "nan"), says=("not a time",)),
    "seen or not": Case(arguments=recommend("--include-seen", "--exclude-seen"), says=("not allowed with",)),
    "recommend from no run": Case(
        arguments=lambda p: ["recommend", p.folder, "--history", "a"], says=("run.json", "lsan train")
    ),
    "truncated model": Case(prepare=(lambda p: cut_off(p.run / MODEL),), arguments=recommend(), says=("damaged",)),
    "describe no run": Case(arguments=lambda p: ["describe", p.folder / "no"], says=("run.json", "lsan train")),
    "describe half a run": Case(
        prepare=(lambda p: (p.run / "catalogue.json").unlink(),), arguments=lambda p: ["describe", p.run],
        says=("catalogue.json", "No such file"),
    ),
}  # fmt: skip


@pytest.fixture
def place(small_run: Path, small_shop: Dataset, tmp_path: Path) -> Place:
    run, dataset = tmp_path / "run", tmp_path / "dataset"
    shutil.copytree(small_run, run)
    shutil.copytree(small_shop.path, dataset)
    here = Place(run, dataset, tmp_path)
    header(here, path=str(dataset))
    return here


def exit_code(arguments: list[object]) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:  # how argparse ends
        return int(stop.code or 0)


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_misuse_is_one_clear_line(case: Case, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for step in case.prepare:
        step(place)
    before = state(place.folder)
    assert exit_code(case.arguments(place)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    assert [part for part in case.says if part not in captured.err] == [], captured.err
    assert state(place.folder) == before


def test_cuda_where_there_is_none(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    for arguments in (train("--device", "cuda"), evaluate("--device", "cuda"), recommend("--device", "cuda")):
        assert exit_code(arguments(place)) == 2
        assert "no CUDA device" in capsys.readouterr().err
    assert not (place.folder / "new").exists()


def test_misuse_in_a_process_of_its_own(place: Place) -> None:
    cut_off(place.run / MODEL)
    program = [sys.executable, "-c", "import sys; from lsan.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*program, "recommend", str(place.run), "--history", "a"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "damaged" in done.stderr
