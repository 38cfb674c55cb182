"""ONNX Runtime on the CPU: the backend that runs everywhere."""

import importlib
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from picme_rt.backends.graphs import Checked, Graphs
from picme_rt.backends.host import HostBackend, Runner, buffers, narrowed
from picme_rt.choices import Settings
from picme_rt.errors import EngineError, MissingPackageError, one_line
from picme_rt.tensors import Graph
from picme_rt.turns import Turns

if TYPE_CHECKING:
    import onnxruntime

_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_importing = threading.Lock()


def load(graphs: Graphs, settings: Settings, turns: Turns) -> HostBackend:
    """Loads both graphs.

    Raises:
        MissingPackageError: onnxruntime is not installed, or cannot be imported.
        EngineError: ONNX Runtime does not take a graph.
    """
    ort = _import()
    return HostBackend(
        settings,
        graphs.variant,
        turns,
        encoder=_runners(ort, graphs.encoder, 1, settings.threads),
        decoder=_runners(ort, graphs.decoder, settings.micro_batch, settings.threads),
        crops=graphs.crops,
    )


def runners(graph: Checked, settings: Settings) -> Callable[[], Runner]:
    """Runners of one graph that is alone in its engine; raises as `load` does."""
    return _runners(_import(), graph, settings.micro_batch, settings.threads)


def _import() -> ModuleType:
    """Imports ONNX Runtime without its telemetry, a thread that reports to its vendor."""
    with _importing:
        before = os.environ.get(_TELEMETRY)
        os.environ[_TELEMETRY] = "1"  # read once, by the import
        try:
            return importlib.import_module("onnxruntime")
        except ImportError as exc:
            raise MissingPackageError(
                "this engine needs onnxruntime, which is not installed or cannot be imported "
                f"({one_line(exc)}); pip install 'picme_rt[cpu]'"
            ) from exc
        finally:
            if before is None:
                del os.environ[_TELEMETRY]
            else:
                os.environ[_TELEMETRY] = before


def _runners(ort: ModuleType, graph: Checked, batch: int, threads: int) -> Callable[[], Runner]:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, not printed as well
    options.intra_op_num_threads = threads  # said as a number, they are not tied to cores
    # idle threads that spin fight with NumPy's between two decodes (docs/decisions.md)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    try:
        session = ort.InferenceSession(
            graph.content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as exc:  # ONNX Runtime's own errors share no public base but Exception
        raise EngineError(f"{graph.path} is no graph that runs: {one_line(exc)}") from exc
    return lambda: _Runner(ort, session, graph.table, batch)


class _Runner:
    """See `Runner`: the buffers as OrtValues in one binding."""

    def __init__(
        self, ort: ModuleType, session: "onnxruntime.InferenceSession", table: Graph, batch: int
    ):
        self.inputs, self.outputs = buffers(table.inputs, batch), buffers(table.outputs, batch)
        self._ort, self._session, self._binding = ort, session, session.io_binding()
        self._largest = self.outputs.get("picture")
        self._values = []  # an OrtValue views its array and must outlive the binding
        for arrays, bind in (
            (self.inputs, self._binding.bind_ortvalue_input),
            (self.outputs, self._binding.bind_ortvalue_output),
        ):
            for name, array in arrays.items():
                value = ort.OrtValue.ortvalue_from_numpy(array)
                bind(name, value)
                self._values.append(value)

    def narrow(self, height: int, width: int) -> None:
        assert self._largest is not None  # a decoder's
        self.outputs["picture"] = narrowed(self._largest, height, width)
        self._narrow = self._ort.OrtValue.ortvalue_from_numpy(self.outputs["picture"])
        self._binding.bind_ortvalue_output("picture", self._narrow)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)
