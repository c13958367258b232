"""Public datasets by name: addresses, checksums and terms, and how each becomes a log for `lsan prepare`.

What came is kept as it came. Beside it stands a folder `csv` with `items.csv` (item, title, category) and,
where the publisher's own log is not one that `lsan prepare` reads, `interactions.csv` (user, item,
timestamp).

Checksums: GroupLens publishes MD5 sums (ADDRESS.md5). The SHA-256 sums below are those of the same archives:
several independent projects record both for one file (TensorFlow Datasets' url_checksums/movielens.txt and
Keras' "Behavior Sequence Transformer" example among them). The sum of `online+retail.zip` is recorded alike
by several public projects. The Amazon and Steam publishers give no sums: these are recorded at the first
download.
"""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lsan.data.download import Checksum, Patience, Progress, download, unpack_zip
from lsan.data.publishers import (
    Convert,
    convert_amazon,
    convert_movielens_1m,
    convert_movielens_100k,
    convert_movielens_csv,
    convert_online_retail,
    convert_steam,
)
from lsan.errors import ConfigError, DataError
from lsan.files import new_folder, write_atomically

#: In the folder of a set: file name -> sha256, bytes and url of what came.
CHECKSUMS_FILE = "checksums.json"
#: In the folder of a set: what `fetch` made of the publisher's files.
CONVERTED_FOLDER = "csv"

_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file at the publisher."""

    url: str
    """Address; its last part is the file's name here, too."""
    size: int
    """Bytes, approximately (exactly where the checksum is known)."""
    limit: int
    """A server that sends more bytes than this is cut off."""
    sha256: str | None = None
    """SHA-256 in hexadecimal; None: recorded at the first download."""

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One public dataset."""

    name: str
    """What `lsan fetch` calls it."""
    summary: str
    """What it holds, in a few words."""
    files: tuple[RemoteFile, ...]
    """What is downloaded."""
    licence: str
    """The terms in a few words."""
    terms: str
    """The publisher's terms, in full sentences."""
    page: str
    """Address of the publisher's page with the terms."""
    convert: Convert
    """Writes the CSV files."""
    log: str
    """The log to prepare, relative to the set's folder."""
    log_columns: str | None = None
    """Column names of a log without a header line, separated by commas."""
    unpacked_limit: int = 0
    """Most bytes that the zip files among `files` may unpack to, each. 0: there is none."""

    @property
    def size(self) -> int:
        """Bytes to download, approximately."""
        return sum(file.size for file in self.files)

    def prepare_command(self, folder: Path) -> str:
        """The command that turns what `fetch` put into `folder` into a dataset."""
        columns = [] if self.log_columns is None else ["--columns", self.log_columns]
        items = str(folder / CONVERTED_FOLDER / "items.csv")
        place = folder if folder.name else folder.resolve()  # "." has no name
        out = str(place.with_name(f"{place.resolve().name}-dataset"))
        return shlex.join(
            [
                "lsan",
                "prepare",
                str(folder / self.log),
                *columns,
                "--items",
                items,
                "--core",
                "5",
                "--out",
                out,
            ]
        )


def find_set(name: str) -> PublicSet:
    """The set called `name`.

    Raises:
        ConfigError: when there is none; the message suggests one and lists all.
    """
    if name in PUBLIC_SETS:
        return PUBLIC_SETS[name]
    close = get_close_matches(name.lower(), PUBLIC_SETS, n=1)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"no public dataset is called {name!r}: {suggestion}There are {', '.join(PUBLIC_SETS)}")


def fetch(
    public_set: PublicSet, folder: Path, *, mirror: str | None, patience: Patience, progress: Progress
) -> dict[str, str]:
    """Download, verify, unpack and convert a set into `folder`; return the SHA-256 of each file by name.

    What is already there is verified and not downloaded again. One process at a time works in a folder. `mirror` is
    the address of a folder that holds the files under the publisher's names; None: the publisher's own.

    Raises:
        ConfigError: when `mirror` is not an http or https address.
        DataError: when a download fails (see `download`), a checksum differs from the known one or from the
            one recorded at the first download, or a file is not of the publisher's format; when another process
            fetches into the folder, or it holds something else where files are unpacked or converted to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}") from error
    with _alone_in(folder):
        return _fetch(public_set, folder, mirror=mirror, patience=patience, progress=progress)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Raise `DataError` when another process is in this block for the same folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DataError(f"{folder}: another `lsan fetch` is at work in it: wait for its end") from error
    finally:
        os.close(descriptor)


def _fetch(
    public_set: PublicSet, folder: Path, *, mirror: str | None, patience: Patience, progress: Progress
) -> dict[str, str]:
    recorded = _recorded_checksums(folder)
    if not recorded.keys() <= {file.name for file in public_set.files}:
        raise DataError(f"{folder} holds another public dataset: name another folder with --out")
    fetched = {}
    for file in public_set.files:
        url = file.url if mirror is None else f"{mirror.rstrip('/')}/{file.name}"
        sha256 = download(
            url,
            folder / file.name,
            expected=_expected(file, recorded, folder),
            limit=file.limit,
            patience=patience,
            progress=progress,
        )
        fetched[file.name] = {"sha256": sha256, "bytes": (folder / file.name).stat().st_size, "url": url}
    zips = {folder / file.name: folder / PurePosixPath(file.name).stem for file in public_set.files
            if file.name.endswith(".zip")}  # fmt: skip
    if not recorded:
        for made in (*zips.values(), folder / CONVERTED_FOLDER):
            if made.exists():
                raise DataError(f"{made} is there, and not known to be of these files: delete it or name another --out")
    for archive, unpacked in zips.items():
        if not unpacked.is_dir():
            unpack_zip(archive, unpacked, limit=public_set.unpacked_limit)
    if zips:
        _record(folder, recorded, fetched)
    if not (folder / CONVERTED_FOLDER).is_dir():
        with new_folder(folder / CONVERTED_FOLDER) as converted:
            _convert(public_set, folder, converted, progress)
    _record(folder, recorded, fetched)
    return {name: str(entry["sha256"]) for name, entry in fetched.items()}


def _record(folder: Path, recorded: Mapping[str, str], fetched: dict[str, dict[str, Any]]) -> None:
    """Keep the sums of files that could be read, or the sum of a damaged one would count as the right one."""
    if any(recorded.get(name) != entry["sha256"] for name, entry in fetched.items()):
        write_atomically(folder / CHECKSUMS_FILE, json.dumps(fetched, indent=2).encode() + b"\n")


def _recorded_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS_FILE
    try:
        entries = json.loads(path.read_bytes())
        sums = {name: entry["sha256"] for name, entry in entries.items()}
        if not all(isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in sums.values()):
            raise ValueError
        return sums
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: fetch into another folder") from error


def _expected(file: RemoteFile, recorded: Mapping[str, str], folder: Path) -> Checksum | None:
    if file.sha256 is not None:
        return Checksum(
            sha256=file.sha256,
            origin=f"expected of {file.name}",
            remedy="if it stays so, it was damaged or altered on its way, or the publisher has replaced it",
        )
    if file.name in recorded:
        lock = folder / CHECKSUMS_FILE
        return Checksum(
            sha256=recorded[file.name],
            origin=f"recorded in {lock} at the first download",
            remedy="if the publisher has replaced the file and you want the new one, fetch into another folder",
        )
    return None


def _convert(public_set: PublicSet, folder: Path, converted: Path, progress: Progress) -> None:
    try:
        public_set.convert(folder, converted, progress)
    except OSError as error:
        place = error.filename or converted
        raise DataError(f"cannot convert {public_set.name}: {place}: {error.strerror or error}") from error


_GROUPLENS_TERMS = (
    "For research; not for commercial or revenue-bearing purposes without the permission of GroupLens. "
    "{sharing} Acknowledge the data in publications (Harper and Konstan 2015, doi:10.1145/2827872) and imply "
    "no endorsement by the University of Minnesota or GroupLens."
)
_NOT_SHARED = "It may not be redistributed without separate permission."
_SHARED_ALIKE = "It may be redistributed under these same conditions."
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://mcauleylab.ucsd.edu/public_datasets/data/steam"


def _amazon(*, name: str, category: str, title: str, counts: str, review_size: int, meta_size: int) -> PublicSet:
    return PublicSet(
        name=name,
        summary=f"Amazon reviews of 2014, {title}, 5-core: {counts}",
        files=(
            RemoteFile(url=f"{_AMAZON}/reviews_{category}_5.json.gz", size=review_size, limit=1_000 * _MB),
            RemoteFile(url=f"{_AMAZON}/meta_{category}.json.gz", size=meta_size, limit=2_000 * _MB),
        ),
        licence="no licence named; research, cite",
        terms=(
            "Collected for research by J. McAuley's group at UC San Diego, which names no licence and asks "
            "to cite He and McAuley 2016 (doi:10.1145/2872427.2883037) and McAuley et al. 2015 "
            "(doi:10.1145/2766462.2767755). The texts belong to their authors and to Amazon."
        ),
        page="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        convert=partial(convert_amazon, category=category),
        log=f"reviews_{category}_5.json.gz",
    )


_SETS = (
    PublicSet(
        name="ml-100k",
        summary="MovieLens 100K: 100,000 ratings, 943 users, 1,682 films, 1998",
        files=(
            RemoteFile(
                url=f"{_GROUPLENS}/ml-100k.zip",  # MD5 0e33842e24a9c977be4e0107933c0723 at ml-100k.zip.md5
                size=4_924_029,
                limit=20 * _MB,
                sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            ),
        ),
        licence="research, not commercial, not to be shared",
        terms=_GROUPLENS_TERMS.format(sharing=_NOT_SHARED),
        page=f"{_GROUPLENS}/ml-100k-README.txt",
        convert=convert_movielens_100k,
        log="ml-100k/u.data",
        log_columns="user,item,rating,timestamp",
        unpacked_limit=100 * _MB,
    ),
    PublicSet(
        name="ml-latest-small",
        summary="MovieLens latest-small: 100,836 ratings, 610 users, 9,724 films, 2018",
        files=(
            RemoteFile(
                url=f"{_GROUPLENS}/ml-latest-small.zip",
                size=978_202,
                limit=10 * _MB,
                sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            ),
        ),
        licence="research, not commercial",
        terms=_GROUPLENS_TERMS.format(sharing=_SHARED_ALIKE),
        page=f"{_GROUPLENS}/ml-latest-small-README.html",
        convert=partial(convert_movielens_csv, name="ml-latest-small"),
        log="ml-latest-small/ratings.csv",
        unpacked_limit=50 * _MB,
    ),
    PublicSet(
        name="ml-1m",
        summary="MovieLens 1M: 1,000,209 ratings, 6,040 users, 3,706 films, 2003",
        files=(
            RemoteFile(
                url=f"{_GROUPLENS}/ml-1m.zip",  # MD5 c4d9eecfca2ab87c1945afe126590906 at ml-1m.zip.md5
                size=5_917_549,
                limit=20 * _MB,
                sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            ),
        ),
        licence="research, not commercial, not to be shared",
        terms=_GROUPLENS_TERMS.format(sharing=_NOT_SHARED),
        page=f"{_GROUPLENS}/ml-1m-README.txt",
        convert=convert_movielens_1m,
        log="ml-1m/ratings.dat",
        log_columns="user,item,rating,timestamp",
        unpacked_limit=100 * _MB,
    ),
    PublicSet(
        name="ml-20m",
        summary="MovieLens 20M: 20,000,263 ratings, 138,493 users, 26,744 films, 2015",
        files=(
            RemoteFile(
                url=f"{_GROUPLENS}/ml-20m.zip",  # MD5 cd245b17a1ae2cc31bb14903e1204af3 at ml-20m.zip.md5
                size=198_702_078,
                limit=400 * _MB,
                sha256="96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            ),
        ),
        licence="research, not commercial",
        terms=_GROUPLENS_TERMS.format(sharing=_SHARED_ALIKE),
        page=f"{_GROUPLENS}/ml-20m-README.html",
        convert=partial(convert_movielens_csv, name="ml-20m"),
        log="ml-20m/ratings.csv",
        unpacked_limit=2_000 * _MB,
    ),
    _amazon(
        name="amazon-beauty",
        category="Beauty",
        title="Beauty",
        counts="198,502 reviews, 22,363 users, 12,101 items",
        review_size=45 * _MB,
        meta_size=100 * _MB,
    ),
    _amazon(
        name="amazon-toys",
        category="Toys_and_Games",
        title="Toys and Games",
        counts="167,597 reviews, 19,412 users, 11,924 items",
        review_size=45 * _MB,
        meta_size=150 * _MB,
    ),
    _amazon(
        name="amazon-sports",
        category="Sports_and_Outdoors",
        title="Sports and Outdoors",
        counts="296,337 reviews, 35,598 users, 18,357 items",
        review_size=65 * _MB,
        meta_size=200 * _MB,
    ),
    PublicSet(
        name="steam",
        summary="Steam reviews, version 2: 7,793,069 reviews, 2,567,538 users, 15,474 games, 2018",
        files=(
            RemoteFile(url=f"{_STEAM}/steam_reviews.json.gz", size=1_300 * _MB, limit=3_000 * _MB),
            RemoteFile(url=f"{_STEAM}/steam_games.json.gz", size=3 * _MB, limit=100 * _MB),
        ),
        licence="no licence named; research, cite",
        terms=(
            "Collected for research by J. McAuley's group at UC San Diego, which names no licence and asks "
            "to cite Kang and McAuley 2018 (doi:10.1109/ICDM.2018.00035), Wan and McAuley 2018 "
            "(doi:10.1145/3240323.3240369) and Pathak et al. 2017 (doi:10.1145/3077136.3080724). "
            "The texts belong to their authors and to Steam."
        ),
        page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        convert=convert_steam,
        log="csv/interactions.csv",
    ),
    PublicSet(
        name="online-retail",
        summary="UCI Online Retail: 541,909 invoice lines, 4,372 customers, a British shop, 2010 and 2011",
        files=(
            RemoteFile(
                url="https://archive.ics.uci.edu/static/public/352/online+retail.zip",
                size=23_715_478,
                limit=100 * _MB,
                sha256="f5385cbb54bbebf7196389109c6b0621faab0c304e3702548165e71c84aede8b",
            ),
        ),
        licence="CC BY 4.0",
        terms=(
            "Creative Commons Attribution 4.0 International: share and adapt for any purpose, with credit to "
            "D. Chen, Online Retail, UCI Machine Learning Repository, 2015 (doi:10.24432/C5BW33)."
        ),
        page="https://archive.ics.uci.edu/dataset/352/online+retail",
        convert=convert_online_retail,
        log="csv/interactions.csv",
        unpacked_limit=200 * _MB,
    ),
)

PUBLIC_SETS: Mapping[str, PublicSet] = {public_set.name: public_set for public_set in _SETS}
