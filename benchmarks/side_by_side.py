"""Trainings side by side: a script starts itself once for each, with `--one LABEL`; what only one may do at a time."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from lsan.comparison.entries import Entry


def in_processes(entries: Sequence[Entry], folder: Path, jobs: int) -> Iterator[Entry]:
    """Each entry when its process has ended well, `jobs` of them at a time. What a process says is in
    FOLDER/runs/LABEL.log."""
    (folder / "runs").mkdir(parents=True, exist_ok=True)

    def start(entry: Entry) -> Entry:
        with (folder / "runs" / f"{entry.label}.log").open("a") as log:
            subprocess.run([sys.executable, *sys.argv, "--one", entry.label], check=True, stdout=log, stderr=log)
        return entry

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in as_completed([pool.submit(start, entry) for entry in entries]):
                yield done.result()
        finally:  # after an error, begin nothing more
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While no other process is within `alone` of the same folder; it is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
