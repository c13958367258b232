"""The program of a bundle in NumPy: slower than the native engine, of the same results and the same interface."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.errors import BundleError
from lsan.runtime.file import Array, BundleFile, FloatArray, IntArray, whole

#: Largest matrix of a program, in numbers.
_LARGEST = 2**26

_OPERATIONS = 1024
_COLUMNS = 65_536

_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000  # milliseconds

#: Rows of a matrix: so many, or ("events", n) for min(T + n, H).
Rows = int | tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class _History:
    items: IntArray  # 1..V
    times: IntArray
    asked: int


#: What an operation gives, from what it reads and the history.
_Run = Callable[[list[FloatArray], _History], FloatArray]


@dataclass(frozen=True, kw_only=True)
class _Operation:
    read: list[int]
    run: _Run
    rows: Rows
    columns: int


class NumpyEngine:
    """Scores and best items after a history of item indices. See `lsan.runtime.engine` for who makes one."""

    instruction_set = "numpy"

    def __init__(self, file: BundleFile) -> None:
        """Raises `BundleError` when the program or its tensors are not what docs/bundle.md says."""
        self._file, manifest = file, file.manifest
        self.items, self.history, self.width = manifest["items"], manifest["history"], manifest["width"]
        self.timed = manifest["timed"]
        self.causal = False  # sessions run over the whole history again
        output = manifest["output"]
        self._bias = file.floats(output.get("bias"), 1)  # first, since what follows is as large as V says
        _expect(len(self._bias) == self.items, f"output: a bias for each of {self.items} items")
        self._table = ItemTable(file)
        self._category = np.zeros(self.items + 1, dtype=np.int64)
        categories = manifest["categories"]
        if categories:
            found = file.packed("categories", categories.bit_length(), self.items)
            self._category[1:] = np.where(found == 0, categories + 1, found)
            if found.max(initial=0) > categories:
                raise BundleError("categories: names a category that does not exist")
        else:
            _expect("categories" not in file.tensors, "there are no categories, but a tensor of them")
            self._category[1:] = 1
        self._program = _program(self, manifest["program"])
        self.hidden_width = self._program[-1].columns
        self._matrix = None
        if output.get("kind") == "matrix":
            self._matrix = file.floats(output.get("weight"), 2)
            _expect(self._matrix.shape == (self.items, self.hidden_width), "output: a matrix of another shape")
        else:
            _expect(output.get("kind") == "table", f"output of kind {output.get('kind')!r:.80}")
            _expect(self.hidden_width == self.width, "output: the last operation is not as wide as the table")
        self.offered = np.ones(self.items, dtype=bool)
        if "offered" in file.tensors:
            self.offered = file.packed("offered", 1, self.items).astype(bool)
        self.counts = file.popularity()  # training events of each item
        self._popularity = np.log(self.counts.astype(np.float64) + 1).astype(np.float32)

    @property
    def memory(self) -> int:
        """Bytes of the item tables."""
        return self._table.nbytes + self._bias.nbytes + (0 if self._matrix is None else self._matrix.nbytes)

    def hidden(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray:
        """What the program gives. Shape [hidden_width]."""
        return self._run(*self._offered_events(items, times), asked)

    def _run(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray:
        latest = items[-self.history :]
        known = np.full(len(latest), -1) if times is None else times[-self.history :]
        history = _History(items=latest, times=known, asked=asked)
        results: list[FloatArray] = []
        with np.errstate(all="ignore"):  # weights of 1e38 are numbers too
            for operation in self._program:
                results.append(operation.run([results[number] for number in operation.read], history))
        hidden: FloatArray = results[-1][0]
        return hidden

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
        hidden = self._run(items, times, asked)
        with np.errstate(all="ignore"):
            scores = self._table.scores(hidden) if self._matrix is None else self._matrix @ hidden
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

    def category_rows(self, items: IntArray) -> IntArray:
        """Category of each item as `rows` counts them: C + 1 where unknown."""
        return self._category[items]

    @property
    def table(self) -> "ItemTable":
        return self._table

    @property
    def shapes(self) -> list[tuple[Rows, int]]:
        """Rows and columns of what each operation of the program gives."""
        return [(operation.rows, operation.columns) for operation in self._program]

    @property
    def file(self) -> BundleFile:
        return self._file


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


class ItemTable:
    """How an item becomes a vector."""

    def __init__(self, file: BundleFile) -> None:
        table, items, width = file.manifest["table"], file.manifest["items"], file.manifest["width"]
        self.weight = file.floats(table.get("weight"), 2)
        self.codes: npt.NDArray[np.int32] | None = None  # rows of the matrix, [V, N]
        self.slices = 1
        if table.get("kind") == "vectors":
            _expect(self.weight.shape == (items, width), f"table: {self.weight.shape}, expected {items} x {width}")
            return
        _expect(table.get("kind") == "codes", f"table of kind {table.get('kind')!r:.80}")
        rows, offsets = table.get("rows"), table.get("offsets")
        for numbers in (rows, offsets):
            whole_numbers = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**31 for n in numbers)
            _expect(whole_numbers and 1 <= len(numbers) <= 64, "table: rows and offsets should be whole numbers")
        _expect(len(rows) == len(offsets), "table: as many offsets as rows")
        fits = all(m >= 1 and o + m <= len(self.weight) for m, o in zip(rows, offsets, strict=True))
        _expect(fits, "table: names rows that do not exist")
        self.slices = whole(table, "slices", 1, 64, "table")
        _expect(self.slices in (1, len(rows)), "table: slices should be 1 or the number of tables")
        _expect(self.weight.shape[1] * self.slices == width, "table: rows of another width")
        self.codes = _codes(file, table.get("codes"), rows, items)
        self.codes += np.array(offsets, dtype=np.int32)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + (0 if self.codes is None else self.codes.nbytes)

    def pieces(self, items: IntArray) -> FloatArray:
        """The rows of codes of the items 1..V. Shape [items, N, width / slices]."""
        assert self.codes is not None
        pieces: FloatArray = self.weight[self.codes[items - 1]]
        return pieces

    def vectors(self, items: IntArray) -> FloatArray:
        if self.codes is None:
            vectors: FloatArray = self.weight[items - 1]
            return vectors
        pieces = self.pieces(items)
        return pieces.sum(1) if self.slices == 1 else pieces.reshape(len(items), -1)

    def scores(self, hidden: FloatArray) -> FloatArray:
        if self.codes is None:
            return self.weight @ hidden
        parts = [hidden] * self.codes.shape[1] if self.slices == 1 else np.split(hidden, self.slices)
        scores = np.zeros(len(self.codes), dtype=np.float32)
        for column, part in zip(self.codes.T, parts, strict=True):
            scores += (self.weight @ part)[column]
        return scores


def _codes(file: BundleFile, source: Any, rows: list[int], items: int) -> npt.NDArray[np.int32]:
    """Code of each item in each table. Shape [V, N]."""
    kind = source.get("from") if isinstance(source, dict) else None
    if kind == "packed":
        codes = file.packed("codes", whole(source, "bits", 1, 32, "codes"), items * len(rows)).reshape(items, -1)
        _expect(bool((codes < np.array(rows)).all()), "codes: names a row that does not exist")
        return codes.astype(np.int32)
    _expect(len(rows) <= (17 if kind == "digits" else 8), f"{len(rows)} tables of codes from {kind!r:.80}")
    if kind == "digits":
        numbers = file.packed("numbers", whole(source, "bits", 1, 32, "codes"), items)
        digits = []
        for radix in rows:
            digits.append((numbers % radix).astype(np.int32))
            numbers = numbers // radix
        return np.stack(digits, axis=1)
    _expect(kind == "hash", f"codes from {kind!r:.80}")
    mask = np.uint64(0xFFFFFFFF)
    keys = (np.arange(1, items + 1)[:, None] + np.arange(len(rows)) * 0x9E3779B9).astype(np.uint64) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        keys ^= keys >> np.uint64(shift)
        keys = keys * np.uint64(factor) & mask
    return ((keys ^ (keys >> np.uint64(16))) % np.array(rows, dtype=np.uint64)).astype(np.int32)


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise BundleError(message)


def _program(engine: NumpyEngine, operations: list[Any]) -> list[_Operation]:
    _expect(1 <= len(operations) <= _OPERATIONS, f"a program of {len(operations)} operations")
    program: list[_Operation] = []
    for number, entry in enumerate(operations):
        where = f"operation {number}"
        _expect(isinstance(entry, dict) and isinstance(entry.get("in"), list), f"{where}: expected an object with 'in'")
        read = entry["in"]
        _expect(all(type(n) is int and 0 <= n < number for n in read), f"{where}: reads what is not there yet")
        kind = entry.get("op")
        make = _KINDS.get(kind) if isinstance(kind, str) else None
        if make is None:
            raise BundleError(f"{where}: no operation {kind!r:.80}")
        try:
            run, rows, columns = make(engine, entry, [program[n] for n in read])
        except BundleError as error:
            raise BundleError(f"{where} ({kind}): {error}") from error
        _expect(1 <= columns <= _COLUMNS, f"{where} ({kind}): {columns} columns")
        most = rows if isinstance(rows, int) else engine.history
        _expect(most >= 1 and most * columns <= _LARGEST, f"{where} ({kind}): {most} x {columns} numbers")
        program.append(_Operation(read=read, run=run, rows=rows, columns=columns))
    _expect(program[-1].rows == 1, "the last operation gives more than one row")
    return program


_Made = tuple[_Run, Rows, int]
_EVENTS: Rows = ("events", 0)


def _one(read: list[_Operation]) -> _Operation:
    _expect(len(read) == 1, f"reads {len(read)} matrices, expected 1")
    return read[0]


def _flag(entry: dict[str, Any], name: str) -> bool:
    found = entry.get(name)
    if not isinstance(found, bool):
        raise BundleError(f"{name!r} should be true or false")
    return found


def _number(value: Any, name: str) -> np.float32:
    if type(value) not in (int, float) or not abs(value) <= 3e38:
        raise BundleError(f"{name!r} is {value!r:.80}, expected a number")
    return np.float32(value)


def _items(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    factor, table = _number(entry.get("factor"), "factor"), engine.table
    if not read:
        return lambda _, history: table.vectors(history.items) * factor, _EVENTS, engine.width
    context, width = _one(read), engine.width
    _expect(context.columns == width and context.rows == _EVENTS, "a context for each event, as wide as the items")
    _expect(table.codes is not None, "a context needs codes")
    attention = engine.file.floats(entry.get("attention"), 2)
    _expect(attention.shape == (width, width), "attention of another shape")
    columns = attention.reshape(width, table.slices, -1)

    def run(matrices: list[FloatArray], history: _History) -> FloatArray:
        pieces = table.pieces(history.items)
        keys = pieces @ attention.T if table.slices == 1 else np.einsum("tnp,dnp->tnd", pieces, columns)
        weights = (_silu(keys) * matrices[0][:, None]).sum(-1, keepdims=True)
        weighed = _softmax(weights, axis=1) * pieces * factor
        return weighed.sum(1) if table.slices == 1 else weighed.reshape(len(weighed), -1)

    return run, _EVENTS, width


def _rows(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    table, index = engine.file.floats(entry.get("table"), 2), entry.get("index")
    count = len(table)
    if read or "of" in entry:
        _expect(index in ("position", "position_from_end"), "only positions have 'of'")
        _expect(entry.get("of") == entry["in"][0], "'of' is not what is read")
    rows = _one(read).rows if read else _EVENTS
    if index in ("position", "position_from_end"):
        most = rows if isinstance(rows, int) else engine.history
        _expect(count >= most, f"a table of {count} rows for {most} positions")

        def positions(matrices: list[FloatArray], history: _History) -> FloatArray:
            length = len(matrices[0]) if matrices else len(history.items)
            found: FloatArray = table[:length] if index == "position" else table[count - length :]
            return found

        return positions, rows, table.shape[1]
    categories = engine.file.manifest["categories"] + 2
    least = {
        "category": categories, "previous_category": categories, "hour": 25, "gap_before": 31, "gap_after": 31,
        "hour_after": 24, "weekday_after": 7,
    }.get(index if isinstance(index, str) else "")  # fmt: skip
    if least is None:
        raise BundleError(f"no index {index!r:.80}")
    _expect(count >= least, f"a table of {count} rows for {index}, expected {least}")

    def run(_: list[FloatArray], history: _History) -> FloatArray:
        row = _row_of(str(index), engine, history)
        found: FloatArray = table[np.maximum(row, 0)] * (row >= 0)[:, None]
        return found

    return run, _EVENTS, table.shape[1]


def _row_of(index: str, engine: NumpyEngine, history: _History) -> IntArray:
    """Row of each event in a table, -1 for none."""
    times = history.times
    before = np.concatenate([[-1], times[:-1]])
    after = np.concatenate([times[1:], [history.asked]])
    match index:
        case "category":
            return engine.category_rows(history.items)
        case "previous_category":
            return np.append([0], engine.category_rows(history.items[:-1]))
        case "hour":
            return np.where(times < 0, 0, times // _HOUR % 24 + 1)
        case "gap_before":
            return np.where((times >= 0) & (before >= 0), _gap(times - before), -1)
        case "gap_after":
            return np.where((times >= 0) & (after >= 0), _gap(after - times), -1)
        case "hour_after":
            return np.where(after >= 0, after // _HOUR % 24, -1)
        case _:
            return np.where(after >= 0, after // _DAY % 7, -1)


def _gap(milliseconds: IntArray) -> IntArray:
    seconds = (np.maximum(milliseconds, 0) // _SECOND + 1).astype(np.float64)
    found: IntArray = 1 + np.minimum(29, np.frexp(seconds)[1] - 1).astype(np.int64)
    return found


def _constant(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    _expect(not read, "reads nothing")
    matrix = engine.file.floats(entry.get("tensor"), 2)
    return lambda _, __: matrix, len(matrix), matrix.shape[1]


def _append(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    _expect(len(read) == 2 and read[0].columns == read[1].columns, "two matrices of the same width")
    first, second, most = read[0].rows, read[1].rows, engine.history
    if not isinstance(second, int):
        raise BundleError("what is appended has a number of rows that depends on the history")
    rows: Rows = min(first + second, most) if isinstance(first, int) else ("events", first[1] + second)
    return lambda matrices, _: np.concatenate(matrices)[-most:], rows, read[0].columns


def _linear(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, weight = _one(read), engine.file.floats(entry.get("weight"), 2)
    bias = None if entry.get("bias") is None else engine.file.floats(entry["bias"], 1)
    if _flag(entry, "transposed"):
        whole_matrix = entry.get("begin") == 0 and entry.get("end") == weight.shape[1]
        _expect(whole_matrix, f"transposed, begin and end should be 0 and {weight.shape[1]}")
        matrix = weight
    else:
        begin = whole(entry, "begin", 0, len(weight) - 1, "linear")
        end = whole(entry, "end", begin + 1, len(weight), "linear")
        _expect(bias is None or len(bias) == len(weight), "a bias of another length")
        matrix, bias = weight[begin:end].T, None if bias is None else bias[begin:end]
    _expect(matrix.shape[0] == x.columns, f"{x.columns} columns for a weight of {matrix.shape[0]}")
    _expect(bias is None or len(bias) == matrix.shape[1], "a bias of another length")
    name = entry.get("activation")
    activation = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None:
        raise BundleError(f"no activation {name!r:.80}")
    matrix = np.ascontiguousarray(matrix)
    rounds = "input_bits" in entry
    if rounds:
        whole(entry, "input_bits", 8, 8, "linear")
        _expect(
            entry["weight"] in engine.file.manifest["quantised"] and not entry["transposed"],
            "with input_bits, a quantised weight that is not transposed",
        )

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        y = (_rounded(matrices[0]) if rounds else matrices[0]) @ matrix
        return activation(y if bias is None else y + bias)

    return run, x.rows, matrix.shape[1]


def _rounded(x: FloatArray) -> FloatArray:
    """Each row in steps of 1/127 of its largest absolute number."""
    largest = np.abs(x).max(1, keepdims=True)
    factor = np.where(largest > np.float32(1e-30), np.float32(127) / np.maximum(largest, np.float32(1e-30)), 0)
    found: FloatArray = np.rint(x * factor.astype(np.float32)) * (largest / np.float32(127))
    return found


def _norm(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    weight, bias = engine.file.floats(entry.get("weight"), 1), engine.file.floats(entry.get("bias"), 1)
    eps = _number(entry.get("eps"), "eps")
    _expect(bool(eps > 0), "eps should be above 0")
    _expect(len(weight) == len(bias) == x.columns, "weight or bias of another length")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        centred = matrices[0] - matrices[0].mean(1, keepdims=True)
        variance = np.square(centred).mean(1, keepdims=True)
        normed: FloatArray = centred / np.sqrt(variance + eps) * weight + bias
        return normed

    return run, x.rows, x.columns


def _sum(_: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    factors = entry.get("factors")
    if not isinstance(factors, list) or not read or len(factors) != len(read):
        raise BundleError("a factor for each matrix")
    _expect(all((x.rows, x.columns) == (read[0].rows, read[0].columns) for x in read), "matrices of different shapes")
    numbers = [_number(factor, "factors") for factor in factors]

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        total = matrices[0] * numbers[0]
        for matrix, number in zip(matrices[1:], numbers[1:], strict=True):
            total = total + matrix * number
        return total

    return run, read[0].rows, read[0].columns


def _channels(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, vector = _one(read), engine.file.floats(entry.get("tensor"), 1)
    _expect(len(vector) == x.columns, "a vector of another length")
    return lambda matrices, _: matrices[0] * vector, x.rows, x.columns


def _concat(_: NumpyEngine, __: dict[str, Any], read: list[_Operation]) -> _Made:
    _expect(len(read) >= 1 and all(x.rows == read[0].rows for x in read), "matrices of different numbers of rows")
    return lambda matrices, _: np.concatenate(matrices, axis=1), read[0].rows, sum(x.columns for x in read)


def _convolution(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, kernel = _one(read), engine.file.floats(entry.get("kernel"), 2)
    heads, window = kernel.shape
    back, last = whole(entry, "back", 0, window - 1, "convolution"), _flag(entry, "last")
    _expect(x.columns % heads == 0, f"{x.columns} columns for {heads} heads")
    wide = np.repeat(kernel, x.columns // heads, axis=0).T  # [window, columns]

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        x = matrices[0]
        padded = np.pad(x, ((back, window - 1 - back), (0, 0)))
        y = np.zeros_like(x)
        for j in range(window):
            y += padded[j : j + len(x)] * wide[j]
        return y[-1:] if last else y

    return run, 1 if last else x.rows, x.columns


def _attention(_: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    _expect(len(read) == 3, "three matrices: queries, keys, values")
    q, k, v = read
    heads, causal = whole(entry, "heads", 1, _COLUMNS, "attention"), _flag(entry, "causal")
    scale = _number(entry.get("scale"), "scale")
    _expect(q.columns == k.columns and k.rows == v.rows, "queries, keys and values do not fit")
    _expect(q.columns % heads == 0 and v.columns % heads == 0, f"columns cannot be cut into {heads} heads")
    _expect(not causal or q.rows in (1, k.rows), "causal attention with more queries than keys")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        query, key, value = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in matrices)
        scores = (query @ key.transpose(0, 2, 1)) * scale
        if causal:
            queries, keys = scores.shape[1:]
            scores = np.where(np.tri(queries, keys, keys - queries, dtype=bool), scores, np.float32(-np.inf))
        attended = _softmax(scores, axis=-1) @ value
        merged: FloatArray = attended.transpose(1, 0, 2).reshape(attended.shape[1], -1)
        return merged

    return run, q.rows, v.columns


def _last(_: NumpyEngine, __: dict[str, Any], read: list[_Operation]) -> _Made:
    return lambda matrices, _: matrices[0][-1:], 1, _one(read).columns


def _circulant(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, kernel, last = _one(read), engine.file.floats(entry.get("kernel"), 1), _flag(entry, "last")
    most = x.rows if isinstance(x.rows, int) else engine.history
    _expect(len(kernel) >= most, f"a kernel of {len(kernel)} for {most} rows")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        places = np.arange(len(matrices[0]))
        out = places[-1:] if last else places
        mixed: FloatArray = kernel[(out[:, None] - places) % len(kernel)] @ matrices[0]
        return mixed

    return run, 1 if last else x.rows, x.columns


def _gru(engine: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    weights = [engine.file.floats(entry.get(name), 2) for name in ("input", "state")]
    biases = [engine.file.floats(entry.get(name), 1) for name in ("input_bias", "state_bias")]
    width = weights[1].shape[1]
    _expect(weights[0].shape == (3 * width, x.columns) and weights[1].shape == (3 * width, width), "weights do not fit")
    _expect(all(len(bias) == 3 * width for bias in biases), "biases do not fit")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        inputs = matrices[0] @ weights[0].T + biases[0]
        state, states = np.zeros(width, dtype=np.float32), []
        for row in inputs:
            gates = weights[1] @ state + biases[1]
            r, z = (_sigmoid(row[n * width : (n + 1) * width] + gates[n * width : (n + 1) * width]) for n in (0, 1))
            new = np.tanh(row[2 * width :] + r * gates[2 * width :])
            state = (1 - z) * new + z * state
            states.append(state)
        return np.stack(states)

    return run, x.rows, width


def _window(_: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, length = _one(read), whole(entry, "length", 1, _COLUMNS, "window")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        latest = matrices[0][-length:]
        return np.pad(latest, ((length - len(latest), 0), (0, 0)))

    return run, length, x.columns


def _fixed(x: _Operation) -> int:
    if not isinstance(x.rows, int):
        raise BundleError("reads a matrix whose number of rows depends on the history")
    return x.rows


def _unfold(_: NumpyEngine, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    rows = _fixed(x)
    height = whole(entry, "height", 1, rows, "unfold")
    out = rows - height + 1
    return (
        lambda matrices, _: np.stack([matrices[0][i : i + height].ravel() for i in range(out)]),
        out,
        (x.columns * height),
    )


def _max(_: NumpyEngine, __: dict[str, Any], read: list[_Operation]) -> _Made:
    return lambda matrices, _: matrices[0].max(0, keepdims=True), 1, _one(read).columns


def _transpose(_: NumpyEngine, __: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    return lambda matrices, _: matrices[0].T, x.columns, _fixed(x)


def _flatten(_: NumpyEngine, __: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    return lambda matrices, _: matrices[0].reshape(1, -1), 1, _fixed(x) * x.columns


_KINDS: dict[str, Callable[[NumpyEngine, dict[str, Any], list[_Operation]], _Made]] = {
    "items": _items, "rows": _rows, "constant": _constant, "append": _append, "linear": _linear, "norm": _norm,
    "sum": _sum, "channels": _channels, "concat": _concat, "convolution": _convolution, "attention": _attention,
    "last": _last, "circulant": _circulant, "gru": _gru, "window": _window, "unfold": _unfold, "max": _max,
    "transpose": _transpose, "flatten": _flatten,
}  # fmt: skip


def _softmax(x: FloatArray, axis: int) -> FloatArray:
    e = np.exp(x - x.max(axis, keepdims=True))
    shares: FloatArray = e / e.sum(axis, keepdims=True)
    return shares


def _sigmoid(x: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def _silu(x: FloatArray) -> FloatArray:
    return x * _sigmoid(x)


def _gelu(x: FloatArray) -> FloatArray:
    return (x / 2 * (1 + _erf(x * np.float32(0.5**0.5)))).astype(np.float32)


def _erf(x: FloatArray) -> FloatArray:
    """Within 2e-7: Abramowitz and Stegun 7.1.26, in doubles."""
    wide = x.astype(np.float64)
    t = 1 / (1 + 0.3275911 * np.abs(wide))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    found: Array = np.copysign(1 - series * np.exp(-wide * wide), wide)
    return found.astype(np.float32)


_ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
}
