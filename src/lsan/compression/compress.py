"""The steps of compression: ask the teachers, train a narrower student, give its items codes, train on with codes and
numbers of few bits."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lsan.config import CodedTableConfig, DistillationConfig, Recipe, Regime, recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.data.windows import HistoryReader
from lsan.errors import ConfigError, DataError
from lsan.experiment import Observer, history_reader, make_split, resume_run, start_run
from lsan.files import new_folder, write_atomically
from lsan.models.events import training_popularity
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.codes import make_codes
from lsan.models.item_tables.full import FullTable
from lsan.models.item_tables.warm_start import DEVIATION
from lsan.models.network import Network
from lsan.runs import CHECKPOINT, Run, RunHeader, load_run, new_network
from lsan.training.batches import Examples, hidden_at_targets, read_batch, training_examples
from lsan.training.distillation import Teaching, teach
from lsan.training.loop import stream

#: Hidden vectors that say which errors of item vectors matter: so many for estimates, and so many for codes.
_FEW, _MANY = 2048, 16384

#: Of a student: epochs, and dropout as a share of its teacher's.
_EPOCHS, _DROPOUT = 24, 0.3

#: Epochs with codes that were made to keep the student's vectors.
_CODED_EPOCHS = 12

#: Epochs, and the step size as a share of that before, where nothing is coded: what a student knows is not to be
#: unsettled, and rounding leaves little to learn anew.
_ROUNDED_EPOCHS, _SLOWER = 4, 0.07


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a compressed model is made of."""

    width: int
    """D of the student."""
    codes: Literal["product", "additive", "quantiles", "random", "none"] = "product"
    """Kind of its codes; none: items keep vectors of their own."""
    tables: int = 0
    """N, of codes."""
    rows: int = 256
    """K, of codes."""
    paired: float = 0.0
    """Share of the items, the least popular ones, whose codes come in pairs."""
    blocks: int | None = None
    """Of the student's encoder, whose feed-forward layers are then no wider than the model, which loses nothing
    (docs/log.md); None: as the teacher's."""
    table_bits: int = 8
    """Bits of the numbers of the item table, where `weights` has some."""
    weights: int | None = 4
    """Bits of the encoder's weights and of the items' biases; None: all numbers are floats of 32 bits."""

    @property
    def name(self) -> str:
        """Such as d64-product-16x256-int4, d32-full-int8-int4 or d64-b1-product-32x256-paired80-int4: width, blocks,
        item table, weights."""
        kind = f"{self.codes}-{self.tables}x{self.rows}"
        if self.codes == "none":
            kind = "full" if self.weights is None else f"full-int{self.table_bits}"
        kind += f"-rows-int{self.table_bits}" if self.codes != "none" and self.table_bits != 8 else ""
        kind += f"-paired{100 * self.paired:.0f}" if self.paired else ""
        return f"d{self.shape}-{kind}" + ("" if self.weights is None else f"-int{self.weights}")

    @property
    def shape(self) -> str:
        """Of the student, such as 64, or 64-b1 for one block."""
        return f"{self.width}" + ("" if self.blocks is None else f"-b{self.blocks}")

    def recipe(self, teacher: Recipe) -> Recipe:
        """How the student is trained on in its final form: ever more slowly, at first as fast as before where items
        have codes, and as long as before with codes that were not made to keep its item vectors."""
        content = recipe_to(self.student(teacher))
        if self.codes != "none":
            content["model"]["table"] = {
                "kind": "coded", "codes": self.codes, "tables": self.tables, "rows": self.rows, "paired": self.paired
            }  # fmt: skip
        if self.weights is not None:
            content["model"]["quantisation"] |= {"table": self.table_bits, "bias": self.weights}
        if self.codes == "none":
            rate = _SLOWER * teacher.training.learning_rate
            content["training"] |= {"learning_rate": rate, "epochs": _ROUNDED_EPOCHS, "patience": _ROUNDED_EPOCHS}
        elif self.codes not in ("random", "quantiles"):
            content["training"] |= {"epochs": _CODED_EPOCHS, "patience": _CODED_EPOCHS}
        return recipe_from(content, where=self.name)

    def student(self, teacher: Recipe) -> Recipe:
        """How the student is trained before it has codes: as its teacher, narrower, learning from the teacher for the
        most part, whose word is smoother than the data, so with little dropout and no R-Drop; the encoder's weights are
        rounded already."""
        content: dict[str, Any] = recipe_to(teacher)
        content["model"] |= {
            "width": self.width, "item_width": None, "dropout": _DROPOUT * teacher.model.dropout,
            "table": {"kind": "full"},
            "quantisation": None if self.weights is None else {"weights": self.weights, "table": 16, "bias": 16},
        }  # fmt: skip
        if self.blocks is not None:
            encoder = content["model"]["encoder"]
            encoder |= {"blocks": self.blocks} | ({"feed_forward": 1} if "feed_forward" in encoder else {})
        content["training"] |= {
            "loss": {"kind": "cross-entropy"}, "distillation": {}, "r_drop": 0.0,
            "epochs": _EPOCHS, "patience": _EPOCHS, "decay": "linear",
        }  # fmt: skip
        return recipe_from(content, where=f"student of width {self.width}")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Teachers with their data, and the folder in which they are compressed. Everything in it that is finished is used
    as it is, so that an interrupted compression goes on."""

    teachers: Sequence[Run]
    """One run, or several on the same data, which teach together. Students are shaped after the first."""
    dataset: Dataset
    """What they were trained on."""
    folder: Path
    """Holds `teaching/`, `student-SHAPE-intBITS/`, and a run folder for each plan."""
    device: torch.device
    observer: Observer

    def __post_init__(self) -> None:
        """Raises:
        ConfigError: when the teachers do not go together, or have no item vectors that could be coded.
        """
        first, items = self.teachers[0], len(self.dataset.catalogue)
        _item_vectors(first.network)
        for other in self.teachers:
            for name, one, same in (
                ("data", other.header.dataset["content_hash"], first.header.dataset["content_hash"]),
                ("split", other.header.recipe.split, first.header.recipe.split),
                ("regime", other.header.recipe.model.regime, first.header.recipe.model.regime),
                ("history", other.header.recipe.model.history, first.header.recipe.model.history),
            ):
                if one != same:
                    raise ConfigError(f"runs that teach together need the same {name}: {one} is not {same}")
            if len(other.catalogue) != items:
                raise ConfigError(
                    f"a run has {len(other.catalogue):,} items, its dataset {items:,}: compress it as it was before "
                    "items were added"
                )

    @property
    def recipe(self) -> Recipe:
        """The (first) teacher's."""
        return self.teachers[0].header.recipe

    def run(self, plan: Plan) -> Path:
        """The compressed run of a plan, trained if it is not there.

        Raises:
            ConfigError: when the plan does not go with the data.
        """
        recipe = plan.recipe(self.recipe)
        return self.train(recipe, self.folder / plan.name, lambda: self._final(plan, recipe), goes_on=True)

    def student(self, plan: Plan) -> Path:
        """The student of that shape, trained if it is not there."""
        recipe = plan.student(self.recipe)
        bits = "" if plan.weights is None else f"-int{plan.weights}"
        return self.train(recipe, self.folder / f"student-{plan.shape}{bits}", lambda: self._narrow(recipe))

    def train(
        self, recipe: Recipe, folder: Path, begin: Callable[[], Network] | None = None, *, goes_on: bool = False
    ) -> Path:
        """A run that learns from the teachers, trained if it is not there, from what `begin` gives or else from first
        weights; `goes_on` as for `start_run`.

        Raises:
            DataError: when what is there was trained by another recipe, or learnt from other runs.
        """
        common: dict[str, Any] = {"device": self.device, "observer": self.observer}
        self._check_teaching(recipe)
        if folder.exists() and RunHeader.read(folder).recipe != recipe:
            raise DataError(f"{folder} was trained by another recipe: delete it, or choose another folder")
        if folder.exists() and not (folder / CHECKPOINT).exists() and not RunHeader.read(folder).progress["finished"]:
            shutil.rmtree(folder)  # stopped before it had begun
        if not folder.exists():
            network = None if begin is None else begin()
            teaching = self.teaching(recipe)
            start_run(self.dataset, recipe, folder, network=network, goes_on=goes_on, teaching=teaching, **common)
        elif not RunHeader.read(folder).progress["finished"]:
            resume_run(folder, self.dataset, teaching=self.teaching(recipe), **common)
        return folder

    def popularity(self) -> Tensor:
        """Training events of the items 1..V. Shape [items]."""
        return training_popularity(self.dataset, make_split(self.dataset, self.recipe.split))

    def scoring(self) -> tuple[Tensor, Tensor]:
        """The (first) teacher's item vectors [items, width], and hidden vectors that it scores them with, a sample."""
        return _item_vectors(self.teachers[0].network), self._hidden(self.teachers[0].network, _FEW)

    def teaching(self, recipe: Recipe) -> Teaching:
        """What the teachers say of every training target: as many items as the recipe asks for.

        Raises:
            DataError: when the folder has what others said, or the same ones asked for more or fewer items.
        """
        self._check_teaching(recipe)
        folder = self.folder / "teaching"
        if not folder.exists():
            examples, reader, regime = self._examples()
            networks = [
                (teacher.network, getattr(teacher.header.recipe.training.loss, "temperature", 1.0))
                for teacher in self.teachers
            ]
            with new_folder(folder) as temporary:
                teach(
                    networks, self.dataset, examples, reader, regime, _top(recipe), temporary,
                    device=self.device, progress=self.observer.teaching,
                )  # fmt: skip
                write_atomically(temporary / "teachers.json", self._asked(recipe).encode())
        return Teaching.open(folder)

    def _check_teaching(self, recipe: Recipe) -> None:
        kept = self.folder / "teaching" / "teachers.json"
        if kept.exists() and kept.read_text() != self._asked(recipe):
            raise DataError(
                f"{self.folder} is a compression of other runs, or by another version of lsan: choose another folder"
            )

    def _asked(self, recipe: Recipe) -> str:
        """Who says what in `teaching/`."""
        return json.dumps({"runs": [_fingerprint(run.network) for run in self.teachers], "top": _top(recipe)})

    def _narrow(self, recipe: Recipe) -> Network:
        """An untrained student whose item vectors are the teacher's in as many principal components, turned at random:
        Adam goes equally fast in all coordinates."""
        network, teacher = self._new(recipe), self.teachers[0].network
        vectors = _item_vectors(teacher)
        if isinstance(teacher.table, FullTable) and teacher.table.turn is not None:
            vectors = vectors @ teacher.table.turn.detach().cpu()
        left, values, _ = torch.linalg.svd(vectors, full_matrices=False)
        wanted = recipe.model.width
        if wanted > (widest := _item_vectors(teacher).shape[1]):
            raise ConfigError(f"a student of width {wanted} is wider than its teacher's item vectors, {widest}")
        if wanted > len(vectors):
            raise ConfigError(f"a student of width {wanted} needs at least as many items, and there are {len(vectors)}")
        turn, _ = torch.linalg.qr(torch.randn(wanted, wanted))
        narrow = (left * values)[:, :wanted] @ turn
        with torch.no_grad():
            network.table.weight.copy_(narrow * (DEVIATION / narrow.std()))
            if isinstance(network.table, FullTable) and isinstance(teacher.table, FullTable):
                network.table.bias.copy_(teacher.table.bias)
        return network

    def _final(self, plan: Plan, recipe: Recipe) -> Network:
        """The student, its item vectors replaced by codes of them where the plan has codes."""
        student = load_run(self.student(plan), device=torch.device("cpu")).network
        network, table = self._new(recipe), recipe.model.table
        if plan.codes == "none":
            network.load_state_dict(student.state_dict())
            return network
        assert isinstance(network.table, CodedTable)
        assert isinstance(table, CodedTableConfig)
        weights = (network.popularity + 1.0) ** 0.5
        try:
            codes = make_codes(
                _item_vectors(student), table, stream(recipe.seed, "codes"),
                hidden=self._hidden(student, _MANY), bias=student.table.output().bias.detach(), weights=weights,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(f"{plan.name}: {error}") from error
        state = {name: tensor for name, tensor in student.state_dict().items() if not name.startswith("table.")}
        network.load_state_dict(state, strict=False)
        network.table.start(codes)
        with torch.no_grad():
            network.table.bias.copy_(student.table.output().bias)
        return network

    def _new(self, recipe: Recipe) -> Network:
        split = make_split(self.dataset, recipe.split)
        popularity = training_popularity(self.dataset, split)
        torch.manual_seed(stream(recipe.seed, "weights"))
        numbers = torch.zeros(len(popularity), dtype=torch.int64)
        network = new_network(recipe, self.dataset.catalogue, popularity, numbers, self.dataset.users)
        network.offered.copy_(self.teachers[0].network.offered)
        return network

    def _examples(self) -> tuple[Examples, HistoryReader, Regime]:
        """What students are trained on, in the teachers' regime."""
        recipe = self.recipe
        split = make_split(self.dataset, recipe.split)
        examples = training_examples(split, recipe.model.regime, recipe.model.history)
        return examples, history_reader(self.dataset, split, self.teachers[0].header), recipe.model.regime

    def _hidden(self, network: Network, count: int) -> Tensor:
        """About `count` hidden vectors at targets, spread evenly over a sample of the training examples."""
        examples, reader, regime = self._examples()
        random = np.random.default_rng(stream(self.recipe.seed, "hidden"))
        chosen = random.permutation(len(examples))[:count]
        device, found = next(network.parameters()).device, []
        for batch in np.array_split(chosen, -(-len(chosen) // 256)):
            histories, targets = read_batch(reader, self.dataset.items, examples, batch, regime)
            with torch.inference_mode():
                hidden = hidden_at_targets(network, histories.to(device), targets.to(device)).float().cpu()
            found.append(hidden[random.permutation(len(hidden))[: len(batch) * -(-count // len(chosen))]])
        return torch.cat(found)


def _item_vectors(network: Network) -> Tensor:
    """The vectors of a full table, which read and score. Shape [items, width]."""
    if not isinstance(network.table, FullTable) or network.untied is not None:
        raise ConfigError(
            "compression begins with a run whose items have vectors of their own, which score too: "
            "[model.table] full, and no untied_output"
        )
    return network.table.weight.detach().cpu()


def _top(recipe: Recipe) -> int:
    """Items that teachers speak of at each target."""
    return (recipe.training.distillation or DistillationConfig()).top


def _fingerprint(network: Network) -> str:
    """The same for the same weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
