"""Which column of a table is the user, the item, the time, ...: by flag, or by its usual names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lsan.errors import ConfigError, DataError

#: Role -> usual column names, best first. Case, spaces and punctuation do not matter: `userId` is `user_id`.
LOG_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "user_id", "uid", "user_name", "customer_id", "customer", "visitor_id", "reviewer_id",
        "member_id", "account_id", "client_id", "profile_id", "session_id", "session",
    ),
    "item": (
        "item", "item_id", "iid", "movie_id", "product_id", "asin", "parent_asin", "sku", "stock_code",
        "article_id", "book_id", "track_id", "song_id", "artist_id", "game_id", "video_id", "news_id",
        "business_id", "movie", "product", "article",
    ),
    "timestamp": (
        "timestamp", "time", "ts", "datetime", "date", "event_time", "event_timestamp", "unix_review_time",
        "invoice_date", "created_at", "order_date", "purchase_date", "timestamp_ms", "t_dat",
    ),
    "rating": ("rating", "ratings", "stars", "overall", "score"),
    "title": (
        "title", "item_title", "item_name", "movie_title", "product_title", "product_name", "description",
    ),
    "category": (
        "category", "item_category", "product_category", "category_name", "main_category", "genre", "genres",
        "categories", "category_code", "category_id", "class",
    ),
}  # fmt: skip
ITEM_FILE_NAMES: Mapping[str, tuple[str, ...]] = {
    "item": ("id", *LOG_NAMES["item"]),
    "title": (*LOG_NAMES["title"][:-1], "name", "prod_name", "description"),
    "category": LOG_NAMES["category"],
}

_RECBOLE_TYPE = re.compile(r":(token|token_seq|float|float_seq)$")
_NUMBER_OR_TIME = re.compile(r"[-+]?[\d.,:/ T-]*\d[\d.,:/ TZ-]*")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Column names that the usual names do not cover. None: recognise the column by its usual names."""

    user: str | None = None
    """User id column of the log."""
    item: str | None = None
    """Item id column of the log."""
    timestamp: str | None = None
    """Time column of the log."""
    rating: str | None = None
    """Rating column of the log (read for `min_rating`)."""
    title: str | None = None
    """Title column: of the item file where there is one, otherwise of the log."""
    category: str | None = None
    """Category column: of the item file where there is one, otherwise of the log."""
    log_header: tuple[str, ...] | None = None
    """Names of all columns of a log that has no header line."""
    items_id: str | None = None
    """Item id column of the item file."""
    items_header: tuple[str, ...] | None = None
    """Names of all columns of an item file that has no header line."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to look for in one table."""

    names: Mapping[str, tuple[str, ...]]
    """Role -> usual names."""
    chosen: Mapping[str, str | None]
    """Role -> the name the user gave, None where they gave none."""
    flags: Mapping[str, str]
    """Role -> the flag that names its column, for errors."""
    required: tuple[str, ...]
    """Roles that a table must have."""
    header_flag: str
    """The flag that names the columns of a file without a header."""


def clean_header(columns: Sequence[str]) -> tuple[str, ...]:
    """Names without surrounding space and without the types of RecBole's atomic files (`user_id:token`)."""
    names = [name.strip() for name in columns]
    if all(_RECBOLE_TYPE.search(name) for name in names):
        names = [_RECBOLE_TYPE.sub("", name) for name in names]
    return tuple(names)


def is_recbole(columns: Sequence[str]) -> bool:
    """Whether a header line is that of a RecBole atomic file, whose fields are never quoted."""
    return all(_RECBOLE_TYPE.search(name.strip()) for name in columns)


def find_columns(columns: tuple[str, ...], wanted: Wanted, *, where: str) -> dict[str, int]:
    """The position of each role's column; roles without one are left out, unless they are required.

    Raises:
        ConfigError: when a flag names a column that does not exist, or two flags the same one.
        DataError: when names repeat, a required column is missing, or two columns fit equally well.
    """
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise DataError(f"{where}: the column name {repeated[0]!r} appears twice: rename one of them")
    positions = _chosen_positions(columns, wanted, where=where)
    for role, usual in wanted.names.items():
        if role not in positions:
            position = _usual_position(
                columns, usual, taken=set(positions.values()), role=role, wanted=wanted, where=where
            )
            if position is not None:
                positions[role] = position
    for role in wanted.required:
        if role not in positions:
            headerless = _headerless_hint(columns, wanted)
            if headerless:
                raise DataError(f"{where}, line 1: {headerless}")
            raise DataError(
                f"{where}: no {role} column among {_listed(columns)}: rename one, or name it with "
                f"{wanted.flags[role]} of `lsan prepare`" + ("; is this a log?" if len(columns) == 1 else "")
            )
    return positions


def _chosen_positions(columns: tuple[str, ...], wanted: Wanted, *, where: str) -> dict[str, int]:
    positions: dict[str, int] = {}
    for role, name in wanted.chosen.items():
        if name is None:
            continue
        if name not in columns:
            raise ConfigError(f"{wanted.flags[role]} {name}: {where} has no such column; it has {_listed(columns)}")
        position = columns.index(name)
        for other, taken in positions.items():
            if taken == position:
                raise ConfigError(
                    f"{wanted.flags[other]} and {wanted.flags[role]} both name the column {name!r} of {where}"
                )
        positions[role] = position
    return positions


def _usual_position(
    columns: tuple[str, ...],
    usual: tuple[str, ...],
    *,
    taken: set[int],
    role: str,
    wanted: Wanted,
    where: str,
) -> int | None:
    free = {position: _plain(name) for position, name in enumerate(columns) if position not in taken}
    for name in usual:
        fits = [position for position, plain in free.items() if plain == _plain(name)]
        if len(fits) > 1:
            both = " and ".join(repr(columns[position]) for position in fits)
            raise DataError(f"{where}: {both} could each be the {role} column: choose with {wanted.flags[role]}")
        if fits:
            return fits[0]
    return None


def _headerless_hint(columns: tuple[str, ...], wanted: Wanted) -> str | None:
    if any(_NUMBER_OR_TIME.fullmatch(name) for name in columns):
        example = ",".join(["user", "item", "rating", "timestamp"][: max(2, len(columns))])
        example = example if "user" in wanted.required else "item,title,category"
        return (
            f"{_listed(columns)} looks like data, not like column names: for a file without a header line "
            f"give the names of its {len(columns)} columns, as in {wanted.header_flag} {example}"
        )
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _listed(columns: Sequence[str]) -> str:
    names = [name if len(name) <= 30 else f"{name[:30]}..." for name in columns[:20]]
    text = ", ".join(repr(name)[1:-1] for name in names)
    return text + (f", ... ({len(columns)} columns)" if len(columns) > len(names) else "")
