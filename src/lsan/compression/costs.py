"""What an item table costs before anything is trained: bytes to ship, memory to train and to serve, time to answer.

Memory and time follow rules of thumb with constants measured by `benchmarks/plan.py` on two cores of an AMD EPYC (Zen
5; time) and of an Intel Xeon (memory to train); the script compares them with measurements. How much faster or slower
this machine is, a small model tells.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from lsan.compression.sizes import shipped_bytes, small_run
from lsan.config import (
    CodedTableConfig,
    FullTableConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    TwinTransformerConfig,
    recipe_from,
    recipe_to,
)
from lsan.errors import ConfigError
from lsan.export.bundle import make_bundle
from lsan.runtime import Recommender
from lsan.training.loop import PIECE

#: Memory to train in bytes: of a process that has loaded everything; for each number of the item vectors that are
#: computed at once (batch x history x width, of a batch or a piece of it) and block; for each attention weight (batch x
#: history^2 x heads) and block; for each number of the item table; for each code; for each event.
_TRAIN_BASE, _TRAIN_VECTOR, _TRAIN_ATTENTION, _TRAIN_NUMBER, _TRAIN_CODE, _TRAIN_EVENT = (
    360e6, 137.0, 18.0, 23.6, 40.0, 380.0,
)  # fmt: skip

#: Memory to serve in bytes: of a process with NumPy and the engine; for each item's id and its place in the index.
_SERVE_BASE, _SERVE_ITEM = 37.8e6, 26.0

#: Microseconds: of a call; for each event of the history; for each multiplication of the encoder; for each operation.
_CALL, _EVENT, _PRODUCT, _OPERATION = 6.3, 0.164, 9.8e-6, 0.065

#: Microseconds for each of N tables; to score an item, for each of its codes, and for each pair of them (with more
#: codes, bounds tell less, and more items are scored exactly); for each number of its vector, by bits; for each byte of
#: all vectors, where these are more than the cache holds. Numbers of 16 bits are not measured: as 32.
_TABLE, _CODE, _PAIR, _FAR, _CACHE = 0.24, 1.2e-5, 0.7e-6, 3.5e-5, 16e6
_NUMBER = {32: 4.4e-5, 16: 4.4e-5, 8: 3e-5, 4: 3.7e-5}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one option costs."""

    option: str
    """In words."""
    shipped: int
    """Bytes of the exported file, all but ids, titles and categories."""
    training: int
    """Peak bytes of the training process, where histories are as long as the model reads."""
    serving: int
    """Bytes of a Python process that recommends from the file; ids are numbers, there are no titles."""
    microseconds: float
    """Median time of one recommendation after a history as long as the model reads, one thread of this machine."""


def costs_of_options(recipe: Recipe, items: int, events: int) -> Iterator[Costs]:
    """The costs of vectors of 32, 8 and 4 bits, and of as many codes as divide the width where there are items to fill
    256 rows, for the network of a recipe.

    Raises:
        ConfigError: when the encoder is none that the rules know.
    """
    if recipe.model.encoder.__struct_config__.tag not in ("twin-transformer", "sasrec"):
        raise ConfigError("lsan plan knows the encoders twin-transformer and sasrec")
    for option, table, quantisation in _options(recipe.model.vector_width, items):
        content: dict[str, Any] = recipe_to(recipe)
        content["model"] |= {"table": table, "quantisation": quantisation, "context": None}
        yield costs(option, recipe_from(content, where=option), items, events)


def costs(option: str, recipe: Recipe, items: int, events: int) -> Costs:
    """The costs of one recipe."""
    shipped = sum(shipped_bytes(recipe, items).values())
    return Costs(
        option=option,
        shipped=shipped,
        training=round(training_bytes(recipe, items, events)),
        serving=round(serving_bytes(recipe, items, shipped)),
        microseconds=microseconds(recipe.model, items) * slowness(),
    )


def training_bytes(recipe: Recipe, items: int, events: int) -> float:
    """Peak memory of a training."""
    model, blocks, heads = recipe.model, *_shape(recipe.model)
    batch = recipe.training.batch_size * (2 if recipe.training.r_drop else 1)
    positions = min(batch, max(1, PIECE["cpu"] // model.history)) * model.history
    numbers = items * model.vector_width if isinstance(model.table, FullTableConfig) else 0
    codes = items * model.table.tables if isinstance(model.table, CodedTableConfig) else 0
    return (
        _TRAIN_BASE
        + _TRAIN_VECTOR * positions * model.width * blocks
        + _TRAIN_ATTENTION * positions * model.history * heads * blocks
        + _TRAIN_NUMBER * numbers
        + _TRAIN_CODE * codes
        + _TRAIN_EVENT * events
    )


def serving_bytes(recipe: Recipe, items: int, shipped: int) -> float:
    """Memory of a process that recommends: the file, the engine's own form of it, and the index of ids."""
    return _SERVE_BASE + 2 * shipped + _SERVE_ITEM * items


def microseconds(model: ModelConfig, items: int) -> float:
    """Time of one recommendation on the machine that the constants are of."""
    blocks, _ = _shape(model)
    width, length = model.width, model.history
    inner = getattr(model.encoder, "feed_forward", 4)
    full = length * width * width * (6 + 2 * inner)
    last = length * width * width * 2 + width * width * (4 + 2 * inner)
    attention = length * length * width * 2 * (blocks - 1) + length * width * 2
    turned = 0 if model.item_width is None else (length + 1) * model.item_width * width
    products = full * (blocks - 1) + last + attention + turned
    if isinstance(model.table, CodedTableConfig):
        tables = model.table.tables
        scores = _TABLE * tables + items * tables * (_CODE + _PAIR * tables)
    else:
        bits = 32 if model.quantisation is None else model.quantisation.table
        numbers = items * model.vector_width
        scores, size = numbers * _NUMBER[bits], numbers * bits / 8
        scores = max(scores, size * _FAR if size > _CACHE else 0)
    return _CALL + _EVENT * length + _PRODUCT * products + _OPERATION * (10 + 12 * blocks) + scores


#: The model that is timed, and how often.
_PROBE = ModelConfig(
    regime="prefix", history=50, width=64, encoder=TwinTransformerConfig(), table=CodedTableConfig(tables=16, rows=256),
    quantisation=QuantisationConfig(weights=4, table=8, bias=4),
)  # fmt: skip
_PROBE_ITEMS, _PROBE_CALLS, _WARM_UP = 12_000, 200, 50


@cache
def slowness() -> float:
    """How many times as long a recommendation takes on this machine, with the engine that is installed, as on the one
    that the constants are of: measured in less than a second, with a model of random weights."""
    recommender = Recommender(make_bundle(small_run(Recipe(model=_PROBE), _PROBE_ITEMS)).content)
    chance = random.Random(0)
    taken = []
    for _ in range(_WARM_UP + _PROBE_CALLS):
        history = [chance.randint(1, _PROBE_ITEMS) for _ in range(_PROBE.history)]
        begun = time.perf_counter()
        recommender.recommend(history)
        taken.append(time.perf_counter() - begun)
    return 1e6 * median(taken[_WARM_UP:]) / microseconds(_PROBE, _PROBE_ITEMS)


def _shape(model: ModelConfig) -> tuple[int, int]:
    return getattr(model.encoder, "blocks", 1), getattr(model.encoder, "heads", 1)


def _options(width: int, items: int) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    full = {"kind": "full"}
    yield "vectors, 32 bits", full, None
    yield "vectors, 8 bits", full, {"weights": 8, "table": 8, "bias": 8}
    yield "vectors, 4 bits", full, {"weights": 4, "table": 4, "bias": 4}
    for tables in (32, 16, 8, 4):
        if width % tables == 0 and items >= 256:
            table = {"kind": "coded", "tables": tables, "rows": 256}
            yield f"{tables} codes of 256 rows", table, {"weights": 4, "table": 8, "bias": 4}
