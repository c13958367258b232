"""`lsan describe`: parameter and byte counts that are right."""

import math
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from lsan.cli import main
from lsan.runs import MODEL


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
            assert row[3] == f"{4 * math.prod(shape):,}"
            total += 4 * math.prod(shape)
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
