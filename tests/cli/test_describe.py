"""`lsan describe`: parameter and byte counts that are right."""

import math
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors import safe_open

from lsan.cli import main
from lsan.config import QuantisationConfig
from lsan.runs import MODEL, load_run, write_run


def test_the_counts_can_be_checked_by_hand(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """60 items of C categories; D 8, H 2, L 5, T 12, radix 2 and so 30."""
    assert main(["describe", str(small_run)]) == 0
    printed = capsys.readouterr().out
    rows = {}
    for line in printed.splitlines():
        fields = re.split(r"\s{2,}", line.strip())
        if len(fields) == 5:
            rows[fields[0]] = fields[1:]
    assert rows["table.weight"] == ["32 x 8", "float32", "256", "1,024"]
    assert rows["table.bias"] == ["60", "float32", "60", "240"]
    assert rows["table.numbers (not learnt)"] == ["60", "int32", "60", "240"]
    assert rows["popularity (not learnt)"] == ["60", "int32", "60", "240"]
    assert rows["context.hour"] == ["25 x 8", "float32", "200", "800"]
    assert rows["encoder.positions.weight"] == ["12 x 8", "float32", "96", "384"]
    assert rows["encoder.blocks.0.local.kernel"] == ["2 x 5", "float32", "10", "40"]
    assert rows["encoder.blocks.0.mix.weight"] == ["8 x 16", "float32", "128", "512"]
    # against the file itself
    learnt = total = 0
    with safe_open(small_run / MODEL, framework="np") as file:
        names = set(file.keys())
        for name in names:
            shape = file.get_slice(name).get_shape()
            row = rows.get(name, rows.get(f"{name} (not learnt)"))
            assert row is not None, name
            assert row[0] == " x ".join(map(str, shape))
            assert row[2] == f"{math.prod(shape):,}"
            size = math.prod(shape) * (1 if name == "offered" else 4)
            assert row[3] == f"{size:,}"
            total += size
            learnt += math.prod(shape) * (name in rows)
    assert len(names) == len(rows) - 1  # and the row of column names
    assert re.search(rf"^learnt parameters +{learnt:,} *$", printed, re.MULTILINE)
    assert re.search(rf"^all parts +{total:,} *$", printed, re.MULTILINE)
    size = (small_run / MODEL).stat().st_size
    assert f"{MODEL}: {size:,} bytes on disk" in printed
    assert 0 < size - total < 4096  # what is not numbers is the file's header


def test_it_says_what_the_model_was_trained_on(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(small_run)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("a small model for tests\n")
    assert "trained on dataset: 120 users, 60 items, " in printed
    assert "prefix regime, seed 0" in printed


def test_a_quantised_model_is_listed_as_its_file_has_it(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(small_run, device=torch.device("cpu"))
    model = msgspec.structs.replace(run.header.recipe.model, quantisation=QuantisationConfig(weights=4))
    recipe = msgspec.structs.replace(run.header.recipe, model=model)
    run.network.config = model
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", replace(run, header=replace(run.header, recipe=recipe)))
    assert main(["describe", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^encoder.blocks.0.mix.weight +8 x 16 +int4 +128 +80 *$", printed, re.MULTILINE)  # 8 scales
    assert re.search(r"^table.weight +32 x 8 +int8 +256 +258 *$", printed, re.MULTILINE)  # short rows: one scale
    total = re.search(r"^all parts +([0-9,]+) *$", printed, re.MULTILINE)
    assert total is not None
    size = (tmp_path / "run" / MODEL).stat().st_size
    with safe_open(tmp_path / "run" / MODEL, framework="np") as file:
        assert int(total[1].replace(",", "")) == sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert f"{MODEL}: {size:,} bytes on disk" in printed
