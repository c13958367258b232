"""lsan.js and lsan.wasm themselves: built from the sources, typed, robust."""

import importlib.metadata
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from shops import HERE, KINDS, run_of, shop_of

from lsan.export.bundle import bundle_bytes
from lsan.models.quantisation import pack_bits
from lsan.runtime.file import BundleFile
from needs import need, need_command

ROOT = HERE.parents[1]
MODULE = ROOT / "src" / "lsan" / "javascript"

sys.path.insert(0, str(ROOT / "benchmarks"))

from fuzz_bundles import ITEMS, MODELS, bundle_of, mutated  # noqa: E402


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_lsan_wasm_is_what_the_sources_give(tmp_path: Path) -> None:
    need(importlib.util.find_spec("ziglang") is not None, "no package ziglang: make environment installs it")
    run("bash", "scripts/wasm.sh", str(tmp_path / "lsan.wasm"), PYTHON=sys.executable)
    built = (tmp_path / "lsan.wasm").read_bytes()
    assert built == (MODULE / "lsan.wasm").read_bytes(), (
        "the native engine has changed: make wasm builds lsan.wasm again"
    )


def test_sizes() -> None:
    assert (MODULE / "lsan.wasm").stat().st_size <= 64_000
    assert (MODULE / "lsan.js").stat().st_size <= 22_000


def test_lsan_wasm_imports_nothing() -> None:
    script = (
        "console.log(WebAssembly.Module.imports(new WebAssembly.Module(require('fs').readFileSync(process.argv[1]))))"
    )
    assert run(need_command("node", "nodejs"), "-e", script, str(MODULE / "lsan.wasm")) == "[]\n"


def test_the_module_in_node(tmp_path: Path) -> None:
    with torch.no_grad():
        path = shop_of(run_of(*KINDS["timed, causal"]), tmp_path / "model.lsan").path
    run(need_command("node", "nodejs"), "--test", str(HERE / "lsan.test.mjs"), LSAN_FILE=str(path))


def test_mutated_files_are_refused_or_harmless(tmp_path: Path) -> None:
    generator = random.Random(7)
    with torch.no_grad():
        whole = [bundle_of(config, number) for number, config in enumerate(MODELS)]
    for number in range(400):
        (tmp_path / f"{number}.lsan").write_bytes(mutated(generator.choice(whole), generator))
    refused = int(run(need_command("node", "nodejs"), str(HERE / "hostile.mjs"), str(tmp_path)))
    assert 100 < refused < 400


def test_categories_that_have_no_names_are_refused(tmp_path: Path) -> None:
    with torch.no_grad():
        file = BundleFile.parse(bundle_of(MODELS[0], 0))
    tensors = {**file.tensors, "categories": pack_bits(np.zeros(ITEMS, dtype=np.int64), 31)}
    content = bundle_bytes(tensors, {**file.manifest, "categories": 2**31 - 3})
    (tmp_path / "file.lsan").write_bytes(content)
    assert run(need_command("node", "nodejs"), str(HERE / "hostile.mjs"), str(tmp_path)) == "1\n"


def test_types() -> None:
    compiler = Path(sys.prefix) / "javascript" / "node_modules" / "typescript" / "bin" / "tsc"
    need(compiler.is_file(), "no TypeScript: make environment installs it where npm is")
    run(need_command("node", "nodejs"), str(compiler), "-p", str(HERE))


def test_the_package_is_of_this_version_and_complete() -> None:
    package = json.loads((MODULE / "package.json").read_text())
    assert package["version"] == importlib.metadata.version("lsan")
    assert all((MODULE / name).is_file() for name in [*package["files"], "README.md"])


def test_what_is_installed_has_it(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path))
    installed = {path.name for path in (tmp_path / "lsan" / "javascript").iterdir()}
    assert installed == {"lsan.js", "lsan.d.ts", "lsan.wasm", "package.json", "README.md"}
