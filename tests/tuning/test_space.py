"""What a search may vary: checked against the recipe before anything is trained."""

from pathlib import Path

import pytest

from lsan.config import (
    BprConfig,
    CodedTableConfig,
    FullTableConfig,
    Gru4RecConfig,
    ModelConfig,
    Recipe,
    SasRecConfig,
    TrainingConfig,
)
from lsan.errors import ConfigError
from lsan.presets import load_preset, preset_names
from lsan.tuning.space import default_space, load_space, space_from, value_at, with_values

RECIPE = Recipe(model=ModelConfig(width=16, encoder=SasRecConfig(heads=4, blocks=1)))


def read(text: str, tmp_path: Path) -> dict[str, list[object]]:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return load_space(path, RECIPE)


@pytest.mark.parametrize("preset", preset_names())
def test_the_usual_space_of_every_preset_is_valid(preset: str) -> None:
    recipe = load_preset(preset)
    assert space_from(default_space(recipe), recipe, where="usual")


def test_the_usual_space_leaves_room_for_item_vectors() -> None:
    recipe = Recipe(model=ModelConfig(width=64, item_width=32))
    assert default_space(recipe)["model.width"] == [64, 128]
    assert space_from(default_space(recipe), recipe, where="usual")


def test_the_usual_space_lies_around_the_recipe() -> None:
    space = default_space(RECIPE)
    assert space["training.learning_rate"] == [2.5e-4, 4e-3, "log"]
    assert space["training.batch_size"] == [32, 64, 128]
    assert space["training.weight_decay"] == [0.0, 1e-4, 1e-3, 1e-2, 1e-1]
    assert space["model.dropout"] == pytest.approx([0.3, 0.7, "linear"])
    assert space["model.width"] == [8, 16, 32]
    assert space["model.encoder.blocks"] == [1, 2]
    assert default_space(Recipe(model=ModelConfig(width=4, encoder=SasRecConfig(heads=4))))["model.width"] == [4, 8]
    with_r_drop = Recipe(model=ModelConfig(dropout=0.1), training=TrainingConfig(r_drop=1.0))
    assert space_from(default_space(with_r_drop), with_r_drop, where="usual")["model.dropout"][0] == 0.05
    assert "model.encoder.blocks" not in default_space(Recipe(model=ModelConfig(encoder=Gru4RecConfig())))
    coded = Recipe(
        model=ModelConfig(width=24, table=CodedTableConfig(tables=8, rows=16), encoder=SasRecConfig(blocks=256))
    )
    space = space_from(default_space(coded), coded, where="usual")
    assert (space["model.width"], space["model.encoder.blocks"]) == ([24, 48], [255, 256])
    wide = Recipe(model=ModelConfig(width=65_536), training=TrainingConfig(learning_rate=5e5))
    space = space_from(default_space(wide), wide, where="usual")
    assert (space["model.width"], space["training.learning_rate"]) == ([32_768, 65_536], [1.25e5, 5e5, "log"])


def test_keys_may_be_dotted_or_in_tables(tmp_path: Path) -> None:
    space = read(
        """
        training.averaging = [0.0, 0.9]
        training.learning_rate = [1e-4, 1e-2, "log"]
        [model]
        width = [8, 64, "linear"]
        encoder.blocks = [1, 2, 4]
        table = [{ kind = "full" }, { kind = "hashed", rows = 32 }]
        """,
        tmp_path,
    )
    assert list(space) == [
        "training.averaging", "training.learning_rate", "model.width", "model.encoder.blocks", "model.table",
    ]  # fmt: skip
    assert space["model.table"] == [{"kind": "full"}, {"kind": "hashed", "rows": 32}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trainng.learning_rate = [1, 2]", r"trainng\.learning_rate: .* nearest is training\.learning_rate"),
        ("model.encoder.windw = [3, 5]", "has no such key"),
        ("model.width = 8", r"model\.width: expected a list"),
        ("model.width = []", "two choices or more"),
        ("model.width = [8]", "two choices or more"),
        ('training.learning_rate = [1e-4, 1e-2, "logg"]', r'"log" or "linear"'),
        ('training.learning_rate = [1e-2, 1e-4, "log"]', "low < high, above 0"),
        ('training.weight_decay = [0.0, 1e-1, "log"]', "low < high, above 0"),
        ('model.dropout = [0.0, 1.0, "linear"]', r"model\.dropout: Expected `float` < 1"),
        ('model.width = [8, "wide"]', r"model\.width: "),
        ("model.encoder.heads = [4, 5]", "width 16 is not a multiple of heads 5"),
        *(
            (f"{key} = [1, 2]", "figures of trials that differ in it cannot be compared")
            for key in ("seed", "exclude_seen", "split.method", "training.validation_cases")
        ),
        ("", "names no key"),
        ("model.width = [", "not valid TOML"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"space\.toml.*{says}"):
        read(text, tmp_path)


def test_a_space_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the space"):
        load_space(tmp_path / "nothing.toml", RECIPE)


def test_values_are_put_into_the_recipe() -> None:
    values = {
        "seed": 3,
        "model.table": {"kind": "full"},
        "training.loss": {"kind": "bpr", "negatives": 2},
        "training.learning_rate": 0.5,
    }
    recipe = with_values(RECIPE, values, where="here")
    assert recipe == Recipe(
        seed=3,
        model=RECIPE.model,
        training=TrainingConfig(learning_rate=0.5, loss=BprConfig(negatives=2)),
    )
    assert recipe.model.table == FullTableConfig()
    assert (value_at(recipe, "seed"), value_at(recipe, "training.loss.kind")) == (3, "bpr")
    with pytest.raises(ConfigError, match=r"here: .*multiple"):
        with_values(RECIPE, {"model.encoder.heads": 3}, where="here")
