"""lsan: next-item recommendation that fits on a phone."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsan.answers import Recommendation, Recommendations
    from lsan.config import Recipe, load_recipe
    from lsan.data.prepare import prepare_dataset
    from lsan.errors import BundleError, ConfigError, DataError, LsanError, MissingExtraError
    from lsan.recommender import Recommender

    load = Recommender.load

__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "LsanError",
    "MissingExtraError",
    "Recipe",
    "Recommendation",
    "Recommendations",
    "Recommender",
    "load",
    "load_recipe",
    "prepare_dataset",
]

# PyTorch's threads wait for each other hundreds of times a step. GNU OpenMP reads when it is loaded how often a waiting
# thread looks before it sleeps: by default 300,000 times. Where another process is busy on one of the cores, the thread
# that is waited for then hardly gets to run, and a step takes up to 50 times as long (docs/log.md, fifteenth session).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

_HOME = {
    "lsan.config": ("Recipe", "load_recipe"),
    "lsan.data.prepare": ("prepare_dataset",),
    "lsan.answers": ("Recommendation", "Recommendations"),
    "lsan.errors": ("BundleError", "ConfigError", "DataError", "LsanError", "MissingExtraError"),
    "lsan.recommender": ("Recommender",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public names load their module when first used, so that `lsan prepare` never waits for torch."""
    if name == "load":
        return __getattr__("Recommender").load
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lsan' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
