"""The JavaScript of docs/javascript.md and of the package's README runs as it is printed."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from shops import KINDS, run_of, shop_of

from lsan.data.catalogue import Catalogue
from needs import need_command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the package installed, and a model.lsan of the shop that the documents speak of."""
    path = tmp_path_factory.mktemp("docs")
    (path / "node_modules").mkdir()
    (path / "node_modules" / "lsan").symlink_to(ROOT / "src" / "lsan" / "javascript")
    catalogue = Catalogue(
        ids=[f"SKU-{number:04}" for number in range(1, 501)],
        titles=["Crème brûlée torch", *(None for _ in range(499))],
        categories=[("lamps", "baths", None)[number % 3] for number in range(500)],
    )
    with torch.no_grad():
        shop_of(run_of(KINDS["timed, causal"][0], catalogue), path / "model.lsan")
    return path


@pytest.mark.parametrize("document", ["docs/javascript.md", "src/lsan/javascript/README.md"])
def test_the_code_runs(document: str, folder: Path) -> None:
    [code] = re.findall(r"```js\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    (folder / "code.mjs").write_text(code)
    done = subprocess.run(
        [need_command("node", "nodejs"), "code.mjs"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"SKU-\d{4}", done.stdout)) >= 10
    if "LsanError" in code:
        assert "true a history is a list" in done.stdout
