"""The space of a search: which keys of a recipe it varies, and over which values."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from lsan.config import Recipe, recipe_from, recipe_to
from lsan.errors import ConfigError

#: Dotted key of the recipe -> its choices, or a range [low, high, "log" or "linear"].
Space = dict[str, list[Any]]

#: Keys (and what is under them) of how a trial is measured, not of what is trained.
_FIXED = ("description", "exclude_seen", "seed", "split", "training.validation_cases")


def is_range(entry: list[Any]) -> bool:
    """Whether it is a range; else it is a list of choices."""
    return len(entry) == 3 and is_number(entry[0]) and is_number(entry[1]) and entry[2] in ("log", "linear")


def is_number(value: Any) -> bool:
    """Whether it is an int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_space(recipe: Recipe) -> Space:
    """What matters most in most recipes, around the values that this one has. docs/tuning.md lists it."""
    model, training = recipe.model, recipe.training
    heads = getattr(model.encoder, "heads", 1)
    least = 0.05 if training.r_drop else 0.0  # R-Drop needs dropout
    least_width = model.width if model.item_width else 1  # an item's vector is narrower than the model
    widths = [model.width // 2, model.width, model.width * 2]
    widths = [width for width in widths if width >= least_width and width % heads == 0]
    space: Space = {
        "training.learning_rate": [training.learning_rate / 4, training.learning_rate * 4, "log"],
        "training.batch_size": _around(training.batch_size, factor=2),
        "training.weight_decay": sorted({0.0, 1e-4, 1e-3, 1e-2, 1e-1, training.weight_decay}),
        "training.averaging": sorted({0.0, 0.99, 0.998, 0.9995, training.averaging}),
        "model.dropout": [max(least, round(model.dropout - 0.2, 3)), min(0.9, round(model.dropout + 0.2, 3)), "linear"],
        "model.width": widths,
    }
    if (blocks := getattr(model.encoder, "blocks", None)) is not None:
        space["model.encoder.blocks"] = [number for number in (blocks - 1, blocks, blocks + 1) if number >= 1]
    possible = {key: _possible(recipe, key, entry) for key, entry in space.items()}
    return {key: entry for key, entry in possible.items() if len(entry) > 1}


def _possible(recipe: Recipe, key: str, entry: list[Any]) -> list[Any]:
    """The choices that the recipe can take, or the range with its own value in the place of an end that it cannot."""
    if not is_range(entry):
        return [choice for choice in entry if _takes(recipe, key, choice)]
    own = value_at(recipe, key)
    low, high = (end if _takes(recipe, key, end) else own for end in entry[:2])
    return [low, high, entry[2]] if low < high else []


def _takes(recipe: Recipe, key: str, value: Any) -> bool:
    try:
        with_values(recipe, {key: value}, where=key)
    except ConfigError:
        return False
    return True


def _around(value: int, *, factor: int) -> list[int]:
    return [near for near in (value // factor, value, value * factor) if near >= 1]


def load_space(path: Path, recipe: Recipe) -> Space:
    """Read a space from a TOML file: keys of the recipe, as `training.learning_rate = [1e-4, 1e-2, "log"]`.

    Raises:
        ConfigError: when the file cannot be read or is not TOML, names a key that the recipe does not have, or a value
            that the recipe cannot take.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the space {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOML syntax, UTF-8, nesting
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return space_from(table, recipe, where=str(path))


def space_from(table: dict[str, Any], recipe: Recipe, *, where: str) -> Space:
    """Check a table of plain values against the recipe. `where` names the source in errors.

    Raises:
        ConfigError: as `load_space`.
    """
    space = _flat(table, where=where)
    if not space:
        raise ConfigError(
            f"{where}: names no key; expected lines such as " + 'training.learning_rate = [1e-4, 1e-2, "log"]'
        )
    known = _keys(recipe_to(recipe))
    for key, entry in space.items():
        place = f"{where}: {key}"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise ConfigError(f"{place}: the recipe has no such key; the nearest is {near}")
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED):
            raise ConfigError(f"{place}: figures of trials that differ in it cannot be compared")
        if is_range(entry):
            low, high, scale = entry
            if not low < high or (scale == "log" and low <= 0):
                raise ConfigError(f"{place}: expected low < high{', above 0' if scale == 'log' else ''}, got {entry}")
        elif len(entry) < 2 or (is_number(entry[0]) and isinstance(entry[-1], str)):
            raise ConfigError(f'{place}: expected [low, high, "log" or "linear"] or two choices or more, got {entry}')
        for value in entry[:2] if is_range(entry) else entry:
            with_values(recipe, {key: value}, where=place)
    return space


def with_values(recipe: Recipe, values: dict[str, Any], *, where: str) -> Recipe:
    """The recipe with other values under some dotted keys. `where` names the source in errors.

    Raises:
        ConfigError: when the recipe cannot take them.
    """
    table = recipe_to(recipe)
    for key, value in values.items():
        *path, last = key.split(".")
        inner = table
        for name in path:
            inner = inner[name]
        inner[last] = value
    return recipe_from(table, where=where)


def value_at(recipe: Recipe, key: str) -> Any:
    """What the recipe has under a dotted key."""
    inner: Any = recipe_to(recipe)
    for name in key.split("."):
        inner = inner[name]
    return inner


def _flat(table: dict[str, Any], *, where: str, prefix: str = "") -> Space:
    space: Space = {}
    for key, value in table.items():
        if isinstance(value, dict):
            space |= _flat(value, where=where, prefix=f"{prefix}{key}.")
        elif isinstance(value, list):
            space[prefix + key] = value
        else:
            raise ConfigError(f"{where}: {prefix}{key}: expected a list of choices or a range, got {value!r}")
    return space


def _keys(table: dict[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys: of values, and of tables, which a choice may replace as a whole."""
    keys = []
    for key, value in table.items():
        keys.append(prefix + key)
        if isinstance(value, dict):
            keys += _keys(value, f"{prefix}{key}.")
    return keys
