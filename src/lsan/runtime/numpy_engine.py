"""A bundle in NumPy: slower than the native engine, of the same results and the same interface."""

import numpy as np
import numpy.typing as npt

from lsan.errors import BundleError
from lsan.runtime.file import BundleFile, FloatArray, IntArray, expect
from lsan.runtime.item_table import ItemTable
from lsan.runtime.numpy_program import Program


class NumpyEngine:
    """Scores and best items after a history of item indices. See `lsan.runtime.engine` for who makes one."""

    instruction_set = "numpy"

    def __init__(self, file: BundleFile) -> None:
        """Raises `BundleError` when the program or its tensors are not what docs/bundle.md says."""
        manifest = file.manifest
        self.items, self.history, self.width = manifest["items"], manifest["history"], manifest["width"]
        self.timed = manifest["timed"]
        self.causal = False  # sessions run over the whole history again
        output = manifest["output"]
        self._bias = file.floats(output.get("bias"), 1)  # first, since what follows is as large as V says
        expect(len(self._bias) == self.items, f"output: a bias for each of {self.items} items")
        self.table = ItemTable(file)
        category = np.zeros(self.items + 1, dtype=np.int64)
        categories = manifest["categories"]
        if categories:
            found = file.packed("categories", categories.bit_length(), self.items)
            category[1:] = np.where(found == 0, categories + 1, found)
            if found.max(initial=0) > categories:
                raise BundleError("categories: names a category that does not exist")
        else:
            expect("categories" not in file.tensors, "there are no categories, but a tensor of them")
            category[1:] = 1
        self.program = Program(file, self.table, category)
        self.hidden_width = self.program.shapes[-1][1]
        self._matrix = None
        if output.get("kind") == "matrix":
            self._matrix = file.floats(output.get("weight"), 2)
            expect(self._matrix.shape == (self.items, self.hidden_width), "output: a matrix of another shape")
        else:
            expect(output.get("kind") == "table", f"output of kind {output.get('kind')!r:.80}")
            expect(self.hidden_width == self.width, "output: the last operation is not as wide as the table")
        self.offered = np.ones(self.items, dtype=bool)
        if "offered" in file.tensors:
            self.offered = file.packed("offered", 1, self.items).astype(bool)
        self.counts = file.popularity()  # training events of each item
        self._popularity = np.log(self.counts.astype(np.float64) + 1).astype(np.float32)

    @property
    def memory(self) -> int:
        """Bytes of the item tables."""
        return self.table.nbytes + self._bias.nbytes + (0 if self._matrix is None else self._matrix.nbytes)

    def hidden(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray:
        """What the program gives. Shape [hidden_width]."""
        return self.program.run(*self._offered_events(items, times), asked)

    def _offered_events(self, items: IntArray, times: IntArray | None) -> tuple[IntArray, IntArray | None]:
        found = np.asarray(items, dtype=np.int64)
        known = None if times is None else np.asarray(times, dtype=np.int64)
        keep = self.offered[found - 1]
        return (found, known) if keep.all() else (found[keep], None if known is None else known[keep])

    def scores(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray:
        """Scores of the items 1..V (entry v - 1)."""
        items, times = self._offered_events(items, times)
        if len(items) == 0:
            return self._popularity.copy()
        hidden = self.program.run(items, times, asked)
        with np.errstate(all="ignore"):
            scores = self.table.scores(hidden) if self._matrix is None else self._matrix @ hidden
            found: FloatArray = scores + self._bias
        return found

    def recommend(
        self, items: IntArray, times: IntArray | None, asked: int, k: int,
        excluded: IntArray | None = None, allowed: npt.NDArray[np.uint8] | None = None,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:  # fmt: skip
        """The best k items and their scores: higher scores first, then lower indices."""
        scores = self.scores(items, times, asked)
        keep = self.offered if allowed is None else self.offered & (allowed != 0)
        if excluded is not None:
            keep = keep.copy()
            keep[np.asarray(excluded, dtype=np.int64) - 1] = False
        places = np.flatnonzero(keep & ~np.isnan(scores))
        left = scores[places]
        if k < len(left):
            worst = np.partition(left, len(left) - k)[len(left) - k]
            places = places[left >= worst]
            left = scores[places]
        order = np.argsort(-left, kind="stable")[:k]
        return (places[order] + 1).astype(np.int32), left[order]

    def recommend_many(
        self, items: IntArray, times: IntArray | None, ends: IntArray, asked: IntArray, k: int,
        exclude_history: bool, threads: int,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:  # fmt: skip
        """`recommend` for many histories, one after the other in `items`: row i is for the history before `ends[i]`.
        Zeros fill rows of fewer items. `threads` changes nothing here."""
        best = np.zeros((len(ends), k), dtype=np.int32)
        scores = np.zeros((len(ends), k), dtype=np.float32)
        begin = 0
        for row, end in enumerate(ends.tolist()):
            history, begin = slice(begin, end), end
            found, values = self.recommend(
                items[history], None if times is None else times[history], int(asked[row]), k,
                items[history] if exclude_history else None,
            )  # fmt: skip
            best[row, : len(found)], scores[row, : len(found)] = found, values
        return best, scores

    def session(self) -> "NumpySession":
        """An empty history that grows."""
        return NumpySession(self)


class NumpySession:
    """A history that grows; every recommendation runs over it anew."""

    def __init__(self, engine: NumpyEngine) -> None:
        self._engine = engine
        self._items: list[int] = []
        self._times: list[int] = []

    @property
    def length(self) -> int:
        """Events so far."""
        return len(self._items)

    def append(self, item: int, time: int) -> None:
        """One more event: its item 1..V, and when it was in milliseconds, -1 where unknown."""
        if self._engine.offered[item - 1]:
            self._items.append(item)
            self._times.append(time)

    def recommend(
        self, asked: int, k: int, excluded: IntArray | None = None, allowed: npt.NDArray[np.uint8] | None = None
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """As `NumpyEngine.recommend`."""
        return self._engine.recommend(
            np.array(self._items, dtype=np.int64), np.array(self._times, dtype=np.int64), asked, k, excluded, allowed
        )
