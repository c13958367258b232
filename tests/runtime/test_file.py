"""Bundles from untrusted places: every damaged one gets a `BundleError`, never anything else."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from lsan.errors import BundleError
from lsan.export.bundle import make_bundle
from lsan.models.quantisation import pack_bits
from lsan.runs import load_run
from lsan.runtime.engine import make_engine
from lsan.runtime.file import BundleFile, packed_size, read_bundle, unpack
from lsan.runtime.recommender import Recommender


@pytest.fixture(scope="module")
def content(small_run: Path) -> bytes:
    return make_bundle(load_run(small_run, device=torch.device("cpu"))).content


def use(content: bytes) -> None:
    """What anyone does with a file: load it and ask."""
    recommender = Recommender(content, native=False)
    ids = recommender.vocabulary.ids
    assert len(recommender.recommend([ids[0], ids[-1]], 3)) <= 3


def changed(content: bytes, header: Any = None, manifest: Any = None) -> bytes:
    """The file with `header(header)` and `manifest(manifest)` done to its JSON."""
    size = int.from_bytes(content[:8], "little")
    entries, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if manifest is not None:
        begin, end = entries["manifest"]["data_offsets"]
        parsed = json.loads(data[begin:end])
        manifest(parsed)
        text = json.dumps(parsed).encode()
        data = data[:begin] + text + data[end:]
        entries["manifest"] |= {"shape": [len(text)], "data_offsets": [begin, begin + len(text)]}
        for name, entry in entries.items():
            if name not in ("__metadata__", "manifest") and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [place + len(text) - (end - begin) for place in entry["data_offsets"]]
    if header is not None:
        header(entries)
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_it_is_a_valid_safetensors_file(content: bytes) -> None:
    tensors = load(content)
    assert set(tensors) == {*BundleFile.parse(content).tensors, "manifest"}
    assert json.loads(tensors["manifest"].tobytes())["items"] == 60


def test_the_changes_of_these_tests_alone_do_no_harm(content: bytes) -> None:
    use(changed(content))
    use(changed(content, manifest=lambda manifest: manifest["provenance"].update(note="longer" * 50)))


DAMAGES: dict[str, tuple[Any, Any, str]] = {
    "a schema from the future": (lambda h: h["__metadata__"].update(schema="2"), None, "schema '2'"),
    "another format": (lambda h: h["__metadata__"].update(format="pt"), None, "not a bundle"),
    "no metadata": (lambda h: h.pop("__metadata__"), None, "not a bundle"),
    "overlapping tensors": (
        lambda h: h["table.bias"].update(data_offsets=[n - 4 for n in h["table.bias"]["data_offsets"]]), None,
        "overlaps",
    ),
    "a wrong length": (lambda h: h["table.bias"].update(shape=[61]), None, "bytes are not"),
    "a negative shape": (lambda h: h["table.bias"].update(shape=[-60]), None, "outside"),
    "a shape that overflows": (lambda h: h["table.bias"].update(shape=[2**62, 4]), None, "outside"),
    "nothing, of a huge shape": (
        lambda h: h["table.bias"].update(shape=[0, 2**39], data_offsets=[0, 0]), None, "bytes are not|overlaps"
    ),
    "an unknown type": (lambda h: h["table.bias"].update(dtype="F64"), None, "type"),
    "a shape of texts": (lambda h: h["table.bias"].update(shape=["60"]), None, "whole numbers"),
    "a tensor outside": (lambda h: h["table.bias"].update(data_offsets=[0, 2**40]), None, "outside"),
    "no manifest": (lambda h: h.update(man=h.pop("manifest")), None, "no tensor 'manifest'"),
    "more items": (None, lambda m: m.update(items=61), "61"),
    "billions of items": (None, lambda m: m.update(items=2**31 - 1), "2147483647"),
    "items as text": (None, lambda m: m.update(items="60"), "'items'"),
    "no program": (None, lambda m: m.pop("program"), "program"),
    "an empty program": (None, lambda m: m.update(program=[]), "program of 0"),
    "a long program": (None, lambda m: m.update(program=m["program"] * 1000), "program of"),
    "an unknown operation": (None, lambda m: m["program"][0].update(op="system"), "no operation 'system'"),
    "a forward reference": (None, lambda m: m["program"][0].update({"in": [3]}), "not there yet"),
    "itself": (None, lambda m: m["program"][-1].update({"in": [len(m["program"]) - 1]}), "not there yet"),
    "a wide matrix": (
        None, lambda m: m["program"].append({"op": "window", "in": [0], "length": 10**9}), "expected a whole number"
    ),
    "too many columns": (
        None,
        lambda m: m["program"].extend([
            {"op": "window", "in": [0], "length": 60_000}, {"op": "flatten", "in": [len(m["program"])]}
        ]),
        "columns",
    ),
    "attention of many heads": (
        None,
        lambda m: m["program"].extend([
            {"op": "window", "in": [0], "length": 5000},
            {"op": "concat", "in": [len(m["program"])] * 4},
            {"op": "attention", "in": [len(m["program"]) + 1] * 3, "heads": 4, "causal": False, "scale": 1.0},
        ]),
        "attention of 100000000 numbers",
    ),
    "a program of many matrices": (
        None,
        lambda m: m["program"].extend([{"op": "window", "in": [0], "length": 60_000}] * 1000),
        "the program makes",
    ),
    "places of nothing": (
        None, lambda m: m["program"][0].update(op="rows", table="table.weight", index="position", of=0),
        "'of' is not what is read",
    ),
    "a huge factor": (
        None, lambda m: next(o for o in m["program"] if o["op"] == "attention").update(scale=10**400),
        "expected a number",
    ),
    "no such tensor": (None, lambda m: m["output"].update(bias="what"), "what"),
    "an activation of its own": (
        None, lambda m: next(o for o in m["program"] if o["op"] == "linear").update(activation="exec"), "activation"
    ),
    "a table that names no row": (None, lambda m: m["table"].update(offsets=[10**6] * 2), "rows that do not exist"),
    "a window of numbers that are none": (None, lambda m: m["program"][0].update({"in": "abc"}), "'in'"),
    "a deep manifest": (None, lambda m: m.update(provenance=json.loads("[" * 500 + "]" * 500)), ""),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage: str, content: bytes) -> None:
    header, manifest, message = DAMAGES[damage]
    if damage == "a deep manifest":  # free text, so it is fine, or too deep for the parser
        try:
            use(changed(content, header, manifest))
        except BundleError:
            return
        return
    with pytest.raises(BundleError, match=message):
        use(changed(content, header, manifest))


def tensor_changed(content: bytes, name: str, change: Any) -> bytes:
    file = BundleFile.parse(content)
    array = file.tensors[name].copy()
    change(array)
    begin, end = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])[name]["data_offsets"]
    start = 8 + int.from_bytes(content[:8], "little")
    return content[: start + begin] + array.tobytes() + content[start + end :]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table.weight", lambda a: a.fill(np.nan), "finite"),
        ("e9", lambda a: a.fill(np.inf), "finite"),
        ("ids.bytes", lambda a: a.fill(0xFF), "UTF-8"),
        ("titles.ends", lambda a: a.__setitem__(0, -5), "titles.ends"),
        ("titles.ends", lambda a: a.__setitem__(3, 10**9), "titles.ends"),
        ("categories", lambda a: a.fill(0xFF), "category that does not exist"),
        ("popularity.items", lambda a: a.fill(7), "popularity.items"),
    ],
)
def test_damaged_tensors_are_refused(content: bytes, name: str, change: Any, message: str) -> None:
    if name == "ids.bytes" and name not in BundleFile.parse(content).tensors:
        name = "titles.bytes"
    with pytest.raises(BundleError, match=message):
        use(tensor_changed(content, name, change))


def test_every_truncation_is_refused(content: bytes) -> None:
    for length in [*range(0, 400, 7), *range(400, len(content), 997), len(content) - 1]:
        with pytest.raises(BundleError):
            use(content[:length])
    with pytest.raises(BundleError, match="after the last"):
        use(content + b"\0")


def test_mutated_files_never_do_anything_else(content: bytes) -> None:
    """A short version of benchmarks/fuzz_bundles.py."""
    generator = random.Random(1)
    refused = 0
    for _ in range(400):
        mutated = bytearray(content)
        for _ in range(generator.choice((1, 2, 8))):
            mutated[generator.randrange(len(mutated) if generator.random() < 0.3 else 6000)] = generator.randrange(256)
        try:
            use(bytes(mutated))
        except BundleError:
            refused += 1
    assert refused > 200


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path / "none.lsan")
    (tmp_path / "text.lsan").write_text("hello, this is no bundle at all")
    with pytest.raises(BundleError, match=r"text\.lsan"):
        Recommender.load(tmp_path / "text.lsan")


@given(bits=st.integers(1, 32), count=st.integers(0, 70), seed=st.integers(0, 9))
def test_unpacking_is_the_inverse_of_packing(bits: int, count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 2**bits, count)
    packed = pack_bits(numbers, bits)
    assert len(packed) == packed_size(count, bits)
    assert unpack(packed, bits, count).tolist() == numbers.tolist()


def test_the_native_engine_refuses_too(content: bytes) -> None:
    for damage in ("more items", "a forward reference", "no such tensor"):
        header, manifest, _ = DAMAGES[damage]
        damaged = changed(content, header, manifest)
        with pytest.raises(BundleError):
            make_engine(damaged, BundleFile.parse(damaged))
