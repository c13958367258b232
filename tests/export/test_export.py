"""`lsan export`: nothing leaves that does not answer as the network does."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measured import assert_measured

import lsan.export.export
from lsan.cli import main
from lsan.config import ModelConfig, QuantisationConfig, Recipe, TrainingConfig
from lsan.data.dataset import Dataset
from lsan.errors import BundleError, ConfigError
from lsan.experiment import Observer, start_run
from lsan.export.bundle import TOLERANCES, Bundle, bundle_bytes, make_bundle
from lsan.export.export import export_bundle
from lsan.runs import Run, load_run, write_run
from lsan.runtime import Recommender
from lsan.runtime.file import BundleFile, read_bundle

CPU = torch.device("cpu")


def test_the_file_is_as_accurate_as_the_run(small_run: Path, tmp_path: Path) -> None:
    exported = export_bundle(small_run, tmp_path / "model.lsan")
    assert_measured(exported, small_run)
    assert sum(exported.parts.values()) == (tmp_path / "model.lsan").stat().st_size


def test_products_in_whole_numbers_are_measured(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lsan compress"):
        export_bundle(small_run, tmp_path / "model.lsan", arithmetic="int8")
    run = load_run(small_run, device=CPU)
    model = msgspec.structs.replace(run.header.recipe.model, quantisation=QuantisationConfig())
    run.network.config = model
    header = replace(run.header, recipe=msgspec.structs.replace(run.header.recipe, model=model))
    shutil.copytree(small_run, tmp_path / "run")
    write_run(tmp_path / "run", replace(run, header=header))
    exact = export_bundle(tmp_path / "run", tmp_path / "exact.lsan")
    rounded = export_bundle(tmp_path / "run", tmp_path / "model.lsan", arithmetic="int8")
    assert exact.agreement is not None
    assert rounded.agreement is not None
    assert exact.agreement.difference < 1e-5 < rounded.agreement.difference < TOLERANCES["int8"]
    assert rounded.report is not None


def test_without_the_dataset_it_is_checked_on_made_up_histories(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    header = json.loads((folder / "run.json").read_text())
    header["dataset"]["path"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(header))
    exported = export_bundle(folder, tmp_path / "model.lsan")
    assert (exported.agreement, exported.report, exported.latency) == (None, None, None)
    assert read_bundle(tmp_path / "model.lsan").manifest["items"] == 60


@pytest.mark.parametrize("where", ["made-up", "real"])
def test_a_file_that_answers_otherwise_is_not_written(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "model.lsan").write_text("what was there before")

    def wrong(run: Run, **names: object) -> Bundle:
        made = make_bundle(run)
        with torch.no_grad():
            run.network.table.bias[17] += 0.1
        if where == "real":  # the test vectors agree with the file, and neither with the network
            return made
        other = make_bundle(run)
        file, old = BundleFile.parse(other.content), BundleFile.parse(made.content)
        tensors = {**file.tensors, "table.bias": old.tensors["table.bias"]}
        return Bundle(content=bundle_bytes(tensors, dict(file.manifest)), parts={}, order=other.order)

    monkeypatch.setattr(lsan.export.export, "make_bundle", wrong)
    with pytest.raises(BundleError, match=r"off by|recommends"):
        export_bundle(small_run, tmp_path / "model.lsan")
    assert (tmp_path / "model.lsan").read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.lsan"]


def test_test_vectors_are_no_users(small_run: Path, small_shop: Dataset) -> None:
    file = BundleFile.parse(make_bundle(load_run(small_run, device=CPU)).content)
    rows = {tuple(row[row > 0].tolist()) for row in file.tensors["check.items"] if (row > 0).sum() > 2}
    users = {
        tuple(small_shop.items[begin:end].tolist())
        for begin, end in zip(small_shop.offsets[:-1], small_shop.offsets[1:], strict=True)
    }
    assert rows
    assert not rows & users


def test_the_commands(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "model.lsan")
    assert main(["export", str(small_run), "--out", path]) == 0
    printed = capsys.readouterr().out
    assert "histories of test cases" in printed
    assert "nDCG@10" in printed
    assert f"written {path}" in printed
    assert main(["verify", path]) == 0
    assert "whole" in capsys.readouterr().out
    assert main(["inspect", path]) == 0
    assert "60 items" in (shown := capsys.readouterr().out)
    assert f"{(tmp_path / 'model.lsan').stat().st_size:,}" in shown
    assert main(["inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["width"] == 8
    first = str(Recommender.load(path).vocabulary.ids[0])
    assert main(["recommend", path, "--history", first, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["recommendations"]) == 10
    out = str(tmp_path / "recs.parquet")
    dataset = load_run(small_run, device=CPU).header.dataset["path"]
    assert main(["batch", path, "--histories", dataset, "--out", out]) == 0
    assert "120 users" in capsys.readouterr().out
    (tmp_path / "cut.lsan").write_bytes((tmp_path / "model.lsan").read_bytes()[:5000])
    for command in ("verify", "inspect"):
        assert main([command, str(tmp_path / "cut.lsan")]) == 2
        assert "cut.lsan" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "\ud800"])
def test_what_a_file_says_does_not_steer_the_terminal(
    text: str, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = BundleFile.parse(make_bundle(load_run(small_run, device=CPU)).content)
    table = {**file.manifest["table"], "kind": "codes", "rows": [text]}
    path = tmp_path / "model.lsan"
    path.write_bytes(bundle_bytes({**file.tensors}, {**file.manifest, "table": table}))
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.count("\N{REPLACEMENT CHARACTER}") == sum(not c.isprintable() for c in text)
    path.write_bytes(bundle_bytes({**file.tensors}, {**file.manifest, "table": {"kind": "codes", "weight": text}}))
    assert main(["verify", str(path)]) == 2
    assert text not in capsys.readouterr().err


def test_verify_finds_another_answer(small_run: Path) -> None:
    file = BundleFile.parse(make_bundle(load_run(small_run, device=CPU)).content)
    scores = file.tensors["check.scores"].copy()
    scores[0, 0] = 5
    changed = bundle_bytes({**file.tensors, "check.scores": scores}, dict(file.manifest))
    with pytest.raises(BundleError, match=r"other\.lsan: .*test vector 0"):
        Recommender(changed, where="other.lsan").verify()


@cache
def _content(folder: Path) -> bytes:
    return make_bundle(load_run(folder, device=CPU)).content


@given(data=st.data())
def test_verify_finds_any_changed_byte_of_a_tensor(
    small_run: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = _content(small_run)
    at = data.draw(st.integers(8 + int.from_bytes(content[:8], "little"), len(content) - 1))
    path = tmp_path_factory.mktemp("damaged") / "model.lsan"
    path.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    assert main(["verify", str(path)]) == 2


def test_bundles_without_a_digest_can_be_used(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = _content(small_run)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]["sha256"]
    path = tmp_path / "old.lsan"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    assert main(["verify", str(path)]) == 0
    assert "no digest" in capsys.readouterr().out


def test_runs_whose_items_were_removed_or_added_can_be_exported(small_run: Path, tmp_path: Path) -> None:
    ids = [str(raw) for raw in load_run(small_run, device=CPU).catalogue.ids]
    assert main(["remove-items", str(small_run), *ids[:3], "--out", str(tmp_path / "fewer")]) == 0
    exported = export_bundle(tmp_path / "fewer", tmp_path / "fewer.lsan")
    assert exported.report is not None
    removed = np.isin(exported.report.answers, [1, 2, 3])
    assert np.isinf(exported.report.all_items.ranks[removed]).all()
    recipe = Recipe(model=ModelConfig(regime="prefix", width=8, history=12), training=TrainingConfig(epochs=1))
    dataset = Dataset.open(Path(load_run(small_run, device=CPU).header.dataset["path"]))
    start_run(dataset, recipe, tmp_path / "full", device=CPU, observer=Observer())
    (tmp_path / "new.csv").write_text("item,title\nSKU-NEW,A new lamp\n")
    added = ["add-items", str(tmp_path / "full"), str(tmp_path / "new.csv"), "--out", str(tmp_path / "more")]
    assert main(added) == 0
    assert export_bundle(tmp_path / "more", tmp_path / "more.lsan").report is not None
    assert Recommender.load(tmp_path / "more.lsan").index_of("SKU-NEW")
    assert main(["evaluate", str(tmp_path / "more")]) == 0
