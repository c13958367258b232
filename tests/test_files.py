"""Atomic writes: all or nothing, and nothing of the user's overwritten."""

from pathlib import Path

import pytest

from lsan.errors import DataError
from lsan.files import new_folder, refuse_existing, write_atomically


class StopHereError(Exception):
    """Stands for whatever goes wrong halfway."""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")

    def fail(_: int) -> None:
        raise StopHereError

    monkeypatch.setattr("lsan.files.os.fsync", fail)
    with pytest.raises(StopHereError):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folder_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        write_atomically(tmp_path / "no" / "file", b"x")


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "below" / "folder"
    with new_folder(path) as temporary:
        (temporary / "file").write_text("x")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["file"]
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_vanishes(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("x")
            raise StopHereError

    with pytest.raises(StopHereError):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("x")
    assert (tmp_path / "folder" / "file").read_text() == "x"


def test_what_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(DataError, match="already exists"):
            refuse_existing(path)
        with pytest.raises(DataError, match="already exists"), new_folder(path):
            raise AssertionError("never reached")
    refuse_existing(tmp_path / "absent")


def test_what_came_into_being_meanwhile_is_refused(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("ours")
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "file").write_text("theirs")

    with pytest.raises(DataError, match="already exists"):
        fill()
    assert (tmp_path / "folder" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
