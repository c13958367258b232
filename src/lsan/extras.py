"""Optional dependencies: lsan's extras."""

from importlib.util import find_spec

from lsan.errors import MissingExtraError


def require_extra(extra: str, *modules: str, needed_by: str) -> None:
    """Return when all of these top-level modules are there; none is loaded.

    Raises:
        MissingExtraError: when one is not installed; the message names the command that installs the extra.
    """
    if any(find_spec(module) is None for module in modules):
        raise MissingExtraError(f'{needed_by} needs packages that are not installed: pip install "lsan[{extra}]"')
