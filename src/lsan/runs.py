"""The run folder: a trained model with all that is needed to use it, in safetensors and JSON, nothing pickled.

run.json            format, version, recipe, what it was trained on, how far training is
catalogue.json      id, title and category of the items 1..V
model.safetensors   the best weights so far
metrics.jsonl       one line an epoch
checkpoint.safetensors  only while training is unfinished
"""

import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lsan.config import Recipe, recipe_from, recipe_to
from lsan.data.catalogue import Catalogue
from lsan.data.dataset import is_dataset
from lsan.errors import DataError
from lsan.files import write_atomically
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.composed import ComposedTable
from lsan.models.network import Network
from lsan.models.packing import pack, settled_state, unpack

FORMAT = "lsan-run"
VERSION = 3

CATALOGUE = "catalogue.json"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"

#: What run.json must hold beside the recipe, and of which type.
_ENTRIES: dict[tuple[str, ...], type] = {
    ("recipe",): dict,
    ("timed",): bool,
    **{("dataset", name): str for name in ("name", "path", "content_hash")},
    **{("dataset", name): int for name in ("users", "items", "events")},
    ("progress", "finished"): bool,
}


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """What run.json holds."""

    recipe: Recipe
    """How the model was trained."""
    timed: bool
    """Whether the model reads times of day: the training data had some."""
    dataset: dict[str, Any]
    """name, path and content_hash of the dataset, and its counts of users, items and events."""
    progress: dict[str, Any]
    """finished (bool), and once it is: epochs, best_epoch, validation nDCG@10, seconds."""

    def write(self, folder: Path) -> None:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "lsan": version("lsan"),
            "torch": torch.__version__,
            "recipe": recipe_to(self.recipe),
            "timed": self.timed,
            "dataset": self.dataset,
            "progress": self.progress,
        }
        write_atomically(folder / "run.json", _json(content))

    @classmethod
    def read(cls, folder: Path) -> "RunHeader":
        """Read run.json.

        Raises:
            DataError: when the folder is not a run, or is of another version.
            ConfigError: when its recipe is not valid.
        """
        path = Path(folder) / "run.json"
        content = _read_json(path, advice="a run folder is what `lsan train` writes")
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f'{path}: expected "format": "{FORMAT}"; a run folder is what `lsan train` writes')
        if content.get("version") != VERSION:
            raise DataError(f"{path}: version {content.get('version')}, this lsan reads version {VERSION}")
        for names, kind in _ENTRIES.items():
            entry: Any = content
            for name in names:
                entry = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(entry, kind):
                raise DataError(f"{path}: entry {'.'.join(names)!r} is missing or is not {kind.__name__}")
            if isinstance(entry, int) and not 0 <= entry < 2**63:
                raise DataError(f"{path}: entry {'.'.join(names)!r} is {entry}, which is no count")
        return cls(
            recipe=recipe_from(content["recipe"], where=f"{path}: recipe"),
            timed=content["timed"],
            dataset=content["dataset"],
            progress=content["progress"],
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A loaded run."""

    header: RunHeader
    """What run.json says."""
    catalogue: Catalogue
    """The items."""
    network: Network
    """In evaluation mode, with the best weights."""


def new_network(
    recipe: Recipe, catalogue: Catalogue, popularity: torch.Tensor, numbers: torch.Tensor, users: int
) -> Network:
    """An untrained network for this catalogue; `Network` explains the arguments. With a temporal split, as in
    evaluation, an item that training never met is unknown."""
    network = Network(recipe.model, torch.from_numpy(catalogue.category_of_item.copy()), popularity, numbers, users)
    if recipe.split.method == "temporal":
        network.offered.copy_(network.popularity > 0)
    return network


def write_catalogue(folder: Path, catalogue: Catalogue) -> None:
    write_atomically(folder / CATALOGUE, _json(catalogue.to_json()))


def write_model(folder: Path, network: Network) -> None:
    """Write the weights and what else the network needs: popularity, categories, the numbers behind the codes."""
    state = settled_state(network)
    write_atomically(
        folder / MODEL, save(state if network.config.quantisation is None else pack(state, network.config))
    )


def write_run(folder: Path, run: Run) -> None:
    """Write all that `load_run` needs into an existing folder."""
    write_catalogue(folder, run.catalogue)
    write_model(folder, run.network)
    run.header.write(folder)


def load_finished(folder: Path, *, device: torch.device) -> Run:
    """`load_run` of one that is trained to its end: what is made of it would not fit what it becomes.

    Raises:
        DataError: when it is not, or cannot be loaded.
    """
    run = load_run(folder, device=device)
    if not run.header.progress["finished"]:
        raise DataError(f"{folder} is not finished: go on with `lsan train --resume {folder}`")
    return run


def refuse_folder_of_others(folder: Path) -> None:
    """Raise `DataError` when the folder is a dataset or a run: nothing else is written into it."""
    for kind, found in (("a dataset", is_dataset(folder)), ("a run", (folder / "run.json").exists())):
        if found:
            raise DataError(f"{folder} is {kind}: name another folder to write to")


def load_run(folder: Path, *, device: torch.device) -> Run:
    """Load a run; needs nothing of the data it was trained on.

    Raises:
        DataError: when a file is missing, damaged, or the parts do not fit together.
    """
    folder = Path(folder)
    header = RunHeader.read(folder)
    path = folder / CATALOGUE
    catalogue = Catalogue.from_json(_read_json(path, advice="train again"), where=str(path))
    if len(catalogue) == 0:
        raise DataError(f"{path}: no items")
    path = folder / MODEL
    if not path.exists() and not header.progress.get("finished"):
        raise DataError(
            f"{folder} has no model yet, its training stopped in the first epoch: "
            f"go on with `lsan train --resume {folder}`"
        )
    absent = torch.zeros(len(catalogue), dtype=torch.int64)
    try:
        tensors = _state(load(path.read_bytes()), header, catalogue)
        numbers = tensors.get("table.numbers", absent).long()
        network = new_network(header.recipe, catalogue, absent, numbers, header.dataset["users"])
        network.load_state_dict(tensors)
        _check_values(network)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (SafetensorError, RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: damaged, or not this run's model ({reason})") from error
    return Run(header=header, catalogue=catalogue, network=network.to(device).eval())


def _state(tensors: dict[str, torch.Tensor], header: RunHeader, catalogue: Catalogue) -> dict[str, torch.Tensor]:
    """The network's state from what the file holds. Raises `ValueError` when recipe and catalogue ask for another
    network than the file has, before anything of its size is made."""
    with torch.device("meta"):
        absent = torch.zeros(len(catalogue), dtype=torch.int64)
        network = new_network(header.recipe, catalogue, absent, absent, header.dataset["users"])
    return unpack(tensors, network.state_dict(), header.recipe.model)


def _check_values(network: Network) -> None:
    """Raise `ValueError` when tensors of the right shapes hold what no training writes."""
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    if network.popularity.min() < 0:
        raise ValueError("popularity is negative")
    if network.context is not None:
        categories = network.context.category_of_item
        if categories.min() < 0 or categories.max() >= len(network.context.category):
            raise ValueError("context.category_of_item names a category that does not exist")
    if isinstance(network.table, ComposedTable):
        numbers, codes = network.table.numbers.long(), min(math.prod(network.table.radices), 2**62)
        if numbers.min() < 0 or numbers.max() > codes:  # the numbers may be 1..V, and V have the code of 0
            raise ValueError("table.numbers is out of range")
        if len((numbers % codes).unique()) != len(numbers):
            raise ValueError("table.numbers gives two items the same code")
    if isinstance(network.table, CodedTable) and int(network.table.codes.max()) >= network.table.rows:
        raise ValueError("table.codes names a row that does not exist")


def _json(content: Any) -> bytes:
    # A path that is not UTF-8 holds lone surrogates; backslashreplace writes them as JSON escapes.
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _read_json(path: Path, *, advice: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); {advice}") from error
