"""Models with and without context of equal bytes."""

import sys
from pathlib import Path

from lsan.config import TwinTransformerConfig
from lsan.data.dataset import Dataset

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from context import recipes_of, size_of


def test_the_wider_model_is_just_as_large_as_the_one_with_context(small_shop: Dataset) -> None:
    recipes = recipes_of("ml-1m-exact", small_shop)
    sizes = {name: size_of(recipe, small_shop) for name, recipe in recipes.items()}
    assert sizes["codes"] < sizes["context"] <= sizes["wider"]
    inner = {
        name: recipe.model.encoder.feed_forward
        for name, recipe in recipes.items()
        if isinstance(recipe.model.encoder, TwinTransformerConfig)
    }
    assert sizes["wider"] - sizes["context"] < (sizes["wider"] - sizes["codes"]) / (inner["wider"] - inner["codes"])
