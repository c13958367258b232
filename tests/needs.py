"""What some tests need that `make environment` does not install."""

import os
import shutil

import pytest


def need(found: bool, missing: str) -> None:
    """Skips the test, saying what is missing; where LSAN_TEST_EVERYTHING is 1, as in CI, the test fails instead."""
    if not found:
        (pytest.fail if os.environ.get("LSAN_TEST_EVERYTHING") == "1" else pytest.skip)(missing)


def need_command(name: str, package: str) -> str:
    """The path of a command that comes with a Debian or Ubuntu package."""
    path = shutil.which(name)
    need(path is not None, f"no command {name}: it comes with the package {package}")
    return str(path)
