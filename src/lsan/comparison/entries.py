"""What is compared: the models that a user names, with their seeds, held to the same terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from lsan.config import Recipe, SplitConfig, load_recipe
from lsan.data.splits import SplitName
from lsan.errors import ConfigError
from lsan.models.baselines import BASELINES
from lsan.presets import load_preset, preset_names

Policy = Literal["unseen items", "all items"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing to train and evaluate: a network with its seed, or a baseline."""

    name: str
    """Of the model; its seeds share it."""
    recipe: Recipe
    """With the seed. Of a baseline's recipe only split, exclude_seen and the length of histories count."""
    baseline: bool
    """Whether it is counted instead of trained."""

    @property
    def label(self) -> str:
        """What its files are called."""
        return self.name if self.baseline else f"{self.name}-{self.recipe.seed}"

    @property
    def policy(self) -> Policy:
        """Whether the items of the user's own history are ranked."""
        return "unseen items" if self.recipe.exclude_seen else "all items"


def find_entries(
    models: Sequence[str], *, seeds: int, split: SplitName | None = None, include_seen: bool = False
) -> list[Entry]:
    """What the names stand for, in the order of work: baselines, then every network with seed 0, with seed 1, and so
    on, so that an interrupted comparison has most of them.

    Args:
        models: names of baselines and presets, and paths of recipe files.
        seeds: each network is trained with the seeds 0 .. seeds - 1 instead of its recipe's own.
        split: instead of that of the recipes.
        include_seen: also recommend items of the user's own history, whatever the recipes say.

    Raises:
        ConfigError: when a name is unknown or given twice, or the recipes hold out different events or differ in
            whether items already seen are recommended.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected a whole number of at least 1")
    recipes: dict[str, Recipe] = {}
    for model in models:
        name = model if model in BASELINES else Path(model).name.removesuffix(".toml")
        recipe = _recipe_of(model)
        if name in recipes or (model != name and name in BASELINES):
            raise ConfigError(f"two models would be called {name!r}: leave one out, or rename the recipe file")
        if split is not None and split != recipe.split.method:
            recipe = replace(recipe, split=SplitConfig(method=split))
        recipes[name] = replace(recipe, exclude_seen=recipe.exclude_seen and not include_seen)
    networks = [name for name in recipes if name not in BASELINES]
    terms = _common_terms({name: recipes[name] for name in networks}) if networks else next(iter(recipes.values()))
    return [
        *(
            Entry(name=name, recipe=Recipe(split=terms.split, exclude_seen=terms.exclude_seen), baseline=True)
            for name in recipes
            if name in BASELINES
        ),
        *(
            Entry(name=name, recipe=recipes[name].with_seed(seed), baseline=False)
            for seed in range(seeds)
            for name in networks
        ),
    ]


def _recipe_of(model: str) -> Recipe:
    if model in BASELINES:
        return Recipe()
    if model in preset_names():
        return load_preset(model)
    if model.endswith(".toml"):
        return load_recipe(Path(model))
    raise ConfigError(
        f"no model {model!r}; there are the baselines {', '.join(BASELINES)}, the presets {', '.join(preset_names())}, "
        "and your own recipe files, by their path (NAME.toml)"
    )


def _common_terms(recipes: dict[str, Recipe]) -> Recipe:
    """One of the recipes, when all of them hold out the same events and rank the same items."""
    (first, terms), *others = recipes.items()
    for name, recipe in others:
        if recipe.split != terms.split:
            raise ConfigError(f"{first} and {name} hold out different events: make [split] of their recipes equal")
        if recipe.exclude_seen != terms.exclude_seen:
            raise ConfigError(
                f"{first} and {name} differ in exclude_seen: make it equal in their recipes, or give --include-seen"
            )
    return terms
