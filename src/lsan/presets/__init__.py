"""Presets: recipes that come with the package, one TOML file each, to use as they are or to copy and change."""

from pathlib import Path

from lsan.config import Recipe, load_recipe
from lsan.errors import ConfigError


def preset_names() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def load_preset(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: when there is no such preset.
    """
    if name not in preset_names():
        raise ConfigError(f"no preset {name!r}; there are {', '.join(preset_names())}")
    return load_recipe(Path(__file__).parent / f"{name}.toml")
