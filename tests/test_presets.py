"""Presets: recipes that come with the package."""

import math

import pytest
import torch

from lsan.config import ContextConfig, FullTableConfig, TwinAttentionConfig
from lsan.errors import ConfigError
from lsan.models.network import Network
from lsan.presets import load_preset, preset_names


def test_there_are_presets_and_the_default_is_one_of_them() -> None:
    names = preset_names()
    assert names == sorted(names)
    assert {"lsan", "paper", "sasrec", "sasrec-original", "bert4rec"} <= set(names)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_is_and_describes_a_network(name: str) -> None:
    recipe = load_preset(name)
    assert recipe.description
    assert recipe.seed == 0
    with torch.device("meta"):
        items = torch.arange(12_101)
        network = Network(recipe.model, torch.zeros(12_102, dtype=torch.int32, device="cpu"), items, items, 22_363)
        scores = network.output().scores(torch.zeros(3, network.encoder.output_width))
    assert scores.shape == (3, 12_101)


def test_the_paper_is_as_it_was_published() -> None:
    """arXiv 2108.11333, section 4.1."""
    recipe = load_preset("paper")
    model = recipe.model
    assert (model.width, model.history, model.regime) == (128, 50, "prefix")
    assert model.encoder == TwinAttentionConfig(heads=2, blocks=1, window=5)
    assert model.context == ContextConfig()
    with torch.device("meta"):
        items = torch.arange(12_101)
        network = Network(model, torch.zeros(12_102, dtype=torch.int32, device="cpu"), items, items, 0)
    assert network.table.weight.shape == (2 + math.ceil(12_101 / 2), 128)


def test_the_baselines_are_without_lsans_parts() -> None:
    for name in set(preset_names()) - {"lsan", "paper"}:
        model = load_preset(name).model
        assert isinstance(model.table, FullTableConfig), name
        assert model.context is None, name
        assert model.time is None, name


@pytest.mark.parametrize("name", ["", "papers", "../presets/paper", "paper.toml", "__init__"])
def test_an_unknown_preset_is_answered_with_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_preset(name)
    assert str(error.value) == f"no preset {name!r}; there are {', '.join(preset_names())}"
