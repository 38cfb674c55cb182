"""ONNX Runtime on the CPU: the backend that runs everywhere."""

import importlib
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from picme_rt import graph_shapes
from picme_rt.engine import Engine
from picme_rt.errors import ClosedError, EngineError, MissingPackageError, one_line
from picme_rt.images import Float
from picme_rt.tensors import Graph

if TYPE_CHECKING:
    import onnxruntime

MICRO_BATCH = 1
"""Latents a decoder call: always the same number, so that a picture's bits never depend on k."""


def _import() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as exc:
        raise MissingPackageError(
            "this engine needs onnxruntime, which is not installed; pip install 'picme_rt[cpu]'"
        ) from exc


class OnnxRuntime:
    """An engine's two graphs in ONNX Runtime, on its CPU provider."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, engine: Engine, precision: str):
        self._ort = _import()
        self.precision, self.micro_batch = precision, MICRO_BATCH
        files, tables = engine.variants[precision], engine.tables
        self._encoder = self._open(engine, files["encoder"], tables.encoder)
        self._decoder = self._open(engine, files["decoder"], tables.decoder)
        self._tables = tables
        self._free: list[_Decoding] = []
        self._lock = threading.Lock()

    def _open(self, engine: Engine, name: str, graph: Graph) -> "onnxruntime.InferenceSession":
        path, content = engine.path / name, engine.read(name)
        try:
            graph_shapes.check(content, graph)  # before any of it reaches ONNX Runtime
        except EngineError as exc:
            raise EngineError(
                f"{path} is no graph of an engine: {one_line(exc)}; export it again"
            ) from exc
        options = self._ort.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, not printed as well
        # idle threads that spin fight with NumPy's between two decodes (docs/decisions.md)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.add_session_config_entry("session.strict_shape_type_inference", "1")
        try:
            return self._ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as exc:  # ONNX Runtime's own errors share no public base but Exception
            raise EngineError(f"{path} is no graph that runs: {one_line(exc)}") from exc

    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        """The encoder's outputs by name; see `Backend.encode`."""
        names = [t.name for t in self._tables.encoder.outputs]
        try:
            values = self._encoder.run(names, {"image": image, "hole": hole})
        except Exception as exc:
            raise EngineError(f"the encoder did not run: {one_line(exc)}") from exc
        return dict(zip(names, values, strict=True))

    def decoding(self, encoded: dict[str, Float]) -> "_Decoding":
        """The decoder bound to one picture, in buffers that an earlier call gave back if any."""
        with self._lock:
            found = self._free.pop() if self._free else None
        if found is None:
            found = _Decoding(self._ort, self._decoder, self._tables.decoder, self._free)
        found.fill(encoded)
        return found


class _Decoding:
    """Input and output buffers of the decoder, bound once and reused."""

    def __init__(
        self,
        ort: ModuleType,
        session: "onnxruntime.InferenceSession",
        graph: Graph,
        free: "list[_Decoding]",
    ):
        self._session, self._free, self._open = session, free, False
        self._binding = session.io_binding()
        self._buffers: dict[str, Float] = {}
        self._values = []  # an OrtValue views its array and must outlive the binding
        for tensor in (*graph.inputs, *graph.outputs):
            buffer = np.zeros((MICRO_BATCH, *tensor.shape), np.float32)
            self._buffers[tensor.name] = buffer
            value = ort.OrtValue.ortvalue_from_numpy(buffer)
            bind = (
                self._binding.bind_ortvalue_input
                if tensor in graph.inputs
                else self._binding.bind_ortvalue_output
            )
            bind(tensor.name, value)
            self._values.append(value)
        self._output = graph.outputs[0].name

    def fill(self, encoded: dict[str, Float]) -> None:
        """Copies one picture's features into every place of the micro-batch."""
        self._open = True
        for name, buffer in self._buffers.items():
            if name in encoded:
                buffer[:] = encoded[name]

    def __call__(self, z: Float) -> Float:
        """See `Decoding`."""
        if not self._open:
            raise ClosedError("this decoding was closed; encode the picture again")
        self._buffers["z"][:] = z
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as exc:
            raise EngineError(f"the decoder did not run: {one_line(exc)}") from exc
        return self._buffers[self._output]

    def close(self) -> None:
        """Gives the buffers back to the backend."""
        if self._open:
            self._open = False
            self._free.append(self)  # atomic in CPython; only `decoding` takes from it
