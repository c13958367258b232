import gzip
import io
import re
import zipfile
from pathlib import Path

import pytest

from lsan.data import publishers
from lsan.data.public import PUBLIC_SETS, PublicSet, find_set
from lsan.errors import ConfigError, DataError

SHEET = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def _nothing(what: str, done: int, total: int | None) -> None:
    pass


def _convert(name: str, folder: Path) -> Path:
    converted = folder / "csv"
    converted.mkdir()
    PUBLIC_SETS[name].convert(folder, converted, _nothing)
    return converted


def test_all_sets_that_were_promised() -> None:
    assert set(PUBLIC_SETS) == {
        *("ml-100k", "ml-latest-small", "ml-1m", "ml-20m"),
        *("amazon-beauty", "amazon-toys", "amazon-sports", "steam", "online-retail"),
    }


@pytest.mark.parametrize("entry", PUBLIC_SETS.values(), ids=lambda entry: entry.name)
def test_every_entry_is_complete(entry: PublicSet) -> None:
    assert entry.page.startswith("https://")
    assert entry.terms.endswith(".")
    assert "{" not in entry.terms
    assert "\n" not in entry.summary + entry.licence + entry.terms
    assert len({file.name for file in entry.files}) == len(entry.files)
    for file in entry.files:
        assert file.url.startswith("https://")
        assert file.name == file.url.rsplit("/", 1)[1]
        assert 0 < file.size < file.limit
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        if file.name.endswith(".zip"):
            assert file.size < entry.unpacked_limit
    made_or_unpacked = {"csv", *(Path(file.name).stem for file in entry.files)}
    assert entry.log in {file.name for file in entry.files} or Path(entry.log).parts[0] in made_or_unpacked


def test_the_next_command_names_existing_places() -> None:
    command = PUBLIC_SETS["amazon-toys"].prepare_command(Path("data/amazon-toys"))
    assert command == (
        "lsan prepare data/amazon-toys/reviews_Toys_and_Games_5.json.gz "
        "--items data/amazon-toys/csv/items.csv --core 5 --out data/amazon-toys-dataset"
    )


@pytest.mark.parametrize(("name", "meant"), [("ML-1M", "ml-1m"), ("steem", "steam"), ("retail", "online-retail")])
def test_an_unknown_name_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        find_set(name)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(ConfigError, match="no public dataset is called 'zzz': There are ml-100k, "):
        find_set("zzz")


def test_movielens_100k_items(tmp_path: Path) -> None:
    (tmp_path / "ml-100k").mkdir()
    flags = {1: "0|0|0|1|1|1" + "|0" * 13, 2: "1" + "|0" * 18}
    lines = [f"{movie}|Café {movie} (1995)|01-Jan-1995||http://x|{flags[movie]}\n" for movie in flags]
    (tmp_path / "ml-100k" / "u.item").write_bytes("".join(lines).encode("latin-1"))
    items = (_convert("ml-100k", tmp_path) / "items.csv").read_text(encoding="utf-8")
    assert items == "item,title,category\n1,Café 1 (1995),Animation\n2,Café 2 (1995),\n"


def test_movielens_csv_items(tmp_path: Path) -> None:
    (tmp_path / "ml-latest-small").mkdir()
    movies = 'movieId,title,genres\n1,"American President, The",Comedy|Drama\n2,Émile,(no genres listed)\n'
    (tmp_path / "ml-latest-small" / "movies.csv").write_text(movies, encoding="utf-8")
    items = (_convert("ml-latest-small", tmp_path) / "items.csv").read_text(encoding="utf-8")
    assert items == 'item,title,category\n1,"American President, The",Comedy\n2,Émile,\n'


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("ml-100k", "u.item", b"1|Toy Story\n"),
        ("ml-1m", "movies.dat", b"1,Toy Story\n"),
        ("ml-20m", "movies.csv", b"a,b\n1,2\n"),
        ("ml-20m", "movies.csv", b"movieId,title,genres\n1\n"),
        ("ml-20m", "movies.csv", b"movieId,title,genres\n1,\xff,x\n"),
    ],
)
def test_a_film_list_of_another_form_is_an_error(tmp_path: Path, name: str, file: str, content: bytes) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        _convert(name, tmp_path)


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-20m", "online-retail"])
def test_an_archive_without_the_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        _convert(name, tmp_path)


# Python literals


def _steam(folder: Path, reviews: str, games: str = "{u'id': u'10', u'app_name': u'Game'}\n") -> Path:
    (folder / "steam_reviews.json.gz").write_bytes(gzip.compress(reviews.encode()))
    (folder / "steam_games.json.gz").write_bytes(gzip.compress(games.encode()))
    return _convert("steam", folder)


REVIEW = "{u'username': u'Zoë, the \\\\d', u'hours': 0.1, u'product_id': u'10', u'date': u'2017-12-17'}\n"


def test_steam_reviews_and_games_become_csv(tmp_path: Path) -> None:
    games = (
        "{u'id': u'10', u'title': u'Lost \\xae', u'genres': [u'Action', u'RPG']}\n"
        "{u'id': u'20', u'app_name': u'Half \\ud83d'}\n{u'title': u'no id'}\n"
        "{u'id': u'10', u'title': u'twice'}\n"
    )
    converted = _steam(tmp_path, REVIEW, games)
    interactions = (converted / "interactions.csv").read_text(encoding="utf-8")
    assert interactions == 'user,item,timestamp\n"Zoë, the \\d",10,2017-12-17\n'
    items = (converted / "items.csv").read_text(encoding="utf-8")
    assert items == "item,title,category\n10,Lost ®,Action\n20,Half ?,\n"


def test_a_few_unusable_lines_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interactions = _steam(tmp_path, REVIEW * 300 + "{u'username': \n") / "interactions.csv"
    assert len(interactions.read_text(encoding="utf-8").splitlines()) == 301
    assert "left out 1 of 301 lines" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        "{'username': __import__('os').system('touch EXECUTED'), 'product_id': '1', 'date': '2017-12-17'}",
        "__import__('pathlib').Path('EXECUTED').touch()",
        "[" * 100_000,
        "-" * 100_000 + "1",
        "{'a': " * 1000,
        "9" * 100_000,
        "\x00",
        "'\\d'",
        "{'username': ['a'], 'product_id': '1', 'date': '2017-12-17'}",
        '{"username": null, "product_id": "1", "date": "2017-12-17"}',
    ],
)
def test_lines_that_are_no_records_are_an_error_and_run_nothing(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"3 of 3 lines are not Python dictionaries with username, product_id, date"):
        _steam(tmp_path, f"{line}\n" * 3)
    assert not (tmp_path / "EXECUTED").exists()


def test_an_endless_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "_LONGEST_LINE", 1000)
    with pytest.raises(DataError, match="line 2: the line or the file is far longer than it should be"):
        _steam(tmp_path, REVIEW + "x" * 2000)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 of 0 lines"):
        _steam(tmp_path, "")


# The workbook


def _workbook(folder: Path, rows: list[list[str]], *, strings: str = "") -> None:
    """Write online+retail/Online Retail.xlsx; a cell is the XML of its <c> element after the attribute r."""
    sheet = "".join(
        f"<row r='{number}'>"
        + "".join(f"<c r='{chr(65 + column)}{number}' {cell}</c>" for column, cell in enumerate(row) if cell)
        + "</row>"
        for number, row in enumerate(rows, start=1)
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {SHEET}><sheetData>{sheet}</sheetData></worksheet>")
        if strings:
            book.writestr("xl/sharedStrings.xml", strings)
    (folder / "online+retail").mkdir()
    (folder / "online+retail" / "Online Retail.xlsx").write_bytes(buffer.getvalue())


def _string(text: str) -> str:
    return f"t='inlineStr'><is><t>{text}</t></is>"


def _number(text: str) -> str:
    return f"><v>{text}</v>"


HEADER = [_string(name) for name in ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID")]


def test_the_workbook_becomes_csv(tmp_path: Path) -> None:
    shared = f"<sst {SHEET}><si><t>85123A</t></si><si><r><t>WHITE </t></r><r><t>HEART</t></r></si></sst>"
    day = _number("40513.351388888892")
    rows = [
        HEADER,
        [_number("536365"), "t='s'><v>0</v>", "", _number("6"), day, _number("17850")],
        [
            _number("536366"),
            "t='s'><v>0</v>",
            "t='s'><v>1</v>",
            _number("2"),
            _number("40513.5"),
            _number("13047"),
        ],
        [_string("C536379"), "t='s'><v>0</v>", "t='s'><v>1</v>", _number("-1"), day, _number("17850")],
        [_number("536414"), _number("22139"), "", _number("56"), day],
        [_number("536415"), _number("22139"), _string("a  &amp; b"), _number("1"), day, _number("17850")],
    ]
    _workbook(tmp_path, rows, strings=shared)
    converted = _convert("online-retail", tmp_path)
    assert (converted / "interactions.csv").read_text().splitlines() == [
        "user,item,timestamp",
        "17850,85123A,2010-12-01T08:26:00",
        "13047,85123A,2010-12-01T12:00:00",
        "17850,22139,2010-12-01T08:26:00",
    ]
    assert (converted / "items.csv").read_text() == "item,title,category\n85123A,WHITE HEART,\n22139,a & b,\n"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [HEADER[:3]],
        [HEADER, ["", _string("a"), "", _string("many"), _number("40513"), _number("1")]],
        [HEADER, ["", _string("a"), "", _number("1"), _string("yesterday"), _number("1")]],
        [HEADER, ["", _string("a"), "", _number("1"), _number("1e300"), _number("1")]],
        [HEADER, ["t='s'><v>7</v>"]],
        [HEADER, ["><v>"]],
    ],
)
def test_a_workbook_of_another_form_is_an_error(tmp_path: Path, rows: list[list[str]]) -> None:
    _workbook(tmp_path, rows)
    with pytest.raises(DataError, match=r"Online Retail\.xlsx") as error:
        _convert("online-retail", tmp_path)
    assert "\n" not in str(error.value)


def test_entities_that_multiply_are_an_error(tmp_path: Path) -> None:
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
    strings = f"<!DOCTYPE x [<!ENTITY e0 'ha'>{entities}]><sst {SHEET}><si><t>&e11;</t></si></sst>"
    _workbook(tmp_path, [HEADER], strings=strings)
    with pytest.raises(DataError, match=r"not an \.xlsx file of the expected form"):
        _convert("online-retail", tmp_path)


def test_a_workbook_that_swells_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "_LARGEST_SHEET", 100)
    _workbook(tmp_path, [HEADER])
    with pytest.raises(DataError, match="more than 100 bytes when unpacked"):
        _convert("online-retail", tmp_path)


def test_what_is_no_workbook_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "online+retail").mkdir()
    (tmp_path / "online+retail" / "Online Retail.xlsx").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"not an \.xlsx file"):
        _convert("online-retail", tmp_path)
