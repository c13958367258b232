"""Evaluated runs beside a result file, so that a table grows from session to session although run folders are gone.

NAME.json            under "runs", what each run was made by and gave
NAME.ranks.parquet   for each case its user and, by run and policy, twice the rank of the answer (ties make half ranks),
                     0 beyond 20: enough for every metric of the table, and for paired tests
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from lsan.comparison.entries import Entry, Policy
from lsan.comparison.outcomes import Costs, Outcome
from lsan.comparison.rows import Comparison
from lsan.config import recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError
from lsan.files import write_atomically
from provenance import provenance
from side_by_side import alone

_POLICIES: tuple[Policy, ...] = ("unseen items", "all items")

#: Metrics look no further down.
_FURTHEST = 20


class KeptRuns:
    """What is there of the runs of one dataset and split. Runs of other data are forgotten. Several processes may add
    to it at once."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self._path, self._content_hash = path, dataset.content_hash
        self._content: dict[str, Any]
        self.runs: dict[str, dict[str, Any]]
        self._ranks: pl.DataFrame
        self._read()

    def outcomes(self, entries: Sequence[Entry]) -> dict[str, Outcome]:
        """Those of the entries that were evaluated, with the very recipe; by label."""
        return {
            entry.label: self._outcome(entry)
            for entry in entries
            if entry.label in self.runs and _as_now(self.runs[entry.label]["recipe"]) == _recipe(entry)
        }

    def add(self, outcome: Outcome, made: dict[str, Any]) -> None:
        """Keep an outcome with the circumstances under which it was made, instead of an older one of that label."""
        label = outcome.entry.label
        columns = [pl.Series("user", outcome.users)]
        for policy in _POLICIES:
            ranks = outcome.ranks[policy]
            columns.append(pl.Series(f"{label}: {policy}", np.where(ranks <= _FURTHEST, 2 * ranks, 0), dtype=pl.UInt8))
        with self._alone():
            self.runs[label] = {
                "recipe": _recipe(outcome.entry),
                "costs": msgspec.to_builtins(outcome.costs),
                "figures": outcome.figures,
                "made": made,
            }
            self._ranks = pl.DataFrame({column.name: column for column in [*self._ranks, *columns]})
            buffer = io.BytesIO()
            self._ranks.write_parquet(buffer, compression="zstd", compression_level=19)
            write_atomically(self._ranks_path, buffer.getvalue())
            self._write({**self._content, "content_hash": self._content_hash})

    def write(self, comparison: Comparison, **more: Any) -> None:
        """Write the table of a comparison, and what else the script has to say, with all runs that are kept."""
        table: dict[str, Any] = comparison.to_json()
        for row in table["rows"]:
            del row["figures"]  # under "runs"
        with self._alone():
            self._write({**more, **table, **provenance()})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process writes in that folder, and with what others have added."""
        with alone(self._path.parent):
            self._read()
            yield

    def _read(self) -> None:
        content = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        there = content.get("content_hash") == self._content_hash and self._ranks_path.exists()
        self._content = content if there else {}
        self.runs = self._content.get("runs", {})
        self._ranks = pl.read_parquet(self._ranks_path) if there else pl.DataFrame()

    def _write(self, content: dict[str, Any]) -> None:
        write_atomically(self._path, (json.dumps({**content, "runs": self.runs}, indent=1) + "\n").encode())

    @property
    def _ranks_path(self) -> Path:
        return self._path.with_suffix(".ranks.parquet")

    def _outcome(self, entry: Entry) -> Outcome:
        run = self.runs[entry.label]
        doubled = {policy: self._ranks[f"{entry.label}: {policy}"].to_numpy() for policy in _POLICIES}
        return Outcome(
            entry=entry,
            costs=Costs(**run["costs"]),
            figures=run["figures"],
            users=self._ranks["user"].to_numpy(),
            ranks={policy: np.where(ranks > 0, ranks / 2, np.inf) for policy, ranks in doubled.items()},
        )


def _as_now(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """A recipe that was kept, with the settings that have come since; None where it is no recipe any more."""
    try:
        now = recipe_to(recipe_from(recipe, where="a kept run"))
    except ConfigError:
        return None
    now.pop("description", None)
    return now


def _recipe(entry: Entry) -> dict[str, Any]:
    recipe = recipe_to(entry.recipe)
    recipe.pop("description", None)
    return recipe
