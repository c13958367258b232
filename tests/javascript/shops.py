"""Files of many kinds for lsan.js, and what Python answers from them."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lsan.answers import RawId
from lsan.config import (
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    EncoderConfig,
    FpmcConfig,
    FullTableConfig,
    Gru4RecConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    SasRecConfig,
    TimeConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.data.catalogue import Catalogue
from lsan.export.bundle import make_bundle
from lsan.export.program import Arithmetic
from lsan.models.item_tables.coded import CodedTable
from lsan.models.packing import pack, settled_state, unpack
from lsan.runs import Run, RunHeader, new_network
from lsan.runtime import Recommender
from needs import need_command

HERE = Path(__file__).parent

#: Beyond the numbers that JavaScript has exactly.
HUGE = 2**53


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A file, and the same in Python."""

    path: Path
    """The file."""
    python: Recommender
    """What it should answer."""


def titled(items: int) -> Catalogue:
    """Text ids, titles with letters of every length in UTF-8, some missing; categories, some missing."""
    return Catalogue(
        ids=[f"SKU-{number}é" if number % 9 == 0 else f"SKU-{number}" for number in range(1, items + 1)],
        titles=[None if number % 4 == 0 else f"Tïtle 緑 🙂 {number}" for number in range(items)],
        categories=[None if number % 5 == 0 else f"catégorie {number % 3}" for number in range(items)],
    )


def numbered(ids: Sequence[int]) -> Catalogue:
    return Catalogue(ids=list(ids), titles=[None] * len(ids), categories=[None] * len(ids))


def model(regime: Any, encoder: EncoderConfig, **changes: Any) -> ModelConfig:
    return ModelConfig(regime=regime, encoder=encoder, **{"width": 8, "history": 6, **changes})


FOUR_BITS, EIGHT_BITS = QuantisationConfig(weights=4, table=4), QuantisationConfig(weights=8, table=8)

#: Models and catalogues, by what is special about them.
KINDS: dict[str, tuple[ModelConfig, Catalogue]] = {
    "causal": (model("causal", SasRecConfig(heads=2), table=FullTableConfig()), titled(120)),
    "both ways, codes of 4 bits": (
        model(
            "prefix", TwinTransformerConfig(blocks=1), width=16,
            table=CodedTableConfig(tables=4, rows=64), quantisation=FOUR_BITS,
        ),
        numbered(range(5000, 2000, -1)),
    ),
    "additive codes of 8 bits": (
        model(
            "causal", TwinTransformerConfig(blocks=1),
            table=CodedTableConfig(codes="additive", tables=2, rows=16), quantisation=EIGHT_BITS,
        ),
        titled(90),
    ),
    "timed": (
        model(
            "prefix", TwinAttentionConfig(), table=ComposedTableConfig(radices=(3, 4)),
            context=ContextConfig(), time=TimeConfig(),
        ),
        titled(60),
    ),
    "timed, causal": (model("causal", Gru4RecConfig(), table=FullTableConfig(), time=TimeConfig()), titled(60)),
    "vectors of 4 bits": (
        model("causal", TwinTransformerConfig(blocks=2), width=20, item_width=12, quantisation=FOUR_BITS),
        numbered([HUGE + 3 * number for number in range(-20, 20)]),
    ),
    "as large as shipped ones": (
        model(
            "causal", TwinTransformerConfig(blocks=2), width=64, history=50,
            table=CodedTableConfig(tables=16, rows=64), quantisation=FOUR_BITS,
        ),
        titled(200),
    ),
    "untied": (model("prefix", FpmcConfig(), table=FullTableConfig(), untied_output=True), numbered(range(1, 41))),
}  # fmt: skip


def run_of(config: ModelConfig, catalogue: Catalogue, counts: Sequence[int] | None = None) -> Run:
    """A run of random weights."""
    generator = torch.Generator().manual_seed(5)
    items = len(catalogue)
    popularity = torch.randint(0, 99, (items,), generator=generator) if counts is None else torch.tensor(counts)
    recipe = Recipe(model=config)
    torch.manual_seed(5)
    network = new_network(recipe, catalogue, popularity, torch.randperm(items, generator=generator), 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        if isinstance(network.table, CodedTable) and isinstance(config.table, CodedTableConfig):
            shape = network.table.codes.shape
            network.table.codes.copy_(torch.randint(0, config.table.rows, shape, generator=generator))
    if config.quantisation is not None:
        state = settled_state(network)
        network.load_state_dict(unpack(pack(state, config), state, config))
    facts = {"name": "d", "path": "", "content_hash": "", "users": 1, "items": items, "events": 1}
    header = RunHeader(recipe=recipe, timed=True, dataset=facts, progress={"finished": True})
    return Run(header=header, catalogue=catalogue, network=network.eval())


def shop_of(run: Run, path: Path, arithmetic: Arithmetic = "float32") -> Shop:
    content = make_bundle(run, arithmetic=arithmetic).content
    path.write_bytes(content)
    return Shop(path=path, python=Recommender(content))


def ask(questions: Sequence[Sequence[Any]]) -> list[Any]:
    """What lsan.js answers in Node to [file, method, arguments...]."""
    done = subprocess.run(
        [need_command("node", "nodejs"), str(HERE / "answers.mjs")],
        input=json.dumps(written(questions)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def id_in_javascript(raw: RawId) -> RawId:
    """Whole numbers that JavaScript has not exactly are texts there."""
    return str(raw) if isinstance(raw, int) and abs(raw) >= HUGE else raw


def written(tree: Any) -> Any:
    """JSON, with ids as JavaScript has them."""
    if isinstance(tree, dict):
        return {name: written(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [written(value) for value in tree]
    return id_in_javascript(tree)
