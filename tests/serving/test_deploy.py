"""The image and the unit start a command that there is."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from lsan.cli import serve

DEPLOY = Path(__file__).parents[2] / "deploy"


def parsed(arguments: list[str]) -> argparse.Namespace:
    assert arguments[:2] == ["lsan", "serve"]
    parser = argparse.ArgumentParser(exit_on_error=True)
    serve.add_arguments(parser)
    return parser.parse_args(arguments[2:])


def test_the_image() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    given = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    asked = parsed([*json.loads(given["ENTRYPOINT"]), *json.loads(given["CMD"])])
    assert (asked.file, asked.host, asked.port) == (Path("/models/model.lsan"), "0.0.0.0", 8000)
    assert given["EXPOSE"] == "8000"


def test_the_image_needs_nothing_of_training() -> None:
    done = subprocess.run([sys.executable, str(DEPLOY / "requirements.py")], capture_output=True, text=True, check=True)
    needed = {re.split(r"[<>=]", line)[0] for line in done.stdout.splitlines()}
    assert needed >= {"numpy", "fastapi", "uvicorn"}
    assert needed.isdisjoint({"torch", "polars", "matplotlib", "optuna", "ruff"})


def test_the_unit() -> None:
    text = (DEPLOY / "lsan-serve.service").read_text()
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    asked = parsed(command.removeprefix("ExecStart=/opt/lsan/bin/").split())
    assert asked.workers == 2
    assert asked.api_key_file == Path("/etc/lsan/api-keys")
