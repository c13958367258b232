"""Whether a bundle is as it was written: its digest, and its test vectors replayed."""

import numpy as np

from lsan.errors import BundleError
from lsan.runtime.engine import Engine
from lsan.runtime.file import BundleFile


def verify_bundle(file: BundleFile, engine: Engine) -> float:
    """Largest difference between the engine's scores and those in the bundle, as a share of the largest absolute score.

    Raises:
        BundleError: when the bundle's bytes are not those that were written, there are no test vectors, they do not fit
            the bundle, or the engine answers otherwise: a score is off by more than the bundle's tolerance, or an item
            that should not be among the best is.
    """
    file.check_digest()
    items = file.tensor("check.items", np.int32, (None, None))
    if engine.timed:
        times = file.tensor("check.times", np.int64, items.shape)
        asked = file.tensor("check.asked", np.int64, items.shape[:1])
    top = file.tensor("check.top", np.int32, (len(items), None))
    scores = file.tensor("check.scores", np.float32, top.shape)
    if (
        top.size == 0
        or items.min(initial=0) < 0
        or top.min() < 1
        or max(items.max(initial=0), top.max()) > engine.items
    ):
        raise BundleError("check.*: no test vectors, or they name items that do not exist")
    if not np.isfinite(scores).all():
        raise BundleError("check.scores: holds what is no finite number")
    tolerance = file.manifest.get("tolerance")
    if type(tolerance) is not float or not 0 < tolerance < 0.1:
        raise BundleError("the manifest: 'tolerance' should be a number between 0 and 0.1")
    worst = 0.0
    for row, history in enumerate(items):
        present = history > 0
        known, moments = history[present], times[row][present] if engine.timed else None
        when = int(asked[row]) if engine.timed else -1
        every = engine.scores(known, moments, when)
        best, values = engine.recommend(known, moments, when, top.shape[1])
        scale = float(np.abs(scores[row]).max()) or 1.0
        off = float(np.abs(every[top[row] - 1] - scores[row]).max()) / scale
        worst = max(worst, off)
        # each of the best has to be as good as the one in its place, up to rounding
        if len(best) != top.shape[1] or not np.isfinite(every).all() or off > tolerance:
            raise BundleError(f"test vector {row}: scores are off by {off:.2e} of the largest, allowed are {tolerance}")
        if (values < scores[row] - tolerance * scale).any():
            raise BundleError(f"test vector {row}: recommends {best.tolist()}, expected {top[row].tolist()}")
    return worst
