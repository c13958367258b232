"""The run folder: what was written comes back, and damage is one clear line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsan.cli import main
from lsan.errors import DataError, LsanError
from lsan.runs import MODEL, RunHeader, load_run, write_run

CPU = torch.device("cpu")
Change = Callable[[Path], None]


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> Path:
    """A copy of a run, to be damaged."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def header(**entries: Any) -> Change:
    """Changes run.json; `dataset__name=...` changes an entry of an entry, and None removes."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "run.json").read_text())
        for path, value in entries.items():
            *outer, last = path.split("__")
            table = content
            for name in outer:
                table = table[name]
            if value is None:
                del table[last]
            else:
                table[last] = value
        (folder / "run.json").write_text(json.dumps(content))

    return change


def catalogue(change_columns: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "catalogue.json").read_text())
        change_columns(content)
        (folder / "catalogue.json").write_text(json.dumps(content))

    return change


def tensors(change_tensors: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        content = load_file(folder / MODEL)
        change_tensors(content)
        save_file(content, folder / MODEL)

    return change


def text(name: str, content: str | bytes) -> Change:
    return lambda folder: void((folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()))


def void(_: object) -> None:
    return None


def shorten(folder: Path, length: int) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:length])


def folder_instead(folder: Path) -> None:
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()


def last_to(value: int) -> Callable[[torch.Tensor], object]:
    return lambda tensor: tensor[-1:].fill_(value)


def columns_without_last(columns: dict[str, Any]) -> None:
    for column in columns.values():
        column.pop()


DAMAGE: dict[str, tuple[Change, str]] = {
    "no run.json": (lambda folder: (folder / "run.json").unlink(), "run.json: cannot be read"),
    "run.json is a folder": (folder_instead, "cannot be read"),
    "run.json is cut off": (text("run.json", '{"format": "lsan-run",'), "not valid JSON"),
    "run.json is binary": (text("run.json", b"\xff\xfe\x00"), "not valid JSON"),
    "run.json is a list": (text("run.json", "[]"), 'expected "format"'),
    "another format": (header(format="lsan-dataset"), 'expected "format"'),
    "a later version": (header(version=2), "version 2"),
    "no recipe": (header(recipe=None), "'recipe' is missing"),
    "a recipe of another lsan": (header(recipe__model__depth=3), "unknown field `depth`"),
    "a bad value in the recipe": (header(recipe__model__heads=3), "not a multiple of heads"),
    "no hours": (header(hours=None), "'hours' is missing"),
    "hours in words": (header(hours="yes"), "'hours'"),
    "dataset is a number": (header(dataset=3), "'dataset.name'"),
    "no hash": (header(dataset__content_hash=None), "'dataset.content_hash'"),
    "users in words": (header(dataset__users="many"), "'dataset.users'"),
    "no progress": (header(progress={}), "'progress.finished'"),
    "no catalogue": (lambda folder: (folder / "catalogue.json").unlink(), "catalogue.json: cannot be read"),
    "catalogue is not JSON": (text("catalogue.json", "{"), "not valid JSON"),
    "catalogue is a list": (text("catalogue.json", "[1, 2]"), "expected an object"),
    "catalogue is empty": (text("catalogue.json", '{"ids": []}'), "no items"),
    "a shorter catalogue": (catalogue(columns_without_last), "the catalogue has 59 items"),
    "a longer catalogue": (catalogue(lambda c: [c[n].append(c[n][0] + "x") for n in c]), "the catalogue has 61 items"),
    "columns that differ in length": (catalogue(lambda c: c["titles"].pop()), "differ in length"),
    "one category less": (
        catalogue(lambda c: c.update(categories=[None if x == c["categories"][0] else x for x in c["categories"]])),
        "size mismatch",
    ),
    "no model": (lambda folder: (folder / MODEL).unlink(), f"{MODEL}: cannot be read"),
    "an empty model": (lambda folder: shorten(folder, 0), "damaged"),
    "a model cut off in its header": (lambda folder: shorten(folder, 100), "damaged"),
    "a model cut off at its end": (lambda folder: shorten(folder, -1), "damaged"),
    "a model that is not safetensors": (text(MODEL, b"PK\x03\x04" * 99), "damaged"),
    "a model of another width": (header(recipe__model__width=16), "should be of shape"),
    "a model of another regime and depth": (header(recipe__model__blocks=2), "should be of shape"),
    "a tensor too few": (tensors(lambda t: t.pop("table.bias")), "table.bias"),
    "a tensor too many": (tensors(lambda t: t.update(more=torch.zeros(1))), "more"),
    "no item numbers": (tensors(lambda t: t.pop("table.numbers")), "table.numbers"),
    "item numbers without a shape": (tensors(lambda t: t.update({"table.numbers": torch.tensor(3)})), "shape []"),
    "item numbers in a square": (tensors(lambda t: t.update({"table.numbers": torch.ones(60, 1)})), "shape [60, 1]"),
    "too few item numbers": (tensors(lambda t: t.update({"table.numbers": torch.arange(59)})), "shape [59]"),
    "an item number out of range": (tensors(lambda t: last_to(9999)(t["table.numbers"])), "out of range"),
    "a negative item number": (tensors(lambda t: last_to(-1)(t["table.numbers"])), "out of range"),
    "an item number twice": (
        tensors(lambda t: last_to(int(t["table.numbers"][0]))(t["table.numbers"])), "the same code"
    ),
    "a category that does not exist": (tensors(lambda t: last_to(99)(t["context.category_of_item"])), "category"),
    "a negative category": (tensors(lambda t: last_to(-1)(t["context.category_of_item"])), "category"),
    "a negative popularity": (tensors(lambda t: last_to(-1)(t["popularity"])), "popularity"),
    "NaN among the weights": (tensors(lambda t: t["table.weight"][3].fill_(torch.nan)), "table.weight"),
    "infinity among the weights": (tensors(lambda t: t["fuse.0.bias"].fill_(torch.inf)), "fuse.0.bias"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_clear_line(folder: Path, damage: Change, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_run(folder, device=CPU)
    damage(folder)
    with pytest.raises(LsanError) as error:
        load_run(folder, device=CPU)
    assert says in str(error.value)
    assert str(folder) in str(error.value) or "catalogue columns" in str(error.value)
    assert "\n" not in str(error.value)
    assert main(["describe", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"lsan: error: {error.value}\n"


def test_a_run_without_a_model_yet_says_how_to_go_on(folder: Path) -> None:
    header(progress__finished=False)(folder)
    assert load_run(folder, device=CPU).header.progress["finished"] is False  # the best so far is usable
    (folder / MODEL).unlink()
    with pytest.raises(DataError, match=f"lsan train --resume {folder}"):
        load_run(folder, device=CPU)


def test_what_was_written_comes_back(small_run: Path, tmp_path: Path) -> None:
    run = load_run(small_run, device=CPU)
    assert not run.network.training
    (tmp_path / "copy").mkdir()
    write_run(tmp_path / "copy", run)
    for name in (MODEL, "run.json", "catalogue.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (small_run / name).read_bytes()
    assert RunHeader.read(tmp_path / "copy") == run.header


def test_a_finished_run_holds_these_files_and_no_pickle(small_run: Path) -> None:
    assert sorted(path.name for path in small_run.iterdir()) == [
        "catalogue.json", "learning-curve.png", "metrics.jsonl", MODEL, "run.json",
    ]  # fmt: skip


def test_a_dataset_path_that_is_not_unicode(small_run: Path, tmp_path: Path) -> None:
    run = load_run(small_run, device=CPU)
    strange = RunHeader(
        recipe=run.header.recipe,
        hours=True,
        dataset={**run.header.dataset, "path": "/d\udcff"},
        progress=run.header.progress,
    )
    strange.write(tmp_path)
    assert RunHeader.read(tmp_path).dataset["path"] == "/d\udcff"
