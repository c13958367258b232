"""Networks of fixed shapes, as programs of torch.export, for other engines. These are too heavy for here:
benchmarks/other_engines.py runs them, and here PyTorch stands in where a file is run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lsan.cli import main
from lsan.config import FullTableConfig, ModelConfig, SasRecConfig
from lsan.errors import BundleError, ConfigError
from lsan.export import static_export
from lsan.export.export import items_path
from lsan.export.program import program_of
from lsan.export.static import StaticNetwork
from lsan.export.static_engines import STATIC_ENGINES, Scores, StaticEngine
from lsan.export.static_export import StaticScorer, export_static
from lsan.runtime.file import Array, FloatArray
from small_networks import LONGEST, NETWORKS, ROWS, histories_of, name_of, shared_network

#: Networks that were "converted": the number of one is its file.
KEPT: list[StaticNetwork] = []


def convert(network: StaticNetwork) -> bytes:
    KEPT.append(network)
    return str(len(KEPT) - 1).encode()


def load(content: bytes) -> Scores:
    network = KEPT[int(content)]

    def scores(inputs: list[Array]) -> FloatArray:
        with torch.no_grad():
            found: FloatArray = network(*(torch.from_numpy(one) for one in inputs))[0].numpy()
        return found

    return scores


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # PyTorch's, of a copied GRU
@pytest.mark.parametrize("config", NETWORKS[::16], ids=name_of)
def test_scores_are_the_networks(config: ModelConfig) -> None:
    network = shared_network(config)
    static = StaticNetwork(network, timed=program_of(network).timed)
    program = torch.export.export(static, static.example())
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in called if "embedding_bag" in name or "tril" in name or "eye" in name]
    assert all(tensor.dtype != torch.uint8 for tensor in [*program.state_dict.values(), *program.constants.values()])
    module = program.module()

    def scores(inputs: list[Array]) -> FloatArray:
        found: FloatArray = module(*(torch.from_numpy(one) for one in inputs))[0].detach().numpy()
        return found

    scorer = StaticScorer(scores, static)
    histories = histories_of(*ROWS, [])
    with torch.no_grad():
        expected = network.scores(histories)
    assert histories.items.shape[1] > LONGEST
    assert (scorer.scores(histories) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture
def program_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        STATIC_ENGINES, "executorch", StaticEngine(packages={"torch": "torch"}, convert=convert, load=load)
    )


@pytest.mark.usefixtures("program_engine")
def test_an_export_is_checked_and_has_its_items_beside_it(small_run: Path, tmp_path: Path) -> None:
    exported = export_static(small_run, tmp_path / "model.pte", engine="executorch")
    assert exported.difference < 1e-5
    assert exported.agreement is not None
    assert exported.report is not None
    assert exported.latency is not None
    items = [json.loads(line) for line in items_path(tmp_path / "model.pte").read_bytes().splitlines()]
    assert len(items) == 60
    assert set(items[0]) == {"id", "title", "category", "offered"}
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(exported.parts.values()) == sum(sizes)


def test_a_file_that_answers_otherwise_is_not_written(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(content: bytes) -> Scores:
        right = load(content)
        return lambda inputs: right(inputs) + np.float32(0.1) * (np.arange(60) == 17)

    engine = StaticEngine(packages={"torch": "torch"}, convert=convert, load=wrong)
    monkeypatch.setitem(STATIC_ENGINES, "executorch", engine)
    with pytest.raises(BundleError, match="are off by"):
        export_static(small_run, tmp_path / "model.pte", engine="executorch")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("program_engine")
def test_what_cannot_be_is_refused(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.lsan").write_bytes(b"")
    out = str(tmp_path / "model")
    assert main(["export", str(tmp_path / "model.lsan"), "--to", "executorch", "--out", out]) == 2
    assert "takes a run's folder" in capsys.readouterr().err
    monkeypatch.setattr(static_export, "MOST_ITEMS", 59)
    with pytest.raises(ConfigError, match="60 items"):
        export_static(small_run, tmp_path / "model", engine="executorch")
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    assert main(["export", str(small_run), "--to", "litert", "--out", out]) == 2
    assert 'pip install "lsan[litert]"' in capsys.readouterr().err
    timed = ModelConfig(regime="causal", width=8, history=6, table=FullTableConfig(), encoder=SasRecConfig(heads=2))
    with pytest.raises(ConfigError, match="reads times"):
        STATIC_ENGINES["litert"].convert(StaticNetwork(shared_network(timed), timed=True))
