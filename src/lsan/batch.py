"""Recommendations for every user of a log: streamed, so that memory does not grow with the log, and resumable."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lsan.data.columns import Columns
from lsan.data.dataset import Dataset, is_dataset
from lsan.data.prepare import PrepareOptions, prepare_dataset
from lsan.errors import ConfigError, DataError
from lsan.files import refuse_folder, write_atomically
from lsan.runtime.file import IntArray, read_bytes
from lsan.runtime.recommender import Recommender, cores

#: Users in one piece of the output.
_USERS = 50_000


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What was written."""

    users: int
    """Users of the log; each has rows in the file unless nothing was left to recommend."""
    rows: int
    """Recommendations."""
    unknown: int
    """Events of items that the bundle does not know, which were skipped."""
    bad_rows: int
    """Rows of the log that were left out, where `options` says so; 0 for a dataset folder."""


def recommend_all(
    bundle: Path,
    histories: Path,
    out: Path,
    k: int = 10,
    *,
    exclude_seen: bool | None = None,
    columns: Columns | None = None,
    options: PrepareOptions | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Write a Parquet file of user, rank (from 1), item, score, title: the best items after each user's whole history.
    Times are read where the model reads them; it is asked at the time of each user's last event.

    Pieces are kept in a folder `.OUT.parts` beside the output until all are done, and used again after a stop.

    Args:
        bundle: what `lsan export` wrote.
        histories: a log, which is prepared first, or a dataset folder.
        out: the file; replaced where it exists.
        k: how many for each user.
        exclude_seen: leave out the items of the user's whole history; None follows the bundle.
        columns: names of a log's columns that the usual names do not cover.
        options: how a log is read.
        threads: None for all cores.
        progress: called with (users done, users).

    Raises:
        BundleError: when the bundle cannot be used.
        DataError: when the log cannot be read, or the output cannot be written.
        ConfigError: when k or threads is below 1, or `columns` names what is not there, or describes a dataset folder.
    """
    for name, number in (("k", k), ("threads", threads)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1, got {number}")
    columns, options = columns or Columns(), options or PrepareOptions()
    if is_dataset(histories) and (columns, options) != (Columns(), PrepareOptions()):
        raise ConfigError(f"{histories} is a dataset folder: leave out what describes the columns and rows of a log")
    refuse_folder(out)
    if out.resolve() in (bundle.resolve(), histories.resolve()):
        raise DataError(f"{out} is what is read, and would be lost: name another file to write")
    content = read_bytes(bundle)
    recommender = Recommender(content, where=str(bundle))
    k = min(k, recommender.engine.items)
    exclude = bool(recommender.file.manifest["exclude_seen"]) if exclude_seen is None else exclude_seen
    parts = out.parent / f".{out.name}.parts"
    job = {"bundle": hashlib.sha256(content).hexdigest(), "histories": _identity(histories), "k": k,
           "exclude_seen": exclude, "users_a_piece": _USERS,
           "columns": asdict(columns), "options": asdict(options)}  # fmt: skip
    _begin(parts, job)
    dataset = _dataset(histories, parts, columns, options)
    index = np.zeros(len(dataset.catalogue) + 1, dtype=np.int32)
    index[1:] = [recommender.index_of(raw) for raw in dataset.catalogue.ids]
    users, rows = len(dataset.offsets) - 1, 0
    for number, begin in enumerate(range(0, users, _USERS)):
        path, end = parts / f"{number:06}.parquet", min(begin + _USERS, users)
        if not path.exists():
            piece = _piece(recommender, dataset, index, begin, end, k, exclude, threads or cores())
            temporary = path.with_suffix(".new")
            piece.write_parquet(temporary)
            temporary.replace(path)
        rows += int(pl.scan_parquet(path).select(pl.len()).collect().item())
        if progress is not None:
            progress(end, users)
    temporary = parts / "all.new"
    pl.scan_parquet(sorted(parts.glob("[0-9]*.parquet"))).sink_parquet(temporary)
    temporary.replace(out)
    shutil.rmtree(parts)
    unknown = int((index[np.asarray(dataset.items)] == 0).sum())
    bad_rows = 0 if is_dataset(histories) else int(dataset.summary["dropped"]["bad rows"])
    return Batch(users=users, rows=rows, unknown=unknown, bad_rows=bad_rows)


def _begin(parts: Path, job: dict[str, object]) -> None:
    """Make the folder of pieces; one of another job is emptied."""
    path = parts / "job.json"
    text = json.dumps(job).encode()
    if parts.exists() and (not path.exists() or path.read_bytes() != text):
        shutil.rmtree(parts)
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write beside {parts.parent}: {error.strerror}") from error
    write_atomically(path, text)


def _identity(histories: Path) -> str:
    """What tells a log from another one of the same name."""
    if is_dataset(histories):
        return Dataset.open(histories).content_hash
    try:
        files = sorted(histories.rglob("*")) if histories.is_dir() else [histories]
        facts = [f"{file} {found.st_size} {found.st_mtime_ns}" for file in files for found in [file.stat()]]
    except OSError as error:
        raise DataError(f"{histories}: cannot be read ({error.strerror})") from error
    return f"{histories.resolve()} {facts}"


def _dataset(histories: Path, parts: Path, columns: Columns, options: PrepareOptions) -> Dataset:
    if is_dataset(histories):
        return Dataset.open(histories)
    folder = parts / "dataset"
    if not folder.exists():
        prepare_dataset(histories, folder, columns=columns, options=options)
    return Dataset.open(folder)


def _piece(
    recommender: Recommender, dataset: Dataset, index: IntArray, begin: int, end: int, k: int, exclude: bool,
    threads: int,
) -> pl.DataFrame:  # fmt: skip
    """The rows of the users begin .. end - 1."""
    first, last = int(dataset.offsets[begin]), int(dataset.offsets[end])
    items = index[np.asarray(dataset.items[first:last])]
    known = items > 0
    lengths = dataset.offsets[begin + 1 : end + 1] - dataset.offsets[begin:end]
    owner = np.repeat(np.arange(end - begin), lengths)
    ends = np.cumsum(np.bincount(owner[known], minlength=end - begin)).astype(np.int64)
    times, asked = None, np.full(end - begin, -1, dtype=np.int64)
    if recommender.engine.timed and dataset.timestamps is not None:
        stamps = np.asarray(dataset.timestamps[first:last]).astype(np.int64)
        times = stamps[known]
        asked[lengths > 0] = stamps[np.cumsum(lengths)[lengths > 0] - 1]
    best, scores = recommender.engine.recommend_many(
        np.ascontiguousarray(items[known], dtype=np.int32), times, ends, asked, k, exclude, threads
    )
    row, column = np.nonzero(best)
    chosen = best[row, column]
    ids, title_of = recommender.vocabulary.ids, recommender.vocabulary.title_of
    distinct, place = np.unique(chosen, return_inverse=True)
    names = distinct.tolist()
    kind = pl.Int64 if isinstance(ids[0], int) else pl.String
    return pl.DataFrame(
        {
            "user": dataset.user_ids()[begin + row],
            "rank": (column + 1).astype(np.int32),
            "item": pl.Series([ids[item - 1] for item in names], dtype=kind)[place],
            "score": scores[row, column].astype(np.float32),
            "title": pl.Series([title_of(item) for item in names], dtype=pl.String)[place],
        }
    )
