"""Mutated bundles through the Python reader: each is refused with BundleError or works, and nothing else happens.

    python benchmarks/fuzz_bundles.py [--files 100000] [--seed 0] [--engine numpy] [--write-seeds DIR]

Mutates bytes, cuts, repeats and swaps pieces, and changes numbers and names in the JSON of header and manifest of small
bundles of several kinds (dense, product codes, additive codes, digits; with times and categories). Each file that is
accepted is asked for recommendations. A line tells how many were refused; any other exception, a crash included, ends
the script with status 1 and leaves the file in `fuzz-failure.lsan`. Memory of the process is limited to 4 GB.
--write-seeds only writes the unharmed bundles, for scripts/fuzz_native.sh.
"""

import argparse
import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from lsan.config import (
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    TwinTransformerConfig,
)
from lsan.data.catalogue import Catalogue
from lsan.errors import BundleError
from lsan.export.bundle import make_bundle
from lsan.export.program import Arithmetic
from lsan.models.item_tables.coded import CodedTable
from lsan.models.packing import pack, settled_state, unpack
from lsan.runs import Run, RunHeader, new_network
from lsan.runtime import Recommender

ITEMS = 40

MODELS = (
    ModelConfig(regime="causal", width=8, history=6, encoder=TwinTransformerConfig(blocks=1)),
    ModelConfig(
        regime="prefix", width=8, history=6, encoder=TwinTransformerConfig(blocks=1), context=ContextConfig(),
        table=CodedTableConfig(tables=2, rows=16), quantisation=QuantisationConfig(weights=4, table=4),
    ),
    ModelConfig(
        regime="causal", width=8, history=6, encoder=TwinTransformerConfig(blocks=1),
        table=CodedTableConfig(codes="additive", tables=2, rows=16), quantisation=QuantisationConfig(),
    ),
    ModelConfig(
        regime="causal", width=8, history=6, encoder=TwinTransformerConfig(blocks=1), context=ContextConfig(),
        table=ComposedTableConfig(radices=(3, 4)),
    ),
    ModelConfig(
        regime="causal", width=8, history=6, encoder=TwinTransformerConfig(blocks=1),
        table=CodedTableConfig(tables=8, rows=16, paired=1.0), quantisation=QuantisationConfig(),
    ),
)  # fmt: skip

#: What numbers and texts in the JSON are replaced with.
ODD: tuple[Any, ...] = (
    -1, 0, 1, 2, 7, 2**31, 2**53, 2**64, -(2**63), 1e308, 0.5, True, None, "", "table.weight", "codes", [], {},
)  # fmt: skip


def main() -> None:
    """Mutate and try."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("numpy", "native"), default="numpy")
    parser.add_argument("--write-seeds", type=Path)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    whole = [bundle_of(model, number) for number, model in enumerate(MODELS)]
    if arguments.write_seeds is not None:
        arguments.write_seeds.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(whole):
            (arguments.write_seeds / f"{number}.lsan").write_bytes(content)
        return
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    counts: Counter[str] = Counter()
    for number in range(arguments.files):
        content = mutated(generator.choice(whole), generator)
        try:
            recommender = Recommender(content, native=arguments.engine == "native")
            ids = recommender.vocabulary.ids
            recommender.recommend([ids[0], ids[-1], ids[len(ids) // 2]], 5, at=1e9)
            counts["accepted"] += 1
        except BundleError:
            counts["refused"] += 1
        except BaseException as error:
            Path("fuzz-failure.lsan").write_bytes(content)
            print(f"file {number}: {type(error).__name__}: {error}; kept as fuzz-failure.lsan", file=sys.stderr)
            raise SystemExit(1) from error
    print(f"{arguments.files:,} files: {counts['refused']:,} refused, {counts['accepted']:,} accepted, none did harm")


def bundle_of(config: ModelConfig, seed: int) -> bytes:
    """A small bundle of random weights."""
    torch.manual_seed(seed)
    catalogue = Catalogue(
        ids=[f"id-{number}" for number in range(ITEMS)],
        titles=[f"Title {number}" for number in range(ITEMS)],
        categories=[None if number % 7 == 0 else f"category {number % 3}" for number in range(ITEMS)],
    )
    recipe = Recipe(model=config)
    network = new_network(recipe, catalogue, torch.randint(0, 9, (ITEMS,)), torch.randperm(ITEMS), 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        if isinstance(network.table, CodedTable):
            places, table = torch.randperm(ITEMS)[:, None], torch.arange(network.table.tables)
            codes = places // 16**table % 16
            if len(table) > 2:  # four pairs of rows in every two tables
                codes = places // 4 ** (table // 2) % 4 * (1 + table % 2)
            network.table.codes.copy_(codes)
    network.offered[5] = False
    if config.quantisation is not None:
        state = settled_state(network)
        network.load_state_dict(unpack(pack(state, config), state, config))
    facts = {"name": "fuzz", "path": "", "content_hash": "", "users": 1, "items": ITEMS, "events": 1}
    header = RunHeader(recipe=recipe, timed=True, dataset=facts, progress={"finished": True})
    arithmetic: Arithmetic = "float32" if config.quantisation is None else "int8"
    run = Run(header=header, catalogue=catalogue, network=network.eval())
    return make_bundle(run, arithmetic=arithmetic).content


def mutated(content: bytes, generator: random.Random) -> bytes:
    """One to three changes of one kind each."""
    for _ in range(generator.randint(1, 3)):
        content = generator.choice((_bytes, _cut, _swap, _json, _json, _json))(content, generator)
    return content


def _bytes(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    reach = len(changed) if generator.random() < 0.7 else min(len(changed), 12_000)
    for _ in range(generator.choice((1, 1, 4, 32))):
        if reach:
            changed[generator.randrange(reach)] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
    return bytes(changed)


def _cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content) + 1)] + (b"" if generator.random() < 0.5 else content[-9:])


def _swap(content: bytes, generator: random.Random) -> bytes:
    length = generator.randint(1, 64)
    one, other = (generator.randrange(len(content) + 1) for _ in range(2))
    return content[:one] + content[other : other + length] + content[one + length :]


def _json(content: bytes, generator: random.Random) -> bytes:
    """Another number, text, list or name in the header's or the manifest's JSON; sizes are made to fit again."""
    try:
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        if generator.random() < 0.3:
            _change(header, generator)
        else:
            begin, end = header["manifest"]["data_offsets"]
            manifest = json.loads(data[begin:end])
            _change(manifest, generator)
            text = json.dumps(manifest).encode("utf-8", "backslashreplace")
            longer = len(text) - (end - begin)
            data = data[:begin] + text + data[end:]
            header["manifest"] |= {"shape": [len(text)], "data_offsets": [begin, begin + len(text)]}
            for name, entry in header.items():
                if name not in ("__metadata__", "manifest") and entry["data_offsets"][0] >= end:
                    entry["data_offsets"] = [place + longer for place in entry["data_offsets"]]
        text = json.dumps(header).encode("utf-8", "backslashreplace")
        return len(text).to_bytes(8, "little") + text + data
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # changed before, and no longer a bundle
        return _bytes(content, generator)


def _change(tree: Any, generator: random.Random) -> None:
    """Replace, drop or repeat one entry, somewhere."""
    while True:
        keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = generator.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and generator.random() < 0.85:
            tree = tree[key]
            continue
        kind = generator.random()
        if kind < 0.1 and isinstance(tree, dict):
            del tree[key]
        elif kind < 0.2 and isinstance(tree, list):
            tree.append(tree[key])
        elif kind < 0.5 and type(tree[key]) in (int, float):
            tree[key] += generator.choice((-1, 1, 8, 1000))
        else:
            tree[key] = generator.choice(ODD)
        return


if __name__ == "__main__":
    main()
