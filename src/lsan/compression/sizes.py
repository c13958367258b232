"""What a model's bundle costs before there is a model: bytes by part."""

from functools import cache

import msgspec
import torch

from lsan.config import CodedTableConfig, ComposedTableConfig, ModelConfig, Recipe
from lsan.data.catalogue import Catalogue
from lsan.export.bundle import make_bundle
from lsan.models.item_tables.coded import CodedTable
from lsan.models.network import Network
from lsan.models.packing import POPULAR, layout, pack, settled_state, unpack
from lsan.runs import Run, RunHeader, new_network
from lsan.runtime.file import VOCABULARY, packed_size

#: Items of the small catalogue whose bundle tells what does not grow with the items.
_FEW = 1024

#: Bytes of a table's rows and offset in the manifest.
_A_TABLE = 9

#: Bytes of what says in header and manifest that codes come in pairs.
_IN_PAIRS = 114

#: Bits of a training event count.
_COUNT_BITS = 8


def shipped_bytes(recipe: Recipe, items: int, *, categories: int = 0, all_offered: bool = True) -> dict[str, int]:
    """Bytes of each part of the bundle of such a model with so many items, all but ids, titles and categories, to
    within some hundred (digits in the header, counts of events). A bit an item says which are offered where not all
    of them are."""
    model, alike, longer = recipe.model, recipe, 0
    if isinstance(model.table, CodedTableConfig):  # but for the list of tables, the rest is the same for all of them
        few = 2 if model.vector_width % 2 == 0 else model.table.tables
        table = msgspec.structs.replace(model.table, tables=few, rows=256, paired=0.0)
        alike = msgspec.structs.replace(recipe, model=msgspec.structs.replace(model, table=table))
        longer = _A_TABLE * (model.table.tables - few) + (_IN_PAIRS if model.table.paired else 0)
    parts = _few(alike, categories) | _item_bytes(model, items, categories)
    listed = items if model.quantisation is None else min(POPULAR, items)
    parts["manifest"] += longer
    parts["popularity"] = packed_size(listed, items.bit_length()) + packed_size(listed, _COUNT_BITS)
    if not all_offered:
        parts["popularity"] += packed_size(items, 1)
    return parts


def small_run(recipe: Recipe, items: int, categories: int = 0) -> Run:
    """A run of random weights, as it would come from its folder."""
    names = [f"category {number}" for number in range(categories)]
    catalogue = Catalogue(
        ids=range(1, items + 1),
        titles=[None] * items,
        categories=[names[number % categories] if categories else None for number in range(items)],
    )
    popularity = torch.full((items,), 2**_COUNT_BITS - 1)
    network = new_network(recipe, catalogue, popularity, torch.arange(items), 1)
    with torch.no_grad():
        for parameter in network.parameters():  # nothing that happens to be short in float16
            parameter.add_(0.1 * torch.randn_like(parameter))
    if isinstance(network.table, CodedTable):
        codes, rows, generator = network.table.codes, network.table.rows, torch.Generator().manual_seed(0)
        codes.random_(0, rows, generator=generator)
        if isinstance(recipe.model.table, CodedTableConfig) and (paired := round(recipe.model.table.paired * items)):
            pairs = torch.randint(0, rows, (rows, codes.shape[1]), generator=generator).to(codes.dtype)
            chosen = torch.randint(0, rows, (paired, codes.shape[1] // 2), generator=generator).repeat_interleave(2, 1)
            codes[-paired:] = pairs.gather(0, chosen)
    if recipe.model.quantisation is not None:
        state = settled_state(network)
        network.load_state_dict(unpack(pack(state, recipe.model), state, recipe.model))
    facts = {"name": "", "path": "", "content_hash": "", "users": 1, "items": items, "events": items}
    header = RunHeader(recipe=recipe, timed=True, dataset=facts, progress={"finished": True})
    return Run(header=header, catalogue=catalogue, network=network.eval())


@cache
def _few(recipe: Recipe, categories: int) -> dict[str, int]:
    """Bytes by part of a bundle of few items."""
    parts = make_bundle(small_run(recipe, _FEW, categories)).parts
    return {part: size for part, size in parts.items() if part != VOCABULARY}


def _item_bytes(model: ModelConfig, items: int, categories: int) -> dict[str, int]:
    """Bytes of codes and item tables; allocates nothing."""
    table = model.table
    if isinstance(table, CodedTableConfig):
        alike = msgspec.structs.replace(model, table=msgspec.structs.replace(table, paired=0.0))
        count, rows, bits = table.tables, table.rows, (table.rows - 1).bit_length()
        saved = round(table.paired * items) * count // 2
        codes = packed_size(items * count - saved, bits) + (packed_size(count * rows, bits) if saved else 0)
        return {"item tables": _table_bytes(alike, items, categories), "codes": codes}
    parts = {"item tables": _table_bytes(model, items, categories)}
    if isinstance(table, ComposedTableConfig):
        parts["codes"] = packed_size(items, (items - 1).bit_length())
    return parts


@cache
def _table_bytes(model: ModelConfig, items: int, categories: int) -> int:
    """Bytes of the item tables, all but codes."""
    with torch.device("meta"):
        none = torch.zeros(items, dtype=torch.int64)
    category = torch.tensor([0, categories])  # as if of one item, since a table's size does not depend on their number
    with torch.device("meta"):
        network = Network(model, category, none, none, 1)
    held = layout(network.state_dict(), model)
    tables = [name for name in held if name.startswith(("table.", "untied"))]
    return sum(held[name].nbytes for name in tables if name not in ("table.codes", "table.numbers"))
