"""`lsan export --to onnx`: the files, what they answer, and what is refused."""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from measured import assert_measured
from onnx import numpy_helper

import lsan.export.onnx_export
import lsan.export.onnx_graph
from lsan.cli import main
from lsan.config import CodedTableConfig, FullTableConfig, Gru4RecConfig, ModelConfig, QuantisationConfig
from lsan.data.catalogue import Catalogue
from lsan.errors import BundleError, ConfigError
from lsan.export.bundle import bundle_bytes, make_bundle
from lsan.export.export import export_bundle, items_path
from lsan.export.onnx import OnnxModel, make_onnx
from lsan.export.onnx_export import export_onnx
from lsan.export.onnx_session import session_of
from lsan.export.onnx_settings import MOST_ITEMS, PRECISIONS
from lsan.models.quantisation import pack_bits
from lsan.runs import Run
from lsan.runtime import Recommender
from lsan.runtime.file import BundleFile
from small_networks import ITEMS, NETWORKS, histories_of, settled_run
from small_networks import PRECISIONS as WEIGHTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDE = ModelConfig(regime="prefix", width=64, history=12, table=FullTableConfig(), encoder=Gru4RecConfig())


def answers(model: Path, histories: torch.Tensor, k: int, **inputs: Any) -> tuple[Any, Any]:
    indices, scores = session_of(model.read_bytes()).run(
        None, {"items": histories.numpy().astype(np.int32), "k": np.array(k), **inputs}
    )
    return indices, scores


def test_a_run_and_its_bundle_give_the_same_model(small_run: Path, tmp_path: Path) -> None:
    exported = export_onnx(small_run, tmp_path / "run.onnx")
    export_bundle(small_run, tmp_path / "model.lsan")
    alone = export_onnx(tmp_path / "model.lsan", tmp_path / "file.onnx")
    assert (alone.agreement, alone.report, alone.latency) == (None, None, None)
    assert items_path(tmp_path / "run.onnx").read_bytes() == items_path(tmp_path / "file.onnx").read_bytes()
    models = [onnx.load(tmp_path / name) for name in ("run.onnx", "file.onnx")]
    assert models[0].graph == models[1].graph

    assert_measured(exported, small_run)
    sizes = [path.stat().st_size for path in (tmp_path / "run.onnx", tmp_path / "run.onnx.items.jsonl")]
    assert sum(exported.parts.values()) == sum(sizes)


def test_answers_are_the_recommenders(small_run: Path, tmp_path: Path) -> None:
    export_bundle(small_run, tmp_path / "model.lsan")
    export_onnx(tmp_path / "model.lsan", tmp_path / "model.onnx")
    recommender = Recommender.load(tmp_path / "model.lsan")
    items = [json.loads(line) for line in items_path(tmp_path / "model.onnx").read_bytes().splitlines()]
    assert [item["id"] for item in items] == list(recommender.vocabulary.ids)
    assert {item["category"] for item in items} > {None} or all(item["category"] for item in items)
    known = [item["id"] for item in items]
    for history in (known[3:9], known[:1], [], known[::-1]):  # the last one is longer than what the network reads
        row = torch.tensor([[0] + [known.index(raw) + 1 for raw in history]])
        unknown = {"times": np.full(row.shape, -1), "asked": np.array([-1])}
        indices, scores = answers(tmp_path / "model.onnx", row, 70, **unknown)
        expected = recommender.recommend(history, 70)
        count = len(expected)
        assert [items[index - 1]["title"] for index in indices[0, :count]] == [one.title for one in expected]
        assert np.allclose(scores[0, :count], [one.score for one in expected], rtol=1e-4, atol=1e-4)
        assert indices.shape == (1, len(items))  # no more than there are
        assert not indices[0, count:].any()
        assert np.isneginf(scores[0, count:]).all()


def test_the_model_says_what_it_is(small_run: Path, tmp_path: Path) -> None:
    export_onnx(small_run, tmp_path / "model.onnx", precision="float16")
    model = onnx.load(tmp_path / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert (facts["lsan_schema"], facts["answer"], facts["precision"], facts["items"]) == (
        "1",
        "top-k",
        "float16",
        "60",
    )
    assert facts["items_file"] == "model.onnx.items.jsonl"
    assert facts["items_sha256"] == hashlib.sha256((tmp_path / "model.onnx.items.jsonl").read_bytes()).hexdigest()
    assert json.loads(facts["provenance"])["dataset"]["items"] == 60
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    shapes = {one.name: [axis.dim_param for axis in one.type.tensor_type.shape.dim] for one in model.graph.input}
    assert shapes == {"items": ["batch", "time"], "times": ["batch", "time"], "asked": ["batch"], "k": []}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT32


def test_fewer_bits_are_fewer_bytes() -> None:
    file = BundleFile.parse(make_bundle(settled_run(WIDE, None)).content)
    sizes = [len(make_onnx(file, precision=precision).model.SerializeToString()) for precision in PRECISIONS]
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.35 * sizes[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_what_has_few_bits_keeps_its_numbers_and_scales(bits: Any) -> None:
    config = msgspec.structs.replace(WIDE, table=CodedTableConfig(tables=2, rows=16))
    file = BundleFile.parse(make_bundle(settled_run(config, QuantisationConfig(weights=bits, table=bits))).content)
    model = make_onnx(file, answer="tables").model
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    decoders = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert stored["bundle.table.weight"].dtype == np.int8
    state = next(entry["state"] for entry in file.manifest["program"] if entry["op"] == "gru")
    gates = np.arange(3 * WIDE.width).reshape(3, -1)[[1, 0, 2]].ravel()  # stand in another order in ONNX
    for name, called, order in (("table.weight", "table.weight", slice(None)), (state, f"{state} by gate", gates)):
        found = file.quantised(name, 2)
        assert found is not None
        assert np.array_equal(stored[f"bundle.{called}"], found[0][order])
        assert np.array_equal(stored[decoders[f"bundle.{called}"]].ravel(), found[1][order])


def test_ties_go_to_the_lower_item(tmp_path: Path) -> None:
    run = settled_run(NETWORKS[0], None)
    run.network.table.bias.data.copy_(torch.arange(ITEMS) // 4)
    run.network.table.weight.data.zero_()
    (tmp_path / "model.lsan").write_bytes(make_bundle(run).content)
    export_onnx(tmp_path / "model.lsan", tmp_path / "model.onnx")
    inputs = {"times": np.array([[-1, -1]]), "asked": np.array([-1])}
    given = inputs if json.loads(metadata(tmp_path / "model.onnx")["timed"]) else {}
    for k in (1, 3, 6, ITEMS):
        indices, _ = answers(tmp_path / "model.onnx", torch.tensor([[0, 22]]), k, **given)
        ranked = sorted(set(range(1, ITEMS + 1)) - {13, 22}, key=lambda item: (-((item - 1) // 4), item))
        assert indices[0].tolist() == [*ranked, 0, 0][:k]


def metadata(model: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(model).metadata_props}


@pytest.mark.parametrize("wrong", ["scores", "best items", "items"])
def test_a_model_that_answers_otherwise_is_not_written(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    (tmp_path / "model.onnx").write_text("what was there before")

    def other(file: BundleFile, **settings: Any) -> OnnxModel:
        made = make_onnx(file, answer="tables" if wrong == "items" else "top-k")
        graph = made.model.graph
        if wrong == "items":
            return OnnxModel(model=made.model, items=made.items.replace(b'"bias": ', b'"bias": 1', 1))
        if wrong == "scores":
            bias = next(tensor for tensor in graph.initializer if tensor.name == "bundle.table.bias")
            changed = numpy_helper.to_array(bias).copy()
            changed[17] += 0.1
            bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
        else:
            scatter = next(node for node in graph.node if node.op_type == "ScatterElements")
            scatter.input[1] = graph.node[0].output[0]  # the items themselves: one place too far
        return made

    monkeypatch.setattr(lsan.export.onnx_export, "make_onnx", other)
    with pytest.raises(BundleError, match="best items" if wrong == "best items" else "are off by"):
        export_onnx(small_run, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def large_bundle(items: int) -> bytes:
    """Codes of two tables; the hidden vector is the last item's own."""
    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        "codes": pack_bits(random.integers(0, 4, items * 2), 2),
        "table.weight": random.standard_normal((8, 4), dtype=np.float32),
        "table.bias": pack_bits(np.full(items, 128), 8),
        "table.bias.scale": np.ones(1, dtype=np.float16),
        "popularity.items": np.zeros(0, dtype=np.uint8),
        "popularity.counts": np.zeros(0, dtype=np.uint8),
        "check.items": np.ones((1, 1), dtype=np.int32),
    }
    manifest = {
        "items": items, "history": 8, "width": 4, "timed": False, "exclude_seen": True, "categories": 0,
        "popular": 0, "popular_bits": 1, "quantised": {"table.bias": {"shape": [items], "bits": 8}},
        "table": {
            "kind": "codes", "weight": "table.weight", "rows": [4, 4], "offsets": [0, 4], "slices": 1,
            "codes": {"from": "packed", "bits": 2},
        },
        "program": [{"op": "items", "in": [], "factor": 1.0}, {"op": "last", "in": [0]}],
        "output": {"kind": "table", "bias": "table.bias"}, "tolerance": 1e-4,
    }  # fmt: skip
    return bundle_bytes(tensors, manifest)


def test_models_that_would_be_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    most = BundleFile.parse(large_bundle(MOST_ITEMS))
    assert len(make_onnx(most).model.SerializeToString()) < 5 * MOST_ITEMS
    more = BundleFile.parse(large_bundle(MOST_ITEMS + 1))
    with pytest.raises(ConfigError, match=r"100,001 items.*--onnx-output tables"):
        make_onnx(more)
    made = make_onnx(more, answer="tables")
    assert len(made.model.SerializeToString()) < 5 * MOST_ITEMS
    assert json.loads(made.items.splitlines()[-1])["id"] == MOST_ITEMS + 1
    monkeypatch.setattr(lsan.export.onnx_graph, "_LARGEST", 100_000)
    with pytest.raises(ConfigError, match="2 GiB"):
        make_onnx(more, answer="tables")


def test_the_command(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "model.onnx")
    assert main(["export", str(small_run), "--to", "onnx", "--out", path, "--onnx-output", "tables"]) == 0
    printed = capsys.readouterr().out
    for words in ("both files", "histories of test cases", "onnxruntime", "nDCG@10", f"written {path} and "):
        assert words in printed
    assert main(["export", str(small_run), "--out", str(tmp_path / "model.lsan")]) == 0
    capsys.readouterr()
    bundle = str(tmp_path / "model.lsan")
    assert main(["export", bundle, "--to", "onnx", "--out", path, "--precision", "int8"]) == 0
    assert "no dataset is at hand" in capsys.readouterr().out
    (tmp_path / "cut.lsan").write_bytes((tmp_path / "model.lsan").read_bytes()[:5000])
    refused = {
        "made of a run's folder": [bundle, "--out", path],
        "--precision goes with --to onnx": [str(small_run), "--precision", "int8", "--out", path],
        "--onnx-output goes with --to onnx": [str(small_run), "--onnx-output", "tables", "--out", path],
        "a dataset goes with a run": [bundle, "--to", "onnx", "--dataset", str(dataset_of(small_run)), "--out", path],
        "cut.lsan": [str(tmp_path / "cut.lsan"), "--to", "onnx", "--out", path],
        "nothing.lsan": [str(tmp_path / "nothing.lsan"), "--to", "onnx", "--out", path],
    }
    for words, flags in refused.items():
        assert main(["export", *flags]) == 2
        assert words in capsys.readouterr().err


def test_a_bundle_that_cannot_be_checked_is_refused(small_run: Path, tmp_path: Path) -> None:
    export_bundle(small_run, tmp_path / "model.lsan")
    file = BundleFile.parse((tmp_path / "model.lsan").read_bytes())
    unchecked = {name: tensor for name, tensor in file.tensors.items() if not name.startswith("check.")}
    (tmp_path / "model.lsan").write_bytes(bundle_bytes(unchecked, {**file.manifest}))
    with pytest.raises(BundleError, match=r"no tensor 'check\.items'"):
        export_onnx(tmp_path / "model.lsan", tmp_path / "model.onnx")


def test_models_for_several_engines_keep_their_own_items(tmp_path: Path) -> None:
    assert items_path(tmp_path / "model.onnx") != items_path(tmp_path / "model.pte")


def dataset_of(run: Path) -> str:
    path: str = json.loads((run / "run.json").read_text())["dataset"]["path"]
    return path


def test_without_the_packages_it_says_how_to_get_them(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(small_run), "--to", "onnx", "--out", str(tmp_path / "model.onnx")]) == 2
    assert 'pip install "lsan[onnx]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_lines_in_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settled_run(WIDE, None)
    ids = ["SKU-0421", "SKU-0017", *(f"SKU-{number}" for number in range(3, ITEMS + 1))]
    titles: list[str | None] = [f"Lamp {raw}" for raw in ids]
    named = Run(
        header=run.header, network=run.network,
        catalogue=Catalogue(ids=list(ids), titles=titles, categories=run.catalogue.categories),
    )  # fmt: skip
    (tmp_path / "model.lsan").write_bytes(make_bundle(named).content)
    export_onnx(tmp_path / "model.lsan", tmp_path / "model.onnx")
    lines = re.findall(r"```python\n(.*?)```", (DOCS / "export.md").read_text(), re.DOTALL)
    found = next(block for block in lines if "onnxruntime" in block)
    monkeypatch.chdir(tmp_path)
    exec(found, {})
    history = histories_of([1, 2]).items
    expected, _ = answers(tmp_path / "model.onnx", history, 10)
    assert capsys.readouterr().out.strip() == str([titles[index - 1] for index in expected[0]])


def test_of_a_bundle_that_multiplies_whole_numbers(tmp_path: Path) -> None:
    with torch.no_grad():
        bundle = make_bundle(settled_run(NETWORKS[0], WEIGHTS[1]), arithmetic="int8")
    path = tmp_path / "model.lsan"
    path.write_bytes(bundle.content)
    exported = export_onnx(path, tmp_path / "model.onnx")
    assert exported.difference < 1e-5  # it does not round
