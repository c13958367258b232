"""Recipes: what is accepted, what is refused and how the error names the key."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsan.config import (
    REGIMES,
    Bert4RecConfig,
    BinaryCrossEntropyConfig,
    BprConfig,
    BsaRecConfig,
    CaserConfig,
    ComposedTableConfig,
    ContextConfig,
    CrossEntropyConfig,
    EncoderConfig,
    FpmcConfig,
    FullTableConfig,
    GbceConfig,
    Gru4RecConfig,
    HashedTableConfig,
    LightSansConfig,
    ModelConfig,
    Recipe,
    SampledSoftmaxConfig,
    SasRecConfig,
    SplitConfig,
    TimeConfig,
    TrainingConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
    load_recipe,
    recipe_from,
    recipe_to,
)
from lsan.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("**/*.toml"))


def test_an_empty_recipe_is_a_causal_sasrec(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    recipe = load_recipe(tmp_path / "empty.toml")
    assert recipe == Recipe()
    model = recipe.model
    assert (model.regime, model.table, model.encoder) == ("causal", FullTableConfig(), SasRecConfig())
    assert (model.context, model.time, model.untied_output) == (None, None, False)
    assert recipe.training.loss == CrossEntropyConfig()
    assert (recipe.seed, recipe.exclude_seen, recipe.split.method) == (0, True, "leave-one-out")


def test_an_empty_table_is_its_defaults() -> None:
    """`[model.context]` alone turns the context on; a kind alone has that kind's defaults."""
    table = {"model": {"context": {}, "time": {}, "encoder": {"kind": "gru4rec"}, "table": {"kind": "composed"}}}
    model = recipe_from(table, where="here").model
    assert (model.context, model.time) == (ContextConfig(), TimeConfig())
    assert (model.encoder, model.table) == (Gru4RecConfig(), ComposedTableConfig())


def test_every_published_recipe_is_valid() -> None:
    assert RECIPES
    for path in RECIPES:
        recipe = load_recipe(path)
        assert recipe.description, f"{path} does not say what it is for"
        assert recipe_from(recipe_to(recipe), where="again") == recipe


REFUSED: dict[str, tuple[str, str]] = {
    "unknown table": ("[modle]\nwidth = 8", "`modle`"),
    "unknown key": ("[model]\nwidht = 8", "`widht`"),
    "key at the wrong place": ("width = 8", "`width`"),
    "unknown key of training": ("[training]\nlr = 0.1", "`lr`"),
    "unknown key of the split": ("[split]\nfrom = 3", "`from`"),
    "text for a number": ('[model]\nwidth = "wide"', "$.model.width"),
    "fraction for a whole number": ("[model]\nwidth = 8.0", "$.model.width"),
    "truth for a number": ('[model.encoder]\nkind = "sasrec"\nblocks = true', "$.model.encoder.blocks"),
    "number for a truth": ("[model.context]\nresidual = 1", "$.model.context.residual"),
    "number for a list": ('[model.table]\nkind = "composed"\nradices = 2', "$.model.table.radices"),
    "number for a table": ("model = 3", "$.model"),
    "text for a table of kinds": ('[model]\nencoder = "sasrec"', "$.model.encoder"),
    "number for a text": ("description = 3", "$.description"),
    "no width": ("[model]\nwidth = 0", "$.model.width"),
    "no history": ("[model]\nhistory = 0", "$.model.history"),
    "no blocks": ('[model.encoder]\nkind = "twin-attention"\nblocks = 0', "$.model.encoder.blocks"),
    "too many blocks": ('[model.encoder]\nkind = "sasrec"\nblocks = 257', "$.model.encoder.blocks"),
    "no layers": ('[model.encoder]\nkind = "gru4rec"\nlayers = 0', "$.model.encoder.layers"),
    "nothing is read": ('[model.encoder]\nkind = "caser"\norder = 0', "$.model.encoder.order"),
    "nothing is masked": ('[model.encoder]\nkind = "bert4rec"\nmask_share = 0.0', "$.model.encoder.mask_share"),
    "everything is masked": ('[model.encoder]\nkind = "bert4rec"\nmask_share = 1.0', "$.model.encoder.mask_share"),
    "more than the frequency filter": ('[model.encoder]\nkind = "bsarec"\nalpha = 1.1', "$.model.encoder.alpha"),
    "no radix": ('[model.table]\nkind = "composed"\nradices = []', "$.model.table.radices"),
    "radix of one": ('[model.table]\nkind = "composed"\nradices = [3, 1]', "$.model.table.radices[1]"),
    "no rows": ('[model.table]\nkind = "hashed"\nrows = 0', "$.model.table.rows"),
    "no hash function": ('[model.table]\nkind = "hashed"\nhashes = 0', "$.model.table.hashes"),
    "no time signal": ("[model.time]\ngaps = false\ncalendar = false", "both off"),
    "all is dropped": ("[model]\ndropout = 1.0", "$.model.dropout"),
    "dropout below zero": ("[model]\ndropout = -0.1", "$.model.dropout"),
    "dropout is nan": ("[model]\ndropout = nan", "$.model.dropout"),
    "unknown regime": ('[model]\nregime = "both"', "$.model.regime"),
    "unknown digits": ('[model.table]\nkind = "composed"\ndigits_of = "title"', "$.model.table.digits_of"),
    "unknown norm": ('[model.encoder]\nkind = "sasrec"\nnorm = "none"', "$.model.encoder.norm"),
    "key of another encoder": ('[model.encoder]\nkind = "sasrec"\nwindow = 5', "`window`"),
    "key of another table": ('[model.table]\nkind = "hashed"\nradices = [2]', "`radices`"),
    "key of another loss": ('[training.loss]\nkind = "cross-entropy"\nnegatives = 9', "`negatives`"),
    "a key from before encoders had a table": ("[model]\nheads = 2", "`heads`"),
    "even window, centred": (
        '[model]\nregime = "prefix"\n[model.encoder]\nkind = "twin-attention"\nwindow = 4', "window 4 must be odd"
    ),
    "even window of a transformer": (
        '[model]\nregime = "prefix"\n[model.encoder]\nkind = "twin-transformer"\nwindow = 2', "window 2 must be odd"
    ),
    "width and heads": (
        '[model]\nwidth = 10\n[model.encoder]\nkind = "sasrec"\nheads = 4', "width 10 is not a multiple of heads 4"
    ),
    "item vectors as wide as all": ("[model]\nwidth = 8\nitem_width = 8", "item_width 8 is not less than width 8"),
    "item vectors and tables": (
        '[model]\nitem_width = 6\n[model.table]\nkind = "coded"\ntables = 4',
        "item_width 6 is not a multiple of tables 4",
    ),
    "narrow vectors of digits": (
        '[model]\nitem_width = 8\n[model.table]\nkind = "composed"', "item_width is for full and coded tables"
    ),
    "narrow vectors and an output of their own": (
        "[model]\nitem_width = 8\nuntied_output = true", "without context and untied_output"
    ),
    "factors for ranking": ('[model.encoder]\nkind = "fpmc"', "untied_output = true"),
    "users beside the items": ('[model.encoder]\nkind = "caser"', "untied_output = true"),
    "no negatives": ('[training.loss]\nkind = "bpr"\nnegatives = 0', "$.training.loss.negatives"),
    "smoothed away": ('[training.loss]\nkind = "cross-entropy"\nlabel_smoothing = 1.0', "label_smoothing"),
    "no temperature": ('[training.loss]\nkind = "cross-entropy"\ntemperature = 0.0', "temperature"),
    "unknown precision": ('[training]\nprecision = "float16"', "$.training.precision"),
    "no step size": ("[training]\nlearning_rate = 0.0", "$.training.learning_rate"),
    "step size is nan": ("[training]\nlearning_rate = nan", "$.training.learning_rate"),
    "weights grow": ("[training]\nweight_decay = -1e-5", "$.training.weight_decay"),
    "no batch": ("[training]\nbatch_size = 0", "$.training.batch_size"),
    "no epochs": ("[training]\nepochs = 0", "$.training.epochs"),
    "no patience": ("[training]\npatience = 0", "$.training.patience"),
    "negative seed": ("seed = -1", "$.seed"),
    "seed too large": ("seed = 4294967296", "$.seed"),
    "unknown split": ('[split]\nmethod = "random"', "$.split.method"),
    "nothing to test on": ("[split]\ntest_share = 0.0", "$.split.test_share"),
    "everything to validate on": ("[split]\nvalidation_share = 1.0", "$.split.validation_share"),
    "averaging without end": ("[training]\naveraging = 1.0", "$.training.averaging"),
    "one cut-off": ('[split]\nmethod = "temporal"\ntest_from = 2011-10-01T00:00:00Z', "go together"),
    "cut-offs without their method": (
        "[split]\nvalidation_from = 2011-10-01T00:00:00Z\ntest_from = 2011-11-01T00:00:00Z",
        'method = "temporal"',
    ),
    "not TOML": ("[model\nwidth = 8", "not valid TOML"),
    "twice the same key": ("seed = 1\nseed = 2", "not valid TOML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'description = "caf\xe9"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_recipe(tmp_path / "latin.toml")


#: The tables that come in kinds, and all kinds of each.
KINDS = {
    "model.table": ["full", "hashed", "composed", "coded"],
    "model.encoder": [
        "twin-attention", "twin-transformer", "sasrec", "bert4rec", "gru4rec", "caser", "fpmc", "lightsans", "bsarec",
    ],
    "training.loss": ["cross-entropy", "sampled-softmax", "gbce", "bce", "bpr"],
}  # fmt: skip


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("table", [{"kind": "bertrec"}, {"kind": 3}, {}], ids=["unknown", "a number", "missing"])
def test_a_kind_that_does_not_exist_is_answered_with_those_that_do(path: str, table: dict[str, Any]) -> None:
    outer, inner = path.split(".")
    with pytest.raises(ConfigError) as error:
        recipe_from({outer: {inner: table}}, where="recipe.toml")
    message = str(error.value)
    assert message.startswith("recipe.toml: ")
    assert f"`$.{path}" in message
    assert message.endswith(f"; there are {', '.join(KINDS[path])}")


def test_a_mistake_inside_a_kind_is_not_answered_with_kinds() -> None:
    with pytest.raises(ConfigError) as error:
        recipe_from({"model": {"encoder": {"kind": "sasrec", "depth": 3}}}, where="here")
    assert str(error.value).endswith("unknown field `depth` - at `$.model.encoder`")


def test_an_even_window_is_fine_in_the_causal_regime() -> None:
    table = {"model": {"regime": "causal", "encoder": {"kind": "twin-attention", "window": 4}}}
    assert recipe_from(table, where="here").model.encoder == TwinAttentionConfig(window=4)


#: Encoders that rank with vectors of twice the width, which no tied table has.
UNTIED = {FpmcConfig, CaserConfig}


def test_every_encoder_says_in_which_regimes_it_trains() -> None:
    encoders = get_args(EncoderConfig)
    assert set(REGIMES) == set(encoders)
    for encoder in encoders:
        untied = encoder in UNTIED
        kind = encoder.__struct_config__.tag
        for regime in ("prefix", "causal", "cloze"):
            table = {"model": {"regime": regime, "untied_output": untied, "encoder": {"kind": kind}}}
            if regime in REGIMES[encoder]:
                assert recipe_from(table, where="here").model.encoder == encoder()
            else:
                with pytest.raises(ConfigError, match=f'regime "{REGIMES[encoder][0]}", not "{regime}"'):
                    recipe_from(table, where="here")


def test_another_seed() -> None:
    recipe = Recipe(description="x", model=ModelConfig(width=8))
    assert recipe.with_seed(7) == Recipe(description="x", model=ModelConfig(width=8), seed=7)
    with pytest.raises(ConfigError, match="seed"):
        recipe.with_seed(-1)


tables = st.one_of(
    st.just(FullTableConfig()),
    st.builds(HashedTableConfig, rows=st.integers(1, 99), hashes=st.integers(1, 8)),
    st.builds(
        ComposedTableConfig,
        radices=st.lists(st.integers(2, 99), min_size=1, max_size=4).map(tuple),
        digits_of=st.sampled_from(["co-occurrence", "index"]),
    ),
)
#: Encoders in the first of their regimes, with values other than the defaults.
encoders = st.one_of(
    st.builds(TwinAttentionConfig, window=st.sampled_from([1, 3, 7]), residual=st.booleans()),
    st.builds(TwinTransformerConfig, window=st.sampled_from([1, 3, 7]), feed_forward=st.integers(1, 16)),
    st.builds(SasRecConfig, blocks=st.integers(1, 9), norm=st.sampled_from(["pre", "post"])),
    st.builds(Bert4RecConfig, mask_share=st.floats(0.1, 0.9)),
    st.builds(Gru4RecConfig, layers=st.integers(1, 8)),
    st.builds(CaserConfig, order=st.integers(1, 64)),
    st.just(FpmcConfig()),
    st.builds(LightSansConfig, interests=st.integers(1, 99)),
    st.builds(BsaRecConfig, alpha=st.floats(0, 1), cutoff=st.integers(1, 99)),
)
losses = st.one_of(
    st.builds(CrossEntropyConfig, label_smoothing=st.floats(0, 0.9), temperature=st.floats(0.1, 9)),
    st.builds(SampledSoftmaxConfig, negatives=st.integers(1, 99)),
    st.builds(GbceConfig, calibration=st.floats(0, 1)),
    st.builds(BinaryCrossEntropyConfig, negatives=st.integers(1, 99)),
    st.builds(BprConfig, negatives=st.integers(1, 99)),
)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    encoder = draw(encoders)
    return ModelConfig(
        regime=REGIMES[type(encoder)][0],
        table=draw(tables),
        encoder=encoder,
        context=draw(st.sampled_from([None, ContextConfig(), ContextConfig(residual=False)])),
        time=draw(st.sampled_from([None, TimeConfig(), TimeConfig(gaps=False), TimeConfig(calendar=False)])),
        width=draw(st.sampled_from([2, 64])),
        dropout=draw(st.floats(0, 1, exclude_max=True)),
        untied_output=draw(st.booleans()) or type(encoder) in UNTIED,
    )


recipes = st.builds(
    Recipe,
    description=st.text(),
    seed=st.integers(0, 2**32 - 1),
    exclude_seen=st.booleans(),
    split=st.builds(SplitConfig, method=st.sampled_from(["leave-one-out", "temporal"])),
    model=models(),
    training=st.builds(
        TrainingConfig, loss=losses, learning_rate=st.floats(1e-9, 1), epochs=st.integers(1, 9),
        precision=st.sampled_from(["auto", "float32", "bfloat16"]),
    ),
)  # fmt: skip


@given(recipes)
def test_a_recipe_survives_being_a_table(recipe: Recipe) -> None:
    table: dict[str, Any] = recipe_to(recipe)
    assert recipe_from(table, where="here") == recipe
