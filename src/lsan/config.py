"""Recipes: all that defines a run, in one TOML file. Unknown keys, wrong types and values out of range are errors."""

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lsan.errors import ConfigError

Count = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=1, le=65_536)]
Radix = Annotated[int, Meta(ge=2, le=2**31 - 1)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Probability = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0, lt=1e6)]
NonNegative = Annotated[float, Meta(ge=0, lt=1e6)]

Regime = Literal["prefix", "causal"]


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are held out."""

    method: Literal["leave-one-out", "temporal"] = "leave-one-out"
    """Last and last-but-one event of each user, or a global cut-off in time."""
    validation_share: Share = 0.1
    """Temporal: the share of all events that are validation cases."""
    test_share: Share = 0.1
    """Temporal: the share of all events that are test cases."""
    validation_from: datetime | None = None
    """Temporal: the cut-off itself instead of a share, such as 2011-10-01T00:00:00Z (UTC where it names no zone)."""
    test_from: datetime | None = None
    """Temporal: the second cut-off; given with the first or not at all."""

    def __post_init__(self) -> None:
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from and test_from go together")
        if self.method != "temporal" and self.validation_from is not None:
            raise ValueError('validation_from and test_from need method = "temporal"')


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network. Sizes are the paper's (arXiv 2108.11333, section 4.1); docs/model.md says what the paper leaves
    open, and how the defaults settle it."""

    regime: Regime = "prefix"
    """prefix: the encoder looks both ways inside a history, which has one target. causal: every position has one."""
    history: Size = 50
    """T: at most this many latest events are read."""
    radices: Annotated[tuple[Radix, ...], Meta(max_length=16)] = (2,)
    """m_1, m_2, ...: rows of the base tables. One more table is added when they do not yet give V distinct codes.
    An empty list is one full table of V rows."""
    digits_of: Literal["co-occurrence", "index"] = "co-occurrence"
    """What item codes are the digits of: numbers that let a rare item share rows with a popular one that it was often
    near to in training, or the catalogue index (order of first appearance in the log). See models/numbering.py."""
    width: Size = 128
    """D."""
    heads: Size = 2
    """H: heads of each branch; must divide the width."""
    blocks: Annotated[int, Meta(ge=1, le=256)] = 1
    """Twin-attention blocks."""
    window: Size = 5
    """L: positions under the local branch's convolution; odd in the prefix regime, where it is centred."""
    dropout: Probability = 0.5
    """On the encoder's input and on each block's output (not stated in the paper)."""
    residual: bool = True
    """Residual connection and LayerNorm around the input's MLP and each block (not stated in the paper)."""
    untied_output: bool = False
    """Rank with a separate table W_o of V x D numbers, as the paper does, instead of the base tables."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.regime == "prefix" and self.window % 2 == 0:
            raise ValueError(f"window {self.window} must be odd in the prefix regime, where it is centred")


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optimisation."""

    batch_size: Size = 512
    """Examples a step: prefixes in the prefix regime, histories in the causal one."""
    learning_rate: Positive = 2e-3
    """AdamW's step size."""
    weight_decay: NonNegative = 1e-5
    """AdamW's decoupled weight decay (the paper's lambda)."""
    averaging: Probability = 0.998
    """The weights that are validated and kept are an exponential average of the trained ones with this decay a step
    (smaller at first, see training/loop.py); 0 keeps the trained ones."""
    epochs: Count = 60
    """At most this many passes over the training examples."""
    patience: Count = 3
    """Stop after this many epochs without a better validation nDCG@10."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run: what is held out, which network, how it is trained."""

    description: str = ""
    """What the recipe is for."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    """Every random number of the run follows from it."""
    exclude_seen: bool = True
    """Never recommend an item of the user's own history. Training is selected under this policy, and `recommend`
    follows it unless told otherwise; evaluation always shows both."""
    split: SplitConfig = SplitConfig()
    """Table [split]."""
    model: ModelConfig = ModelConfig()
    """Table [model]."""
    training: TrainingConfig = TrainingConfig()
    """Table [training]."""

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe with another seed.

        Raises:
            ConfigError: when the seed is not in 0 .. 2**32 - 1.
        """
        return recipe_from({**recipe_to(self), "seed": seed}, where="seed")


#: The paper's LSAN with the paper's settings, and its open points settled as docs/model.md says.
PAPER = Recipe(description="the preset `paper`")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        ConfigError: when the file cannot be read, is not TOML, or holds an unknown key or a bad value.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOML syntax, UTF-8, nesting
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return recipe_from(table, where=str(path))


def recipe_from(table: Any, *, where: str) -> Recipe:
    """Check a table of plain values (from TOML or JSON) and make it a recipe. `where` names the source in errors.

    Raises:
        ConfigError: naming the key, what it holds and what was expected.
    """
    try:
        return msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def recipe_to(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table of plain values, which `recipe_from` turns back."""
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    return table
