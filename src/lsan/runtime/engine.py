"""Which engine runs a bundle: the native one, or NumPy where it was not built."""

import importlib
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lsan.errors import BundleError
from lsan.runtime.file import BundleFile, FloatArray, IntArray

Best = tuple[npt.NDArray[np.int32], FloatArray]
Mask = npt.NDArray[np.uint8]


class EngineSession(Protocol):
    """A history that grows."""

    @property
    def length(self) -> int: ...
    def append(self, item: int, time: int) -> None: ...
    def recommend(self, asked: int, k: int, excluded: IntArray | None = None, allowed: Mask | None = None) -> Best: ...


class Engine(Protocol):
    """What both engines offer; item indices are 1..V, times are milliseconds, -1 where unknown. `NumpyEngine` has the
    docstrings."""

    items: int
    history: int
    width: int
    timed: bool
    causal: bool
    hidden_width: int
    instruction_set: str

    @property
    def memory(self) -> int: ...
    def hidden(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray: ...
    def scores(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray: ...
    def recommend(
        self, items: IntArray, times: IntArray | None, asked: int, k: int,
        excluded: IntArray | None = None, allowed: Mask | None = None,
    ) -> Best: ...  # fmt: skip
    def recommend_many(
        self, items: IntArray, times: IntArray | None, ends: IntArray, asked: IntArray, k: int,
        exclude_history: bool, threads: int,
    ) -> Best: ...  # fmt: skip
    def session(self) -> EngineSession: ...


def make_engine(content: bytes, file: BundleFile, *, native: bool | None = None) -> Engine:
    """The engine for a bundle, given its bytes and what `BundleFile.parse` made of them.

    Args:
        native: False for NumPy, True for the native one, None for the native one where there is one.

    Raises:
        BundleError: when the bundle is not what docs/bundle.md says, or the native engine is asked for and not there.
    """
    module = _native_module() if native is not False else None
    if module is None:
        if native:
            raise BundleError("lsan was installed without its native engine; install it where there is a C compiler")
        from lsan.runtime.numpy_engine import NumpyEngine  # most processes need one engine only

        return NumpyEngine(file)
    try:
        engine: Engine = module.Engine(content)
    except ValueError as error:
        raise BundleError(str(error)) from error
    return engine


@cache
def _native_module() -> Any:
    try:
        engine = importlib.import_module("lsan.runtime._native.engine")
    except ImportError:
        import logging

        logging.getLogger(__name__).warning(
            "lsan was installed without its native engine, so NumPy does the work, many times slower; "
            "install it again where there is a C compiler"
        )
        return None
    return engine
