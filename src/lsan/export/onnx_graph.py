"""An ONNX graph while it is written: nodes, constants, and the bundle's tensors in a few precisions."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lsan.errors import ConfigError
from lsan.export.onnx_settings import Precision
from lsan.runtime.file import Array, BundleFile, FloatArray

#: Rows of fewer numbers than this share one scale, as in a bundle.
_SHORT = 16

#: Largest protobuf message, less what a graph itself may take.
_LARGEST = 2**31 - 2**24


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of the bundle as it is stored in the model."""

    name: str
    """What it is called there; nothing else of a graph begins with `bundle.`."""
    values: Array
    """Floats, or whole numbers of 8 bits."""
    scales: FloatArray | None = None
    """What whole numbers are multiplied with: one number for each index of the first axis, or one in all."""

    @property
    def per_row(self) -> bool:
        """Whether there is more than one scale."""
        return self.scales is not None and len(self.scales) > 1

    def rows(self, begin: int, end: int) -> "Weight":
        """Some indices of the first axis."""
        return self.take(np.arange(begin, end), f"{self.name}[{begin}:{end}]")

    def take(self, rows: Array, name: str) -> "Weight":
        """These indices of the first axis."""
        scales = self.scales[rows] if self.scales is not None and self.per_row else self.scales
        return replace(self, name=name, values=self.values[rows], scales=scales)


def read_weight(file: BundleFile, name: str, dimensions: int, precision: Precision) -> Weight:
    """A tensor of floats of a bundle that an engine has accepted. What has 4 or 8 bits keeps its numbers and scales."""
    found, stored = file.quantised(name, dimensions), f"bundle.{name}"
    if found is not None:
        return Weight(name=stored, values=found[0].astype(np.int8), scales=found[1])
    values = file.tensors[name]
    if precision == "int8" and dimensions > 1:
        rows = values.reshape(len(values) if values[0].size >= _SHORT else 1, -1).astype(np.float32)
        scales = np.abs(rows).max(1) / np.float32(127)
        numbers = np.rint(rows / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
        return Weight(name=stored, values=numbers.reshape(values.shape), scales=scales)
    if precision == "float16" and np.abs(values).max() <= np.finfo(np.float16).max:
        values = values.astype(np.float16)
    return Weight(name=stored, values=values)


class Graph:
    """Nodes and initialisers. Every method that gives a name gives that of a tensor of the graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._decoded: dict[str, str] = {}
        self._count = 0

    def node(self, op: str, *read: str, name: str | None = None, **attributes: Any) -> str:
        """A node with one output; `name` is the output's."""
        if name is None:
            self._count += 1
            name = f"{op}_{self._count}"
        self.nodes.append(helper.make_node(op, read, [name], **attributes))
        return name

    def nodes_with(self, op: str, outputs: int, *read: str, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        self._count += 1
        names = [f"{op}_{self._count}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, read, names, **attributes))
        return names

    def stored(self, name: str, values: Array) -> str:
        """An initialiser of that name, made at the first call."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant; int64 unless told otherwise."""
        values = np.array(value, dtype=dtype)
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self.stored(f"constant_{len(self._constants)}", values)
        return self._constants[key]

    def number(self, value: float) -> str:
        """A float32 without dimensions."""
        return self.constant(value, np.float32)

    def floats(self, weight: Weight) -> str:
        """A weight's values in float32, decoded when the model is loaded or run: the file has what is stored."""
        if weight.name not in self._decoded:
            stored = self.stored(weight.name, weight.values)
            if weight.scales is not None:
                scales = weight.scales if weight.per_row else weight.scales[0]
                given = self.stored(f"{weight.name}.scale", np.asarray(scales, dtype=np.float32))
                stored = self.node("DequantizeLinear", stored, given, axis=0)
                # A sum of one term keeps onnxruntime from moving the decoding. Before a product of matrices it would
                # take it to mean that the other side may be rounded to 8 bits too, and be off by half a percent.
                stored = self.node("Sum", stored)
            elif weight.values.dtype != np.float32:
                stored = self.node("Cast", stored, to=TensorProto.FLOAT)
            self._decoded[weight.name] = stored
        return self._decoded[weight.name]

    def transposed(self, weight: Weight) -> str:
        """A matrix the other way round."""
        return self.node("Transpose", self.floats(weight), perm=[1, 0])

    def gather(self, weight: Weight, rows: str) -> str:
        """Rows of a weight in float32: only they are decoded."""
        found = self.node("Gather", self.stored(weight.name, weight.values), rows, axis=0)
        if weight.values.dtype != np.float32:
            found = self.node("Cast", found, to=TensorProto.FLOAT)
        if weight.scales is None:
            return found
        scales = np.asarray(weight.scales if weight.per_row else weight.scales[0], dtype=np.float32)
        given = self.stored(f"{weight.name}.scale", scales)
        if weight.per_row:
            given = self.node("Unsqueeze", self.node("Gather", given, rows, axis=0), self.constant([-1]))
        return self.node("Mul", found, given)

    # ---- a few nodes that are often wanted

    def slice(self, x: str, axis: int, begin: int | str, end: int | str, step: int = 1) -> str:
        """Indices begin, begin + step, ... of an axis; whole numbers, or names of tensors [1]."""
        begin, end = (self.constant([place]) if isinstance(place, int) else place for place in (begin, end))
        return self.node("Slice", x, begin, end, self.constant([axis]), self.constant([step]))

    def reversed(self, x: str, axis: int) -> str:
        return self.slice(x, axis, -1, -(2**62), -1)

    def size(self, x: str, axis: int) -> str:
        """How long an axis is. Shape [1]."""
        return self.node("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis."""
        return self.node("Reshape", x, self.constant(shape))

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.node("Unsqueeze", x, self.constant(axes))

    def scaled(self, x: str, factor: float) -> str:
        return x if factor == 1 else self.node("Mul", x, self.number(factor))

    def cast(self, x: str, kind: int = TensorProto.INT64) -> str:
        return self.node("Cast", x, to=kind)

    def range(self, length: str | int) -> str:
        """0, 1, ... Shape [length]; `length` is a whole number, or the name of a tensor [1]."""
        end = self.constant(length) if isinstance(length, int) else self.node("Squeeze", length, self.constant([0]))
        return self.node("Range", self.constant(0), end, self.constant(1))

    def check_size(self) -> None:
        """Raises `ConfigError` when the initialisers do not fit into one file."""
        whole = sum(len(tensor.raw_data) for tensor in self.initializers.values())
        if whole > _LARGEST:
            raise ConfigError(
                f"the model would have {whole:,} bytes, and an ONNX file holds 2 GiB; "
                "take a lower --precision, or compress the run first (lsan compress)"
            )
