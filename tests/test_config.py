"""Recipes: what is accepted, what is refused and how the error names the key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsan.config import ModelConfig, Recipe, SplitConfig, TrainingConfig, load_recipe, recipe_from, recipe_to
from lsan.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("**/*.toml"))


def test_an_empty_recipe_is_the_paper(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    recipe = load_recipe(tmp_path / "empty.toml")
    assert recipe == Recipe()
    model = recipe.model
    assert (model.width, model.window, model.heads, model.blocks, model.radices) == (128, 5, 2, 1, (2,))
    assert (recipe.seed, recipe.exclude_seen, recipe.split.method) == (0, True, "leave-one-out")


def test_every_published_recipe_is_valid() -> None:
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
    "truth for a number": ("[model]\nblocks = true", "$.model.blocks"),
    "number for a truth": ("[model]\nresidual = 1", "$.model.residual"),
    "number for a list": ("[model]\nradices = 2", "$.model.radices"),
    "number for a table": ("model = 3", "$.model"),
    "number for a text": ("description = 3", "$.description"),
    "no width": ("[model]\nwidth = 0", "$.model.width"),
    "no history": ("[model]\nhistory = 0", "$.model.history"),
    "no blocks": ("[model]\nblocks = 0", "$.model.blocks"),
    "radix of one": ("[model]\nradices = [3, 1]", "$.model.radices[1]"),
    "all is dropped": ("[model]\ndropout = 1.0", "$.model.dropout"),
    "dropout below zero": ("[model]\ndropout = -0.1", "$.model.dropout"),
    "dropout is nan": ("[model]\ndropout = nan", "$.model.dropout"),
    "unknown regime": ('[model]\nregime = "both"', "$.model.regime"),
    "unknown digits": ('[model]\ndigits_of = "title"', "$.model.digits_of"),
    "even window, centred": ("[model]\nwindow = 4", "window 4 must be odd"),
    "width and heads": ("[model]\nwidth = 10\nheads = 4", "width 10 is not a multiple of heads 4"),
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
}


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


def test_an_even_window_is_fine_in_the_causal_regime() -> None:
    assert recipe_from({"model": {"window": 4, "regime": "causal"}}, where="here").model.window == 4


def test_another_seed() -> None:
    recipe = Recipe(description="x", model=ModelConfig(width=8))
    assert recipe.with_seed(7) == Recipe(description="x", model=ModelConfig(width=8), seed=7)
    with pytest.raises(ConfigError, match="seed"):
        recipe.with_seed(-1)


recipes = st.builds(
    Recipe,
    description=st.text(),
    seed=st.integers(0, 2**32 - 1),
    exclude_seen=st.booleans(),
    split=st.builds(SplitConfig, method=st.sampled_from(["leave-one-out", "temporal"])),
    model=st.builds(
        ModelConfig,
        regime=st.just("causal"),
        radices=st.lists(st.integers(2, 99), max_size=4).map(tuple),
        width=st.sampled_from([2, 64]),
        window=st.integers(1, 9),
        dropout=st.floats(0, 1, exclude_max=True),
        untied_output=st.booleans(),
    ),
    training=st.builds(TrainingConfig, learning_rate=st.floats(1e-9, 1), epochs=st.integers(1, 9)),
)


@given(recipes)
def test_a_recipe_survives_being_a_table(recipe: Recipe) -> None:
    table: dict[str, Any] = recipe_to(recipe)
    assert recipe_from(table, where="here") == recipe
