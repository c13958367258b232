import sys
from pathlib import Path

import polars as pl
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "peers")]

from protocol import Clock, Options  # noqa: E402

from train_speed import training_part  # noqa: E402


def clock(*, steps: int | None, rows: list[int]) -> Clock:
    """A clock after steps on so many rows, of which each took a tenth of a second a row."""
    options = Options(
        data=Path("unused"),
        examples=10,
        items=1,
        history=1,
        width=1,
        blocks=1,
        heads=1,
        dropout=0.0,
        batch=4,
        learning_rate=1.0,
        threads=1,
        warm_up=2,
        steps=steps,
        precision="float32",
    )
    clock = Clock(options=options)
    for count in rows:
        clock.tick(count, 0.0)
    clock.times = [total / 10 for total in clock.rows]
    return clock


def test_blocks_of_steps_follow_the_warm_up() -> None:
    blocks = clock(steps=2, rows=[4, 4, 2, 4, 4, 2, 4, 4]).blocks()
    assert [rows for _, rows in blocks] == [6, 6, 8]
    assert [seconds for seconds, _ in blocks] == pytest.approx([0.6, 0.6, 0.8])


def test_whole_epochs_follow_the_first() -> None:
    blocks = clock(steps=None, rows=[4, 4, 2] * 4).blocks()
    assert [rows for _, rows in blocks] == [10, 10, 10]
    assert [seconds for seconds, _ in blocks] == pytest.approx([1.0, 1.0, 1.0])


def test_training_part_is_the_latest_of_what_is_not_held_out() -> None:
    events = pl.DataFrame(
        {"user": [7, 7, 5, 7, 7, 5, 5, 7, 9, 9, 9], "item": [30, 10, 10, 20, 10, 40, 30, 20, 10, 20, 30]}
    )
    assert training_part(events, history=2).to_dict(as_series=False) == {"user": [0], "item": [[2, 0, 1]]}
    assert training_part(events, history=1)["item"].to_list() == [[0, 1]]
