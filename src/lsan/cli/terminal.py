"""The terminal: tables, and progress bars with an ETA."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_WIDE = 160


def console(*, wide: bool = False) -> Console:
    """Standard output; wide where it is not a terminal, so that nothing is cut in a file or a pipe, or where that is
    asked for: a narrow terminal then wraps long lines."""
    width = max(Console().width, _WIDE) if wide else None if sys.stdout.isatty() else _WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def readable(text: str) -> str:
    """Text from a log as it may be printed: control characters would steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is left-aligned and the others are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    return table


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on standard error; silent where that is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        yield progress


@contextmanager
def ranking_progress(what: str = "ranking") -> Iterator["Ticker"]:
    """Shows how many of all are done."""
    with progress_display() as progress:
        yield Ticker(progress, what)


class Ticker:
    """Called with (done, total)."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what)

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
