"""Recipes: all that defines a run, in one TOML file. Unknown keys, wrong types and values out of range are errors."""

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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

Blocks = Annotated[int, Meta(ge=1, le=256)]

Regime = Literal["prefix", "causal", "cloze"]


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


class _OneOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of the tables of a recipe that come in several kinds."""


class FullTableConfig(_OneOf, frozen=True, kw_only=True, tag="full"):
    """One vector of its own for every item."""

    first_vectors: Literal["co-occurrence", "random"] = "co-occurrence"
    """What training begins with: vectors in which items that were near in training are near (see
    models/item_tables/warm_start.py), or random ones."""


class HashedTableConfig(_OneOf, frozen=True, kw_only=True, tag="hashed"):
    """The sum of a few rows that hash functions choose (Serra and Karatzoglou 2017): items collide by chance."""

    rows: Size = 4096
    """Rows of the one table."""
    hashes: Annotated[int, Meta(ge=1, le=8)] = 2
    """Rows that an item uses."""


class ComposedTableConfig(_OneOf, frozen=True, kw_only=True, tag="composed"):
    """LSAN's base tables: an item uses one row of each, chosen by the digits of its number."""

    radices: Annotated[tuple[Radix, ...], Meta(min_length=1, max_length=16)] = (2,)
    """m_1, m_2, ...: rows of the base tables. One more table is added when they do not yet give V distinct codes."""
    digits_of: Literal["co-occurrence", "index"] = "co-occurrence"
    """What item codes are the digits of: numbers that let a rare item share rows with a popular one that it was often
    near to in training, or the catalogue index (order of first appearance in the log). See models/numbering.py."""


class CodedTableConfig(_OneOf, frozen=True, kw_only=True, tag="coded"):
    """Learnt codes: rows of small tables, which are found from vectors of the items (models/item_tables/coded.py)."""

    codes: Literal["product", "additive", "quantiles", "random"] = "product"
    """How items get their first codes (models/item_tables/codes.py). additive: vectors are sums of rows as wide as they
    are; the others: rows are parts of vectors, side by side."""
    tables: Annotated[int, Meta(ge=1, le=64)] = 16
    """N: codes of an item. Divides the width, but for additive codes."""
    rows: Literal[16, 64, 256] = 256
    """K: rows of a table. A code takes 4, 6 or 8 bits."""
    paired: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the items, the least popular ones, that have K pairs of rows to choose from in every two tables, so that
    two of their codes take the room of one in an exported file. For product codes and an even number of tables."""

    def __post_init__(self) -> None:
        if self.paired and (self.codes != "product" or self.tables % 2):
            raise ValueError("paired is for product codes and an even number of tables")


TableConfig = FullTableConfig | HashedTableConfig | ComposedTableConfig | CodedTableConfig


class TwinAttentionConfig(_OneOf, frozen=True, kw_only=True, tag="twin-attention"):
    """LSAN's encoder (Li et al. 2021): convolution heads beside self-attention heads."""

    heads: Size = 2
    """H: heads of each branch; must divide the width."""
    blocks: Blocks = 1
    """Twin-attention blocks."""
    window: Size = 5
    """L: positions under the convolution; odd in the prefix regime, where it is centred."""
    residual: bool = True
    """Residual connection and LayerNorm around each block (not stated in the paper)."""


class TwinTransformerConfig(_OneOf, frozen=True, kw_only=True, tag="twin-transformer"):
    """Twin attention inside transformer blocks: the encoder of the preset `lsan`."""

    heads: Size = 2
    """Attention heads; must divide the width."""
    blocks: Blocks = 2
    """Blocks of twin attention and feed-forward layer."""
    window: Size = 5
    """L: positions under the convolution; odd in the prefix regime, where it is centred."""
    feed_forward: Annotated[int, Meta(ge=1, le=16)] = 4
    """Inner width of the feed-forward layer over the model's width."""


class SasRecConfig(_OneOf, frozen=True, kw_only=True, tag="sasrec"):
    """SASRec (Kang and McAuley 2018): causal self-attention in either regime."""

    heads: Size = 1
    """Attention heads; must divide the width."""
    blocks: Blocks = 2
    """Blocks of attention and feed-forward layer."""
    norm: Literal["pre", "post"] = "pre"
    """LayerNorm before each layer (the paper), or after its residual connection and on the embeddings."""
    feed_forward: Annotated[int, Meta(ge=1, le=16)] = 1
    """Inner width of the feed-forward layer over the model's width (1 in the paper)."""


class Bert4RecConfig(_OneOf, frozen=True, kw_only=True, tag="bert4rec"):
    """BERT4Rec (Sun et al. 2019): bidirectional self-attention, trained to fill in masked items."""

    heads: Size = 2
    """Attention heads; must divide the width."""
    blocks: Blocks = 2
    """Transformer blocks."""
    mask_share: Share = 0.2
    """Share of a history's items that are masked in training."""


class Gru4RecConfig(_OneOf, frozen=True, kw_only=True, tag="gru4rec"):
    """GRU4Rec (Hidasi et al. 2016)."""

    layers: Annotated[int, Meta(ge=1, le=8)] = 1
    """Stacked recurrent layers."""


class CaserConfig(_OneOf, frozen=True, kw_only=True, tag="caser"):
    """Caser (Tang and Wang 2018): convolutions over the latest events as an image, and a vector for each user."""

    order: Annotated[int, Meta(ge=1, le=64)] = 5
    """L: the latest events that are read."""
    horizontal: Size = 16
    """Horizontal filters of each height 1..L."""
    vertical: Size = 4
    """Vertical filters."""


class FpmcConfig(_OneOf, frozen=True, kw_only=True, tag="fpmc"):
    """FPMC (Rendle et al. 2010): user factors beside factors of the last item."""


class LightSansConfig(_OneOf, frozen=True, kw_only=True, tag="lightsans"):
    """LightSANs (Fan et al. 2021): low-rank self-attention over latent interests."""

    heads: Size = 2
    """Attention heads; must divide the width."""
    blocks: Blocks = 2
    """Blocks of attention and feed-forward layer."""
    interests: Size = 15
    """k: latent interests that the history is projected to."""


class BsaRecConfig(_OneOf, frozen=True, kw_only=True, tag="bsarec"):
    """BSARec (Shin et al. 2024): causal self-attention mixed with a frequency filter."""

    heads: Size = 1
    """Attention heads; must divide the width."""
    blocks: Blocks = 2
    """Blocks of mixed attention and feed-forward layer."""
    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.7
    """Share of the frequency filter; the rest is self-attention."""
    cutoff: Count = 5
    """c: the lowest c // 2 + 1 frequencies of the window are passed, the others are rescaled."""


EncoderConfig = (
    TwinAttentionConfig
    | TwinTransformerConfig
    | SasRecConfig
    | Bert4RecConfig
    | Gru4RecConfig
    | CaserConfig
    | FpmcConfig
    | LightSansConfig
    | BsaRecConfig
)


class ContextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LSAN's temporal context: categories of the event and of the one before, and the hour. It weighs the rows of a
    composed table, and is fused with the item's vector."""

    residual: bool = True
    """Residual connection and LayerNorm around the MLP that fuses item and context (not stated in the paper)."""


class TimeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time signals, for data whose times are exact. A model with them knows more than one without: the time at which
    the recommendation is asked for."""

    gaps: bool = True
    """Time since the event before and until the event after (for the last event: until the query)."""
    calendar: bool = True
    """Hour of the day and day of the week of the event after, in UTC."""

    def __post_init__(self) -> None:
        if not self.gaps and not self.calendar:
            raise ValueError("gaps and calendar are both off: leave the table out instead")


class QuantisationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers of few bits in the file; training sees them rounded already (models/quantisation.py)."""

    weights: Literal[4, 8] = 8
    """Bits of the encoder's matrices."""
    table: Literal[4, 8, 16] = 8
    """Bits of the numbers of the item table; 16: floats, which training does not see rounded."""
    bias: Literal[4, 8, 16] = 8
    """Bits of the items' biases, likewise."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network: an item table and an encoder; every pair works. docs/model.md has the equations."""

    regime: Regime = "causal"
    """causal: every position of a history has a target. prefix: every prefix is an example with one target. cloze:
    masked items are the targets."""
    history: Size = 50
    """T: at most this many latest events are read."""
    width: Size = 64
    """D."""
    item_width: Size | None = None
    """Numbers of an item's vector where they are fewer than D, for full and coded tables: one matrix of so many rows
    widens vectors that are read, and narrows those that items are scored with (Lan et al. 2020, "ALBERT")."""
    dropout: Probability = 0.5
    """On the encoder's input and its layers' outputs."""
    table: TableConfig = FullTableConfig()
    """Table [model.table]: `kind` is full, hashed, composed or coded."""
    encoder: EncoderConfig = SasRecConfig()
    """Table [model.encoder]: `kind` is the name of an encoder."""
    context: ContextConfig | None = None
    """Table [model.context]: read categories and hours as LSAN does."""
    time: TimeConfig | None = None
    """Table [model.time]: read gaps, hours and weekdays."""
    quantisation: QuantisationConfig | None = None
    """Table [model.quantisation]: write numbers of 4 or 8 bits instead of 32."""
    untied_output: bool = False
    """Rank with a separate table of V x D numbers instead of the item table."""

    def __post_init__(self) -> None:
        encoder = self.encoder
        if self.width % getattr(encoder, "heads", 1):
            raise ValueError(f"width {self.width} is not a multiple of heads {getattr(encoder, 'heads', 1)}")
        if self.regime not in REGIMES[type(encoder)]:
            raise ValueError(f'this encoder trains in regime "{REGIMES[type(encoder)][0]}", not "{self.regime}"')
        if (
            isinstance(encoder, TwinAttentionConfig | TwinTransformerConfig)
            and self.regime == "prefix"
            and encoder.window % 2 == 0
        ):
            raise ValueError(f"window {encoder.window} must be odd in the prefix regime, where it is centred")
        if isinstance(encoder, FpmcConfig | CaserConfig) and not self.untied_output:
            raise ValueError("this encoder ranks with vectors of twice the width: set untied_output = true")
        table = self.table
        if self.item_width is not None:
            if self.item_width >= self.width:
                raise ValueError(f"item_width {self.item_width} is not less than width {self.width}: leave it out")
            if not isinstance(table, FullTableConfig | CodedTableConfig) or self.context or self.untied_output:
                raise ValueError("item_width is for full and coded tables without context and untied_output")
        if isinstance(table, CodedTableConfig) and table.codes != "additive" and self.vector_width % table.tables:
            name = "width" if self.item_width is None else "item_width"
            raise ValueError(f"{name} {self.vector_width} is not a multiple of tables {table.tables}")

    @property
    def vector_width(self) -> int:
        """Numbers of an item's vector in the item table."""
        return self.width if self.item_width is None else self.item_width


#: Regimes in which an encoder can be trained, its usual one first.
REGIMES: dict[type, tuple[Regime, ...]] = {
    TwinAttentionConfig: ("prefix", "causal"),
    TwinTransformerConfig: ("prefix", "causal"),
    SasRecConfig: ("causal", "prefix"),
    Bert4RecConfig: ("cloze",),
    Gru4RecConfig: ("causal", "prefix"),
    CaserConfig: ("causal", "prefix"),
    FpmcConfig: ("causal", "prefix"),
    LightSansConfig: ("prefix",),
    BsaRecConfig: ("prefix",),
}


class CrossEntropyConfig(_OneOf, frozen=True, kw_only=True, tag="cross-entropy"):
    """Cross-entropy over the whole catalogue, exact."""

    label_smoothing: Probability = 0.0
    """Share of the target that is spread over all items alike."""
    temperature: Positive = 1.0
    """Scores are divided by it."""


class SampledSoftmaxConfig(_OneOf, frozen=True, kw_only=True, tag="sampled-softmax"):
    """Cross-entropy over the target and negatives that the batch shares, with log-Q correction."""

    negatives: Count = 4096
    """Negatives a batch."""


class GbceConfig(_OneOf, frozen=True, kw_only=True, tag="gbce"):
    """Generalised binary cross-entropy (Petrov and Macdonald 2023), negatives shared by the batch."""

    negatives: Count = 256
    """Negatives a batch."""
    calibration: Annotated[float, Meta(ge=0, le=1)] = 0.75
    """t of the paper: 0 is plain binary cross-entropy, 1 fully calibrated."""


class BinaryCrossEntropyConfig(_OneOf, frozen=True, kw_only=True, tag="bce"):
    """Binary cross-entropy with negatives of each position's own, as in SASRec and Caser."""

    negatives: Annotated[int, Meta(ge=1, le=1024)] = 1
    """Uniform negatives a position."""


class BprConfig(_OneOf, frozen=True, kw_only=True, tag="bpr"):
    """Bayesian personalised ranking, as in FPMC and GRU4Rec."""

    negatives: Annotated[int, Meta(ge=1, le=1024)] = 1
    """Uniform negatives a position."""


LossConfig = CrossEntropyConfig | SampledSoftmaxConfig | GbceConfig | BinaryCrossEntropyConfig | BprConfig


class DistillationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from a teacher beside the data (Hinton et al. 2015): what `lsan compress` trains with.

    With more of what came next a student learns its training events by heart, a wide one soon; with more of the
    teacher's items it was worse on Sports and level on Beauty (docs/log.md)."""

    weight: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """Share of the teacher's word in the target; the rest is the item that came next."""
    top: Annotated[int, Meta(ge=1, le=1024)] = 24
    """The teacher's most probable items that are kept, of each target."""


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optimisation."""

    loss: LossConfig = CrossEntropyConfig()
    """Table [training.loss]: `kind` is cross-entropy, sampled-softmax, gbce, bce or bpr."""
    distillation: DistillationConfig | None = None
    """Table [training.distillation]."""
    r_drop: NonNegative = 0.0
    """Weight of R-Drop (Liang et al. 2021): every example is computed under two dropout masks, and how far the two
    softmaxes are apart is added to the loss. 0: once, without."""
    batch_size: Size = 64
    """Examples a step: histories in the causal and cloze regimes, prefixes in the prefix one."""
    learning_rate: Positive = 1e-3
    """AdamW's step size."""
    decay: Literal["none", "linear"] = "none"
    """linear: the step size falls from `learning_rate` to 0 over all `epochs`, so these should be few."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    averaging: Probability = 0.998
    """The weights that are validated and kept are an exponential average of the trained ones with this decay a step
    (smaller at first, see training/loop.py); 0 keeps the trained ones."""
    epochs: Count = 200
    """At most this many passes over the training examples."""
    patience: Count = 10
    """Stop after this many epochs without a better validation nDCG@10."""
    validation_cases: Count | None = None
    """At most this many validation cases are ranked after an epoch, the same ones each time, spread evenly over all;
    all of them if not given. For large catalogues with many users."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products in training, those of the encoder and of full cross-entropy and sampled softmax; sums,
    weights and moments stay float32. auto: bfloat16 where the processor multiplies it faster."""


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

    def __post_init__(self) -> None:
        loss, plain = self.training.loss, self.model.regime != "cloze"
        plain &= isinstance(loss, CrossEntropyConfig) and loss.temperature == 1
        for setting, asked in (("distillation", self.training.distillation), ("r_drop", self.training.r_drop)):
            if asked and not plain:
                raise ValueError(
                    f"{setting} needs the loss cross-entropy at temperature 1, and regime prefix or causal"
                )
        if self.training.distillation and isinstance(loss, CrossEntropyConfig) and loss.label_smoothing:
            raise ValueError("distillation smooths labels by itself: leave label_smoothing out")
        if self.training.r_drop and not self.model.dropout:
            raise ValueError("r_drop compares two dropout masks: it needs model.dropout")

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe with another seed.

        Raises:
            ConfigError: when the seed is not in 0 .. 2**32 - 1.
        """
        return recipe_from({**recipe_to(self), "seed": seed}, where="seed")


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
        raise ConfigError(f"{where}: {error}{_known_kinds(str(error))}") from error


def _known_kinds(message: str) -> str:
    """What to add to msgspec's message about a `kind` that is unknown, of a wrong type, or missing."""
    for table, kinds in (("model.table", TableConfig), ("model.encoder", EncoderConfig), ("training.loss", LossConfig)):
        if message.endswith((f"at `$.{table}.kind`", f"missing required field `kind` - at `$.{table}`")):
            return f"; there are {', '.join(str(kind.__struct_config__.tag) for kind in get_args(kinds))}"
    return ""


def recipe_to(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table of plain values, which `recipe_from` turns back."""
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    return table
