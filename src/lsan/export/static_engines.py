"""ExecuTorch and LiteRT: a `StaticNetwork` as the file of each, and that file in its runtime, one thread."""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lsan.errors import ConfigError
from lsan.export.static import StaticNetwork
from lsan.runtime.file import Array, FloatArray

#: Scores [V] of inputs as `StaticNetwork.forward` reads them.
Scores = Callable[[list[Array]], FloatArray]

StaticEngineName = Literal["executorch", "litert"]


@dataclass(frozen=True, kw_only=True)
class StaticEngine:
    """One engine. Both functions raise what the engine raises."""

    packages: dict[str, str]
    """Modules that it needs, and the distributions that have them; the last one is the runtime."""
    convert: Callable[[StaticNetwork], bytes]
    """The file of a network."""
    load: Callable[[bytes], Scores]
    """A file, ready to score."""

    @property
    def version(self) -> str:
        """Of the runtime."""
        package = list(self.packages.values())[-1]
        return f"{package} {version(package)}"


def _to_executorch(network: StaticNetwork) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(network, network.example())
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    return bytes(program.buffer)


def _load_executorch(content: bytes) -> Scores:
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)  # there is no other way to ask for one thread
    with tempfile.TemporaryDirectory(prefix="lsan-executorch-") as folder:
        path = Path(folder) / "model.pte"
        path.write_bytes(content)
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")

    def scores(inputs: list[Array]) -> FloatArray:
        assert program is not None  # the method needs it to be there still
        found: Tensor = method.execute([torch.from_numpy(one) for one in inputs])[0]
        return found[0].numpy().copy()

    return scores


def _to_litert(network: StaticNetwork) -> bytes:
    if network.timed:
        raise ConfigError("the model reads times, whose 64 bits LiteRT does not take; use --to onnx or --to executorch")
    import litert_torch

    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="lsan-litert-") as folder:
        path = Path(folder) / "model.tflite"
        litert_torch.convert(network, network.example()).export(str(path))
        return path.read_bytes()


def _load_litert(content: bytes) -> Scores:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    place, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def scores(inputs: list[Array]) -> FloatArray:
        interpreter.set_tensor(place, inputs[0])
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(out)[0])

    return scores


STATIC_ENGINES: dict[StaticEngineName, StaticEngine] = {
    "executorch": StaticEngine(
        packages={"executorch": "executorch"}, convert=_to_executorch, load=_load_executorch
    ),
    "litert": StaticEngine(
        packages={"litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert"},
        convert=_to_litert, load=_load_litert,
    ),
}  # fmt: skip
