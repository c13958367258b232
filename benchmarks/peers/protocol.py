"""What train_speed.py and the processes it starts agree on: options, the clock, and the line of JSON at the end.

Standard library only, because each of them runs in an environment of its own.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

#: Blocks of steps that are timed, or epochs.
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of a training. `steps` is None where whole epochs are timed, after one that is not."""

    data: Path
    """A folder with the training events in the two forms that the peers read. sequences.parquet: one row a user
    (0, 1, ...), `item` the list of its events, codes 0 .. items - 1, oldest first, none shorter than 2 or longer than
    history + 1. events.csv: the same as rows of user and item."""
    examples: int
    """Users."""
    items: int
    """Size of the catalogue."""
    history: int
    width: int
    blocks: int
    heads: int
    dropout: float
    batch: int
    learning_rate: float
    threads: int
    warm_up: int
    steps: int | None
    precision: str

    @classmethod
    def parse(cls, parser: argparse.ArgumentParser | None = None) -> tuple["Options", argparse.Namespace]:
        """These options, and what else `parser` declares."""
        parser = parser or argparse.ArgumentParser()
        parser.add_argument("--data", type=Path, required=True)
        for name in ("examples", "items", "history", "width", "blocks", "heads", "batch", "threads"):
            parser.add_argument(f"--{name}", type=int, required=True)
        for name in ("dropout", "learning-rate"):
            parser.add_argument(f"--{name}", type=float, required=True)
        parser.add_argument("--warm-up", type=int, default=3, help="steps before the clock starts, at least 1")
        parser.add_argument("--steps", type=int, help="steps of a block; else whole epochs are timed")
        parser.add_argument("--precision", choices=["default", "float32", "mixed"], default="default")
        arguments = parser.parse_args()
        return cls(**{name: getattr(arguments, name) for name in cls.__dataclass_fields__}), arguments

    def trainer(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer: the CPU, just as far as is timed, and nothing but training."""
        return {
            "accelerator": "cpu",
            "devices": 1,
            "precision": {"default": "32-true", "float32": "32-true", "mixed": "bf16-mixed"}[self.precision],
            "max_epochs": 1 + REPEATS if self.steps is None else -1,
            "max_steps": -1 if self.steps is None else self.warm_up + REPEATS * self.steps,
            "limit_val_batches": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }


@dataclass(kw_only=True)
class Clock:
    """Notes when each step ends. Time is counted by the row, since the last batch of an epoch is smaller."""

    options: Options
    times: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self, rows: int, loss: float) -> None:
        """A step on `rows` histories is done; its loss."""
        self.times.append(time.perf_counter())
        self.rows.append(rows + (self.rows[-1] if self.rows else 0))
        self.losses.append(loss)

    def blocks(self) -> list[tuple[float, int]]:
        """Seconds and rows of each block of steps, or of each epoch."""
        steps, examples = self.options.steps, self.options.examples
        if steps is None:
            ends = [step for step, rows in enumerate(self.rows) if rows % examples == 0]
        else:
            ends = [self.options.warm_up - 1 + steps * block for block in range(REPEATS + 1)]
        return [(self.times[b] - self.times[a], self.rows[b] - self.rows[a]) for a, b in pairwise(ends)]


def report(
    name: str,
    packages: list[str],
    options: Options,
    *,
    blocks: list[tuple[float, int]],
    losses: list[float],
    parameters: int,
) -> None:
    """Print the result, as the last line of standard output."""
    line = {
        "name": name,
        "versions": {package: version(package) for package in packages},
        "seconds_per_epoch": round(median(seconds / rows for seconds, rows in blocks) * options.examples, 3),
        "blocks": [{"seconds": round(seconds, 4), "examples": rows} for seconds, rows in blocks],
        "steps_per_epoch": -(-options.examples // options.batch),
        "peak_bytes": peak_bytes(),
        "threads": options.threads,
        "precision": options.precision,
        "parameters": parameters,
        "loss_first": round(losses[0], 4),
        "loss_last": round(losses[-1], 4),
    }
    print(json.dumps(line), flush=True)


def peak_bytes() -> int:
    """The largest resident set of this process. (ru_maxrss would not do: it begins with that of the parent.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
