"""ONNX Runtime: the backend that runs everywhere; onnxruntime_cuda.py has what is a GPU's."""

import importlib
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from picme_rt import devices
from picme_rt.backends import meeting, onnxruntime_cuda
from picme_rt.backends.graphs import Checked, Graphs
from picme_rt.backends.host import Arrays, Runner, narrowed
from picme_rt.backends.host_backend import HostBackend
from picme_rt.backends.meeting import Maker, Runners
from picme_rt.choices import Settings
from picme_rt.devices import Device
from picme_rt.errors import EngineError, MissingPackageError, one_line
from picme_rt.turns import Turns
from picme_rt.windows import Crop

if TYPE_CHECKING:
    import onnxruntime

_SPIN_US = "30"
_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_importing = threading.Lock()


def load(
    graphs: Graphs, settings: Settings, turns: Turns, calls: Turns | None = None
) -> HostBackend:
    """Loads both graphs; the arguments are as `backends.load` has them.

    Raises:
        MissingPackageError: onnxruntime is not installed, or cannot be imported.
        UnavailableError: The GPU that was asked for, or something that it needs, is missing.
        EngineError: ONNX Runtime does not take a graph.
    """
    device = devices.parse(settings.device)
    ort = _import(device)
    if device.kind == "cuda":
        onnxruntime_cuda.check(ort, device)
        onnxruntime_cuda.preload(ort)
        turns = Turns(1)  # a GPU computes one call at a time
    return HostBackend(
        settings,
        graphs.variant,
        turns,
        encoder=_runners(ort, graphs.encoder, 1, settings, (), calls).make,
        decoder=_runners(ort, graphs.decoder, settings.micro_batch, settings, graphs.crops, calls),
        windows=graphs.windows if device.kind == "cpu" else None,
    )


def check(device: Device, precision: str) -> None:
    """Whether ONNX Runtime is here, and what it needs on the device.

    Raises:
        MissingPackageError: onnxruntime is not installed, or cannot be imported.
        UnavailableError: Another thing is missing; the message says what and how to get it.
    """
    ort = _import(device)
    if device.kind == "cuda":
        onnxruntime_cuda.check(ort, device)


def runners(graph: Checked, settings: Settings) -> Callable[[], Runner]:
    """Runners of one graph that is alone in its engine; raises as `load` does."""
    return _runners(_import(), graph, settings.micro_batch, settings, (), None).make


def _import(device: Device = devices.CPU) -> ModuleType:
    """Imports ONNX Runtime without its telemetry, a thread that reports to its vendor."""
    with _importing:
        before = os.environ.get(_TELEMETRY)
        os.environ[_TELEMETRY] = "1"  # read once, by the import
        try:
            return importlib.import_module("onnxruntime")
        except ImportError as exc:
            extra = "cpu" if device.kind == "cpu" else "gpu"
            raise MissingPackageError(
                "this engine needs onnxruntime, which is not installed or cannot be imported "
                f"({one_line(exc)}); pip install 'picme_rt[{extra}]'"
            ) from exc
        finally:
            if before is None:
                del os.environ[_TELEMETRY]
            else:
                os.environ[_TELEMETRY] = before


def _runners(
    ort: ModuleType,
    graph: Checked,
    batch: int,
    settings: Settings,
    crops: tuple[Crop, ...],
    calls: Turns | None,
) -> Runners:
    device = devices.parse(settings.device)
    if device.kind == "cpu":

        def compiled(threads: int) -> Maker:
            session = _session(ort, graph, device, threads)
            return lambda given: _Runner(ort, session, given)

        return meeting.runners(graph.table, batch, settings.threads, compiled, calls)
    session = _session(ort, graph, device, settings.threads)
    onnxruntime_cuda.check_taken(session, device)

    def make() -> Runner:
        return onnxruntime_cuda.CudaRunner(
            ort, session, graph.table, batch, device=device, crops=crops
        )

    return Runners(make, None)


def _session(
    ort: ModuleType, graph: Checked, device: Device, threads: int
) -> "onnxruntime.InferenceSession":
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.kind == "cuda":
        providers = onnxruntime_cuda.providers(device)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, not printed as well
    options.use_deterministic_compute = device.kind == "cuda"  # the CPU is so anyway
    options.intra_op_num_threads = threads  # said as a number, they are not tied to cores
    # a thread waits for the next of many small operators by spinning, not for longer: it would
    # fight with NumPy's, and with whatever else runs here (docs/decisions.md); an ONNX Runtime
    # that does not know the duration stops at a run's end
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    try:
        session: onnxruntime.InferenceSession = ort.InferenceSession(
            graph.content, options, providers=providers, enable_fallback=0
        )
    except Exception as exc:  # ONNX Runtime's own errors share no public base but Exception
        raise EngineError(f"{graph.path} is no graph that runs: {one_line(exc)}") from exc
    return session


class _Runner:
    """See `Runner`: the buffers as OrtValues in one binding."""

    def __init__(self, ort: ModuleType, session: "onnxruntime.InferenceSession", given: Arrays):
        self.inputs, self.outputs = given
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
