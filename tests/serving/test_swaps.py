"""New files of the model, and workers that die."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, await_that, serving, workers_of

from lsan.errors import BundleError, DataError
from lsan.export.bundle import bundle_bytes
from lsan.files import write_atomically
from lsan.runtime.file import BundleFile
from lsan.serving.model import version_of
from lsan.serving.watch import Watch


@pytest.fixture
def contents(bundles: list[Path]) -> list[bytes]:
    return [bundle.read_bytes() for bundle in bundles]


@pytest.fixture
def file(tmp_path: Path, contents: list[bytes]) -> Path:
    path = tmp_path / "model.lsan"
    path.write_bytes(contents[0])
    return path


def version(served: Served) -> str:
    return str(served.get("/readyz").json["model"])


def test_a_new_file_is_swapped_in_and_a_bad_one_is_not(file: Path, contents: list[bytes], tmp_path: Path) -> None:
    with serving(file, tmp_path) as served:
        assert version(served) == version_of(contents[0])
        page = served.get("/model.lsan")
        write_atomically(file, contents[1])
        await_that(lambda: version(served) == version_of(contents[1]))
        assert served.post("/v1/recommend", {"history": ["id-1"]}).json["model"] == version_of(contents[1])
        assert served.get("/model.lsan", **{"If-None-Match": page.headers["ETag"]}).body == contents[1]
        assert served.figure("lsan_model_stale") == 0

        write_atomically(file, contents[0][:-1])
        assert "model.lsan" in served.await_event("model refused")["reason"]
        assert served.figure("lsan_model_stale") == 1
        assert served.figure('lsan_model_swaps_total{outcome="refused"}') == 1
        assert served.post("/v1/recommend", {"history": ["id-1"]}).json["model"] == version_of(contents[1])
        file.unlink()
        served.await_event("model refused", 2)
        served.process.send_signal(signal.SIGHUP)
        served.await_event("model refused", 3)

        write_atomically(file, contents[1])  # the one that is being served
        await_that(lambda: served.figure("lsan_model_stale") == 0)
        assert served.figure('lsan_model_swaps_total{outcome="swapped"}') == 1
        write_atomically(file, contents[0])
        served.process.send_signal(signal.SIGHUP)
        await_that(lambda: version(served) == version_of(contents[0]))


@pytest.fixture
def served(file: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(file, tmp_path, "--workers", 2) as service:
        yield service


def test_several_workers(served: Served, file: Path, contents: list[bytes]) -> None:
    """All swap, all are counted, and one that is started anew counts on and has the latest good model."""
    write_atomically(file, contents[1])
    served.await_event("model swapped", 2)
    assert {version(served) for _ in range(20)} == {version_of(contents[1])}
    assert served.figure('lsan_model_swaps_total{outcome="swapped"}') == 2
    write_atomically(file, b"nonsense")
    served.await_event("model refused", 2)
    before = served.figure('lsan_requests_total{route="/readyz",status="200"}')
    for victim in workers_of(served.process.pid):
        os.kill(victim, signal.SIGKILL)
    served.await_event("worker died", 2)
    assert {version(served) for _ in range(20)} == {version_of(contents[1])}
    assert served.figure('lsan_requests_total{route="/readyz",status="200"}') == before + 20
    assert served.figure("lsan_model_stale") == 1


def test_workers_end_with_their_supervisor(file: Path, tmp_path: Path) -> None:
    with serving(file, tmp_path, "--workers", 2) as served:
        alive = workers_of(served.process.pid)
        assert len(alive) == 2
        served.process.kill()
        served.process.wait()
        await_that(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in alive))


def test_watch(file: Path, contents: list[bytes], tmp_path: Path) -> None:
    watch = Watch(file, keep=tmp_path / "kept")
    assert watch.first().version == version_of(contents[0])
    assert (tmp_path / "kept").read_bytes() == contents[0]
    assert watch.check() is None
    assert watch.check(again=True) is None
    os.utime(file)
    assert watch.check() is None
    file.write_bytes(b"bad")
    with pytest.raises(BundleError, match=r"model\.lsan: only 3 bytes"):
        watch.check()
    assert watch.refused
    assert watch.check() is None  # nothing new
    assert watch.refused
    with pytest.raises(BundleError):
        watch.check(again=True)
    assert Watch(file, keep=tmp_path / "kept").first().version == version_of(contents[0])
    with pytest.raises(BundleError):
        Watch(file).first()
    file.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        watch.check()
    file.mkdir()
    with pytest.raises(BundleError, match="is no file"):
        watch.check()
    file.rmdir()
    file.write_bytes(contents[1])
    found = watch.check()
    assert found is not None
    assert found.version == version_of(contents[1])
    assert not watch.refused


def test_a_model_that_could_not_be_kept_is_read_again(file: Path, contents: list[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    watch = Watch(file, keep=folder / "kept")
    watch.first()
    (folder / "kept").unlink()
    folder.rmdir()
    file.write_bytes(contents[1])
    with pytest.raises(DataError):
        watch.check()
    assert watch.refused
    folder.mkdir()
    found = watch.check(again=True)
    assert found is not None
    assert found.version == version_of(contents[1])
    assert not watch.refused


def test_a_model_that_answers_otherwise_than_it_should_is_refused(contents: list[bytes], tmp_path: Path) -> None:
    whole = BundleFile.parse(contents[0])
    scores = whole.tensors["check.scores"].copy()
    scores[0, 0] += 5
    file = tmp_path / "changed.lsan"
    file.write_bytes(bundle_bytes({**whole.tensors, "check.scores": scores}, dict(whole.manifest)))
    with pytest.raises(BundleError, match=r"changed\.lsan: test vector 0"):
        Watch(file).first()
