"""The item file: titles and categories by item id."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.columns import ITEM_FILE_NAMES, Columns, Wanted, find_columns
from lsan.data.interactions import missing_ids, tidy_text
from lsan.data.rows import BadRow, BadRows, Rows, Table, shown
from lsan.errors import DataError

_FLAGS = {"item": "--items-id", "title": "--title", "category": "--category"}


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """What an item file says."""

    name: str
    """What errors call the file."""
    frame: pl.DataFrame
    """Columns id (as text, each once), title, category (String, null where unknown)."""
    columns: dict[str, str]
    """Role -> the name of its column."""


def read_items(tables: Iterator[Table], *, columns: Columns, bad_rows: BadRows) -> ItemTable:
    """Read an item file.

    Raises:
        ConfigError: when `columns` names columns that the file does not have.
        DataError: when the file cannot be read, or at its first bad row or repeated id unless those
            are skipped.
    """
    pieces: list[pl.DataFrame] = []
    name, names = "", {}
    seen: set[str] = set()
    for table in tables:
        positions = find_columns(table.columns, _wanted(columns, table.columns), where=table.name)
        names = {role: table.columns[position] for role, position in positions.items()}
        if len(names) == 1:
            raise DataError(
                f"{table.name}: no title and no category column among {', '.join(table.columns[:20])}: "
                "name them with --title and --category"
            )
        name = name or table.name
        for rows in table.read(positions):
            piece, keep = _tidy(rows.frame), np.ones(rows.frame.height, dtype=np.bool_)
            bad = [*rows.bad, *_faults(rows, piece["id"], names["item"], seen, keep)]
            if bad:
                bad_rows.add(table, bad, count=len(bad))
            pieces.append(piece.filter(pl.Series(keep)))
    frame = pl.concat(pieces) if pieces else pl.DataFrame()
    if not frame.height:
        raise DataError(f"{name}: no items in it")
    return ItemTable(name=name, frame=frame, columns=names)


def texts_of_items(ids: pl.Series, table: ItemTable) -> pl.DataFrame:
    """Titles and categories of some raw ids, in their order (columns title, category), null where unknown.

    Ids match as text, so 17 in a log matches 17 in a CSV file, and "007" matches only "007".

    Raises:
        DataError: when the table has none of the ids.
    """
    wanted = pl.DataFrame({"id": ids.cast(pl.String)})
    found = wanted.join(table.frame.with_columns(found=True), on="id", how="left", maintain_order="left")
    if found["found"].null_count() == found.height:
        raise DataError(
            f"{table.name}: has none of the log's items: its ids are such as {shown(table.frame['id'][0])} "
            f"(column {table.columns['item']!r}), the log's such as {shown(ids[0])}"
        )
    return found.select("title", "category")


def _wanted(columns: Columns, header: tuple[str, ...]) -> Wanted:
    # The log's item column often has the same name here: then it need not be named again.
    item = columns.items_id or (columns.item if columns.item in header else None)
    return Wanted(
        names=ITEM_FILE_NAMES,
        chosen={"item": item, "title": columns.title, "category": columns.category},
        flags=_FLAGS,
        required=("item",),
        header_flag="--items-columns",
    )


def _tidy(frame: pl.DataFrame) -> pl.DataFrame:
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    title = tidy_text(frame["title"]) if "title" in frame.columns else nothing
    category = tidy_text(frame["category"]) if "category" in frame.columns else nothing
    return pl.DataFrame({"id": frame["item"].cast(pl.String), "title": title, "category": first_category(category)})


def first_category(column: pl.Series) -> pl.Series:
    """The first of several categories joined by `|`, null where it is blank."""
    return column.str.split("|").list.first().str.strip_chars().replace("", None)


def _faults(rows: Rows, ids: pl.Series, name: str, seen: set[str], keep: npt.NDArray[np.bool_]) -> Iterator[BadRow]:
    """Yield rows without a new id and clear them in `keep`; add the new ids to `seen`."""
    missing = missing_ids(rows.frame["item"]).to_list()
    for row, raw in enumerate(ids.to_list()):
        if missing[row]:
            reason = "the id is missing"
        elif raw in seen:
            reason = f"the item id {shown(raw)} appears a second time"
        else:
            seen.add(raw)
            continue
        keep[row] = False
        yield BadRow(line=rows.line_of(row), field=name, reason=reason)
