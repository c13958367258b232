"""The operations of a bundle's program in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsan.errors import BundleError
from lsan.runtime.file import Array, BundleFile, FloatArray, IntArray, expect, whole
from lsan.runtime.item_table import ItemTable

#: Largest matrix of a program, and all that it makes for one history, in numbers.
_LARGEST, _ALL = 2**26, 2**28

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


class Program:
    """The operations of a bundle, ready to run."""

    def __init__(self, file: BundleFile, table: ItemTable, categories: IntArray) -> None:
        """`categories` has the row of each item 0..V in a table of categories. Raises `BundleError` when the program or
        its tensors are not what docs/bundle.md says."""
        self.file, self.table = file, table
        self.history, self.width = file.manifest["history"], file.manifest["width"]
        self._categories = categories
        self._operations: list[_Operation] = []
        operations = file.manifest["program"]
        expect(1 <= len(operations) <= _OPERATIONS, f"a program of {len(operations)} operations")
        numbers = 0
        for number, entry in enumerate(operations):
            made = self._operation(number, entry)
            self._operations.append(made)
            numbers += self.most_rows(made) * made.columns
        expect(numbers <= _ALL, f"the program makes {numbers} numbers, more than {_ALL}")
        expect(self._operations[-1].rows == 1, "the last operation gives more than one row")

    def _operation(self, number: int, entry: Any) -> _Operation:
        where = f"operation {number}"
        expect(isinstance(entry, dict) and isinstance(entry.get("in"), list), f"{where}: expected an object with 'in'")
        read = entry["in"]
        expect(all(type(n) is int and 0 <= n < number for n in read), f"{where}: reads what is not there yet")
        kind = entry.get("op")
        make = _KINDS.get(kind) if isinstance(kind, str) else None
        if make is None:
            raise BundleError(f"{where}: no operation {kind!r:.80}")
        try:
            run, rows, columns = make(self, entry, [self._operations[n] for n in read])
        except BundleError as error:
            raise BundleError(f"{where} ({kind}): {error}") from error
        expect(1 <= columns <= _COLUMNS, f"{where} ({kind}): {columns} columns")
        made = _Operation(read=read, run=run, rows=rows, columns=columns)
        most = self.most_rows(made)
        expect(most >= 1 and most * columns <= _LARGEST, f"{where} ({kind}): {most} x {columns} numbers")
        return made

    def most_rows(self, operation: _Operation) -> int:
        """Rows of what the operation gives for the longest history."""
        return operation.rows if isinstance(operation.rows, int) else self.history

    @property
    def shapes(self) -> list[tuple[Rows, int]]:
        """Rows and columns of what each operation gives."""
        return [(operation.rows, operation.columns) for operation in self._operations]

    def category_rows(self, items: IntArray) -> IntArray:
        """Category of each item as `rows` counts them: C + 1 where unknown."""
        return self._categories[items]

    def run(self, items: IntArray, times: IntArray | None, asked: int) -> FloatArray:
        """What the last operation gives for a history of items 1..V, of which the latest are read."""
        latest = items[-self.history :]
        known = np.full(len(latest), -1) if times is None else times[-self.history :]
        history = _History(items=latest, times=known, asked=asked)
        results: list[FloatArray] = []
        with np.errstate(all="ignore"):  # weights of 1e38 are numbers too
            for operation in self._operations:
                results.append(operation.run([results[number] for number in operation.read], history))
        hidden: FloatArray = results[-1][0]
        return hidden


_Made = tuple[_Run, Rows, int]
_EVENTS: Rows = ("events", 0)


def _one(read: list[_Operation]) -> _Operation:
    expect(len(read) == 1, f"reads {len(read)} matrices, expected 1")
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


def _items(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    factor, table = _number(entry.get("factor"), "factor"), program.table
    if not read:
        return lambda _, history: table.vectors(history.items) * factor, _EVENTS, program.width
    context, width = _one(read), program.width
    expect(context.columns == width and context.rows == _EVENTS, "a context for each event, as wide as the items")
    expect(table.codes is not None, "a context needs codes")
    attention = program.file.floats(entry.get("attention"), 2)
    expect(attention.shape == (width, width), "attention of another shape")
    columns = attention.reshape(width, table.slices, -1)

    def run(matrices: list[FloatArray], history: _History) -> FloatArray:
        pieces = table.pieces(history.items)
        keys = pieces @ attention.T if table.slices == 1 else np.einsum("tnp,dnp->tnd", pieces, columns)
        weights = (_silu(keys) * matrices[0][:, None]).sum(-1, keepdims=True)
        weighed = _softmax(weights, axis=1) * pieces * factor
        return weighed.sum(1) if table.slices == 1 else weighed.reshape(len(weighed), -1)

    return run, _EVENTS, width


def _rows(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    table, index = program.file.floats(entry.get("table"), 2), entry.get("index")
    count = len(table)
    if read or "of" in entry:
        expect(index in ("position", "position_from_end"), "only positions have 'of'")
        expect(entry["in"] == [entry.get("of")], "'of' is not what is read")
    rows = read[0].rows if read else _EVENTS
    if index in ("position", "position_from_end"):
        most = program.most_rows(read[0]) if read else program.history
        expect(count >= most, f"a table of {count} rows for {most} positions")

        def positions(matrices: list[FloatArray], history: _History) -> FloatArray:
            length = len(matrices[0]) if matrices else len(history.items)
            found: FloatArray = table[:length] if index == "position" else table[count - length :]
            return found

        return positions, rows, table.shape[1]
    categories = program.file.manifest["categories"] + 2
    least = {
        "category": categories, "previous_category": categories, "hour": 25, "gap_before": 31, "gap_after": 31,
        "hour_after": 24, "weekday_after": 7,
    }.get(index if isinstance(index, str) else "")  # fmt: skip
    if least is None:
        raise BundleError(f"no index {index!r:.80}")
    expect(count >= least, f"a table of {count} rows for {index}, expected {least}")

    def run(_: list[FloatArray], history: _History) -> FloatArray:
        row = _row_of(str(index), program, history)
        found: FloatArray = table[np.maximum(row, 0)] * (row >= 0)[:, None]
        return found

    return run, _EVENTS, table.shape[1]


def _row_of(index: str, program: Program, history: _History) -> IntArray:
    """Row of each event in a table, -1 for none."""
    times = history.times
    before = np.concatenate([[-1], times[:-1]])
    after = np.concatenate([times[1:], [history.asked]])
    match index:
        case "category":
            return program.category_rows(history.items)
        case "previous_category":
            return np.append([0], program.category_rows(history.items[:-1]))
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


def _constant(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    expect(not read, "reads nothing")
    matrix = program.file.floats(entry.get("tensor"), 2)
    return lambda _, __: matrix, len(matrix), matrix.shape[1]


def _append(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    expect(len(read) == 2 and read[0].columns == read[1].columns, "two matrices of the same width")
    first, second, most = read[0].rows, read[1].rows, program.history
    if not isinstance(second, int):
        raise BundleError("what is appended has a number of rows that depends on the history")
    rows: Rows = min(first + second, most) if isinstance(first, int) else ("events", first[1] + second)
    return lambda matrices, _: np.concatenate(matrices)[-most:], rows, read[0].columns


def _linear(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, weight = _one(read), program.file.floats(entry.get("weight"), 2)
    bias = None if entry.get("bias") is None else program.file.floats(entry["bias"], 1)
    if _flag(entry, "transposed"):
        whole_matrix = entry.get("begin") == 0 and entry.get("end") == weight.shape[1]
        expect(whole_matrix, f"transposed, begin and end should be 0 and {weight.shape[1]}")
        matrix = weight
    else:
        begin = whole(entry, "begin", 0, len(weight) - 1, "linear")
        end = whole(entry, "end", begin + 1, len(weight), "linear")
        expect(bias is None or len(bias) == len(weight), "a bias of another length")
        matrix, bias = weight[begin:end].T, None if bias is None else bias[begin:end]
    expect(matrix.shape[0] == x.columns, f"{x.columns} columns for a weight of {matrix.shape[0]}")
    expect(bias is None or len(bias) == matrix.shape[1], "a bias of another length")
    name = entry.get("activation")
    activation = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None:
        raise BundleError(f"no activation {name!r:.80}")
    matrix = np.ascontiguousarray(matrix)
    rounds = "input_bits" in entry
    if rounds:
        whole(entry, "input_bits", 8, 8, "linear")
        expect(
            entry["weight"] in program.file.manifest["quantised"] and not entry["transposed"],
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


def _norm(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    weight, bias = program.file.floats(entry.get("weight"), 1), program.file.floats(entry.get("bias"), 1)
    eps = _number(entry.get("eps"), "eps")
    expect(bool(eps > 0), "eps should be above 0")
    expect(len(weight) == len(bias) == x.columns, "weight or bias of another length")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        centred = matrices[0] - matrices[0].mean(1, keepdims=True)
        variance = np.square(centred).mean(1, keepdims=True)
        normed: FloatArray = centred / np.sqrt(variance + eps) * weight + bias
        return normed

    return run, x.rows, x.columns


def _sum(_: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    factors = entry.get("factors")
    if not isinstance(factors, list) or not read or len(factors) != len(read):
        raise BundleError("a factor for each matrix")
    expect(all((x.rows, x.columns) == (read[0].rows, read[0].columns) for x in read), "matrices of different shapes")
    numbers = [_number(factor, "factors") for factor in factors]

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        total = matrices[0] * numbers[0]
        for matrix, number in zip(matrices[1:], numbers[1:], strict=True):
            total = total + matrix * number
        return total

    return run, read[0].rows, read[0].columns


def _channels(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, vector = _one(read), program.file.floats(entry.get("tensor"), 1)
    expect(len(vector) == x.columns, "a vector of another length")
    return lambda matrices, _: matrices[0] * vector, x.rows, x.columns


def _concat(_: Program, __: dict[str, Any], read: list[_Operation]) -> _Made:
    expect(len(read) >= 1 and all(x.rows == read[0].rows for x in read), "matrices of different numbers of rows")
    return lambda matrices, _: np.concatenate(matrices, axis=1), read[0].rows, sum(x.columns for x in read)


def _convolution(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, kernel = _one(read), program.file.floats(entry.get("kernel"), 2)
    heads, window = kernel.shape
    back, last = whole(entry, "back", 0, window - 1, "convolution"), _flag(entry, "last")
    expect(x.columns % heads == 0, f"{x.columns} columns for {heads} heads")
    wide = np.repeat(kernel, x.columns // heads, axis=0).T  # [window, columns]

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        x = matrices[0]
        padded = np.pad(x, ((back, window - 1 - back), (0, 0)))
        y = np.zeros_like(x)
        for j in range(window):
            y += padded[j : j + len(x)] * wide[j]
        return y[-1:] if last else y

    return run, 1 if last else x.rows, x.columns


def _attention(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    expect(len(read) == 3, "three matrices: queries, keys, values")
    q, k, v = read
    heads, causal = whole(entry, "heads", 1, _COLUMNS, "attention"), _flag(entry, "causal")
    scale = _number(entry.get("scale"), "scale")
    expect(q.columns == k.columns and k.rows == v.rows, "queries, keys and values do not fit")
    expect(q.columns % heads == 0 and v.columns % heads == 0, f"columns cannot be cut into {heads} heads")
    expect(not causal or _never_more(q.rows, k.rows, program.history), "causal attention with more queries than keys")
    scores = heads * program.most_rows(q) * program.most_rows(k)
    expect(scores <= _LARGEST, f"attention of {scores} numbers, more than {_LARGEST}")

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


def _never_more(rows: Rows, others: Rows, history: int) -> bool:
    """Whether there are at most as many rows as others, whatever the number of events."""
    if isinstance(rows, int):
        return rows <= (others if isinstance(others, int) else min(1 + others[1], history))
    return history <= others if isinstance(others, int) else rows[1] <= others[1]


def _last(_: Program, __: dict[str, Any], read: list[_Operation]) -> _Made:
    return lambda matrices, _: matrices[0][-1:], 1, _one(read).columns


def _circulant(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, kernel, last = _one(read), program.file.floats(entry.get("kernel"), 1), _flag(entry, "last")
    most = program.most_rows(x)
    expect(len(kernel) >= most, f"a kernel of {len(kernel)} for {most} rows")
    numbers = most * (1 if last else most)
    expect(numbers <= _LARGEST, f"a circulant of {numbers} numbers, more than {_LARGEST}")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        places = np.arange(len(matrices[0]))
        out = places[-1:] if last else places
        mixed: FloatArray = kernel[(out[:, None] - places) % len(kernel)] @ matrices[0]
        return mixed

    return run, 1 if last else x.rows, x.columns


def _gru(program: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    weights = [program.file.floats(entry.get(name), 2) for name in ("input", "state")]
    biases = [program.file.floats(entry.get(name), 1) for name in ("input_bias", "state_bias")]
    width = weights[1].shape[1]
    expect(weights[0].shape == (3 * width, x.columns) and weights[1].shape == (3 * width, width), "weights do not fit")
    expect(all(len(bias) == 3 * width for bias in biases), "biases do not fit")

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


def _window(_: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x, length = _one(read), whole(entry, "length", 1, _COLUMNS, "window")

    def run(matrices: list[FloatArray], _: _History) -> FloatArray:
        latest = matrices[0][-length:]
        return np.pad(latest, ((length - len(latest), 0), (0, 0)))

    return run, length, x.columns


def _fixed(x: _Operation) -> int:
    if not isinstance(x.rows, int):
        raise BundleError("reads a matrix whose number of rows depends on the history")
    return x.rows


def _unfold(_: Program, entry: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    rows = _fixed(x)
    height = whole(entry, "height", 1, rows, "unfold")
    out = rows - height + 1
    return (
        lambda matrices, _: np.stack([matrices[0][i : i + height].ravel() for i in range(out)]),
        out,
        (x.columns * height),
    )


def _max(_: Program, __: dict[str, Any], read: list[_Operation]) -> _Made:
    return lambda matrices, _: matrices[0].max(0, keepdims=True), 1, _one(read).columns


def _transpose(_: Program, __: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    return lambda matrices, _: matrices[0].T, x.columns, _fixed(x)


def _flatten(_: Program, __: dict[str, Any], read: list[_Operation]) -> _Made:
    x = _one(read)
    return lambda matrices, _: matrices[0].reshape(1, -1), 1, _fixed(x) * x.columns


_KINDS: dict[str, Callable[[Program, dict[str, Any], list[_Operation]], _Made]] = {
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
