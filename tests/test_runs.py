"""The run folder: what was written comes back, and damage is one clear line."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from lsan.cli import main
from lsan.config import Bert4RecConfig, CaserConfig, FpmcConfig, HashedTableConfig, ModelConfig, Recipe, TimeConfig
from lsan.data.catalogue import Catalogue
from lsan.errors import DataError, LsanError
from lsan.runs import MODEL, Run, RunHeader, load_run, new_network, write_run

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
    "a later version": (header(version=4), "version 4"),
    "no recipe": (header(recipe=None), "'recipe' is missing"),
    "a recipe of another lsan": (header(recipe__model__depth=3), "unknown field `depth`"),
    "a bad value in the recipe": (header(recipe__model__encoder__heads=3), "not a multiple of heads"),
    "no timed": (header(timed=None), "'timed' is missing"),
    "timed in words": (header(timed="yes"), "'timed'"),
    "dataset is a number": (header(dataset=3), "'dataset.name'"),
    "no hash": (header(dataset__content_hash=None), "'dataset.content_hash'"),
    "users in words": (header(dataset__users="many"), "'dataset.users'"),
    "no progress": (header(progress={}), "'progress.finished'"),
    "no catalogue": (lambda folder: (folder / "catalogue.json").unlink(), "catalogue.json: cannot be read"),
    "catalogue is not JSON": (text("catalogue.json", "{"), "not valid JSON"),
    "catalogue is a list": (text("catalogue.json", "[1, 2]"), "expected an object"),
    "catalogue is empty": (text("catalogue.json", '{"ids": []}'), "no items"),
    "a shorter catalogue": (catalogue(columns_without_last), "should be of shape [59]"),
    "a longer catalogue": (catalogue(lambda c: [c[n].append(c[n][0] + "x") for n in c]), "should be of shape [61]"),
    "columns that differ in length": (catalogue(lambda c: c["titles"].pop()), "differ in length"),
    "one category less": (
        catalogue(lambda c: c.update(categories=[None if x == c["categories"][0] else x for x in c["categories"]])),
        "context.previous_category should be of shape",
    ),
    "no model": (lambda folder: (folder / MODEL).unlink(), f"{MODEL}: cannot be read"),
    "an empty model": (lambda folder: shorten(folder, 0), "damaged"),
    "a model cut off in its header": (lambda folder: shorten(folder, 100), "damaged"),
    "a model cut off at its end": (lambda folder: shorten(folder, -1), "damaged"),
    "a model that is not safetensors": (text(MODEL, b"PK\x03\x04" * 99), "damaged"),
    "a model of another width": (header(recipe__model__width=16), "should be of shape"),
    "a model of another depth": (header(recipe__model__encoder__blocks=2), "encoder.blocks.1"),
    "a model of less depth": (
        tensors(lambda t: t.update({"encoder.blocks.1.out.bias": torch.zeros(8)})),
        "encoder.blocks.1.out.bias: no part of the network",
    ),
    "a model of another table": (header(recipe__model__table={"kind": "full"}), "table.weight should be of shape"),
    "a model of another encoder": (header(recipe__model__encoder={"kind": "sasrec"}), "encoder.blocks.0"),
    "a model without its context": (header(recipe__model__context=None), "context.category"),
    "a model without time signals": (header(recipe__model__time={}), "time.gap_before should be of shape [31, 8]"),
    "a tensor too few": (tensors(lambda t: t.pop("table.bias")), "table.bias"),
    "a tensor too many": (tensors(lambda t: t.update(more=torch.zeros(1))), "more: no part"),
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
    "infinity among the weights": (tensors(lambda t: t["fusion.mlp.0.bias"].fill_(torch.inf)), "fusion.mlp.0.bias"),
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


class NoMemory(TorchDispatchMode):
    """While it lasts, no tensor of more than 10,000 numbers is made, but on the meta device."""

    made: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        size = args[0] if args and isinstance(args[0], list | tuple) else []
        if size and isinstance(size[0], int) and kwargs.get("device") != torch.device("meta"):
            assert math.prod(size) <= 10_000, f"{func} of {size}"
            self.made += 1
        return func(*args, **kwargs)


WIDE = 65_536
GIANTS: dict[str, Change] = {
    "wide": header(recipe__model__width=WIDE),
    "wide and deep": header(recipe__model__width=WIDE, recipe__model__encoder__blocks=256),
    "a long history": header(recipe__model__history=WIDE, recipe__model__width=WIDE),
    "base tables": header(recipe__model__table={"kind": "composed", "radices": [10**8]}),
    "rows": header(recipe__model__table={"kind": "hashed", "rows": WIDE, "hashes": 8}, recipe__model__width=WIDE),
    "recurrent layers": header(recipe__model__encoder={"kind": "gru4rec", "layers": 8}, recipe__model__width=WIDE),
    "frequencies": header(recipe__model__encoder={"kind": "bsarec"}, recipe__model__history=WIDE),
    "interests": header(recipe__model__encoder={"kind": "lightsans", "interests": WIDE}, recipe__model__width=WIDE),
    "filters": header(
        recipe__model__encoder={"kind": "caser", "order": 64, "horizontal": WIDE, "vertical": WIDE},
        recipe__model__regime="causal", recipe__model__untied_output=True,
    ),
    "users": header(
        dataset__users=10**12, recipe__model__encoder={"kind": "fpmc"}, recipe__model__regime="causal",
        recipe__model__untied_output=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("giant", GIANTS.values(), ids=GIANTS.keys())
def test_a_giant_recipe_is_refused_before_anything_is_allocated(folder: Path, giant: Change) -> None:
    with NoMemory() as small:
        load_run(folder, device=CPU)
    assert small.made > 20
    giant(folder)
    with NoMemory(), pytest.raises(DataError, match="should be of shape"):
        load_run(folder, device=CPU)


CATALOGUE = Catalogue(ids=["a", "b", "c", "d"], titles=[None] * 4, categories=[None] * 4)


def write_untrained(folder: Path, model: ModelConfig, *, users: int = 7) -> None:
    """A run of a network as it begins, on a catalogue of four items."""
    recipe = Recipe(model=model)
    network = new_network(recipe, CATALOGUE, torch.arange(4), torch.arange(4), users)
    dataset = {"name": "d", "path": "/nowhere", "content_hash": "", "users": users, "items": 4, "events": 9}
    folder.mkdir()
    write_run(
        folder,
        Run(
            header=RunHeader(recipe=recipe, timed=True, dataset=dataset, progress={"finished": True}),
            catalogue=CATALOGUE,
            network=network,
        ),
    )


#: Damage to runs with parts that the one above does not have: model, damage, and what the error says.
OTHER_PARTS: dict[str, tuple[ModelConfig, Change, str]] = {
    "a shorter catalogue": (
        ModelConfig(width=4), catalogue(columns_without_last), "popularity should be of shape [3]"
    ),
    "another number of rows": (
        ModelConfig(width=4, table=HashedTableConfig(rows=9)), header(recipe__model__table__rows=8),
        "table.weight should be of shape [8, 4]",
    ),
    "fewer users": (
        ModelConfig(width=4, encoder=FpmcConfig(), untied_output=True), header(dataset__users=6),
        "encoder.users.weight should be of shape [6, 4]",
    ),
    "a negative number of users": (
        ModelConfig(width=4, encoder=CaserConfig(), untied_output=True), header(dataset__users=-1),
        "'dataset.users' is -1",
    ),
    "more users than numbers reach": (
        ModelConfig(width=4, encoder=CaserConfig(), untied_output=True), header(dataset__users=2**70), "no count"
    ),
    "NaN among the user vectors": (
        ModelConfig(width=4, encoder=FpmcConfig(), untied_output=True),
        tensors(lambda t: t["encoder.users.weight"][2].fill_(torch.nan)), "encoder.users.weight holds",
    ),
    "infinity among the time signals": (
        ModelConfig(width=4, time=TimeConfig()),
        tensors(lambda t: t["time.hour"][3].fill_(torch.inf)), "time.hour holds",
    ),
    "a mask of another width": (
        ModelConfig(width=4, regime="cloze", encoder=Bert4RecConfig()),
        tensors(lambda t: t.update({"encoder.mask": torch.zeros(3)})), "encoder.mask should be of shape [4]",
    ),
    "a table of its own for the output": (
        ModelConfig(width=4), header(recipe__model__untied_output=True), "untied should be of shape [4, 4]"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "damage", "says"), OTHER_PARTS.values(), ids=OTHER_PARTS.keys())
def test_damage_to_other_models(tmp_path: Path, model: ModelConfig, damage: Change, says: str) -> None:
    folder = tmp_path / "run"
    write_untrained(folder, model)
    load_run(folder, device=CPU)
    damage(folder)
    with pytest.raises(DataError) as error:
        load_run(folder, device=CPU)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


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
        timed=True,
        dataset={**run.header.dataset, "path": "/d\udcff"},
        progress=run.header.progress,
    )
    strange.write(tmp_path)
    assert RunHeader.read(tmp_path).dataset["path"] == "/d\udcff"
