"""Fixtures that several tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the project; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LSAN_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} (or name its folder in LSAN_SHARED_DATA)")
    return folder
