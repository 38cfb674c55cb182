"""OpenVINO on the CPU: float32, bfloat16 from the same float32 files, and int8.

In bf16 and int8 the encoder stays in float32: indices, primitives and log probabilities are those
of fp32 to the bit, and only the decoder's pictures differ. What an int8 decoder does not quantise
is computed in bfloat16 where the CPU has it, and everything in float32 where int8 would saturate.
"""

import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from picme_rt import choices
from picme_rt.backends import meeting, openvino_int8, openvino_norms, openvino_rounding
from picme_rt.backends.graphs import Checked, Graphs
from picme_rt.backends.host import Arrays, Runner, narrowed
from picme_rt.backends.host_backend import HostBackend
from picme_rt.backends.meeting import Maker, Runners
from picme_rt.choices import Settings
from picme_rt.errors import EngineError, MissingPackageError, UnavailableError, one_line
from picme_rt.turns import Turns

if TYPE_CHECKING:
    import openvino

_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


def load(
    graphs: Graphs, settings: Settings, turns: Turns, calls: Turns | None = None
) -> HostBackend:
    """Loads both graphs; the arguments are as `backends.load` has them.

    Raises:
        MissingPackageError: openvino is not installed, or cannot be imported.
        UnavailableError: This CPU does not compute in the precision.
        EngineError: OpenVINO does not take a graph.
    """
    openvino = _import()
    core, kind = _core(openvino, settings)
    return HostBackend(
        settings,
        graphs.variant,
        turns,
        encoder=_runners(core, graphs.encoder, 1, settings.threads, openvino.Type.f32, calls).make,
        decoder=_runners(core, graphs.decoder, settings.micro_batch, settings.threads, kind, calls),
        windows=graphs.windows,
    )


def runners(graph: Checked, settings: Settings) -> Callable[[], Runner]:
    """Runners of one graph that is alone in its engine; raises as `load` does."""
    core, kind = _core(_import(), settings)
    return _runners(core, graph, settings.micro_batch, settings.threads, kind, None).make


def _core(openvino: ModuleType, settings: Settings) -> "tuple[openvino.Core, openvino.Type]":
    """What compiles, and the kind of number that the precision is computed in."""
    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if settings.precision == "bf16" and "BF16" not in able:
        raise UnavailableError(
            f"precision bf16 needs a CPU that computes in it, this one has {able}; "
            "use precision='fp32'"
        )
    lowered = settings.precision in ("bf16", "int8") and "BF16" in able
    return core, openvino.Type.bf16 if lowered else openvino.Type.f32


def _import() -> ModuleType:
    """Imports OpenVINO without its telemetry, which reports each import of it to its vendor."""
    with _importing:
        there = sys.modules.get(_TELEMETRY)
        if there is None:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # so its import fails
        try:
            return importlib.import_module("openvino")
        except ImportError as exc:
            raise MissingPackageError(
                "backend openvino is not installed or cannot be imported "
                f"({one_line(exc)}); pip install 'picme_rt[openvino]'"
            ) from exc
        finally:
            if there is None:
                del sys.modules[_TELEMETRY]


def _runners(
    core: "openvino.Core",
    graph: Checked,
    batch: int,
    threads: int,
    kind: "openvino.Type",
    calls: Turns | None,
) -> Runners:
    def compiled(threads: int) -> Maker:
        return _compiled(core, graph, batch, threads, kind)

    return meeting.runners(graph.table, batch, threads, compiled, calls)


def _compiled(
    core: "openvino.Core", graph: Checked, batch: int, threads: int, kind: "openvino.Type"
) -> Maker:
    # runs of several callers go side by side, each on its own threads, as far as there are cores
    streams = max(1, choices.cores() // threads)
    try:
        model = core.read_model(graph.content, b"")
        shapes = {
            t.name: [batch, *t.shape] if t.batched else [*t.shape] for t in graph.table.inputs
        }
        taken = {port.any_name for port in model.inputs}  # it drops what no operator takes
        model.reshape({name: shape for name, shape in shapes.items() if name in taken})
        openvino_norms.decompose(model)
        openvino_rounding.fuse(model)
        exact = not openvino_int8.is_quantised(model) or not openvino_int8.saturates()
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "EXECUTION_MODE_HINT": "ACCURACY",  # quantises nothing by itself
                "INFERENCE_PRECISION_HINT": kind,  # else bfloat16 wherever the CPU has it
                "INFERENCE_NUM_THREADS": threads * streams,
                "NUM_STREAMS": streams,
                # tied to a core that something else keeps busy, a call takes five times as long
                "ENABLE_CPU_PINNING": False,
                "CACHE_DIR": "",
                **({} if exact else openvino_int8.IN_FLOAT),
            },
        )
    except Exception as exc:  # OpenVINO raises RuntimeError, and pybind11 others
        raise EngineError(
            f"OpenVINO cannot compile {graph.path}: {one_line(exc)}; try backend='onnxruntime'"
        ) from exc
    if (got := compiled.get_property("INFERENCE_PRECISION_HINT")) != kind:
        raise UnavailableError(f"OpenVINO computes in {got} here, {kind} was asked for")
    return lambda given: _Runner(compiled, given)


class _Runner:
    """See `Runner`: the buffers as tensors of one infer request."""

    def __init__(self, compiled: "openvino.CompiledModel", given: Arrays):
        import openvino

        self.inputs, self.outputs = given
        self._request = compiled.create_infer_request()
        self._largest = self.outputs.get("picture")
        taken = {port.any_name for port in compiled.inputs}
        entered = {name: array for name, array in self.inputs.items() if name in taken}
        for name, array in (entered | self.outputs).items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def narrow(self, height: int, width: int) -> None:
        import openvino

        assert self._largest is not None  # a decoder's
        self.outputs["picture"] = narrowed(self._largest, height, width)
        tensor = openvino.Tensor(self.outputs["picture"], shared_memory=True)
        self._request.set_tensor("picture", tensor)

    def run(self) -> None:
        self._request.infer(share_outputs=True)
        for name, array in self.outputs.items():  # else an output is another part of the buffer
            if (got := tuple(self._request.get_tensor(name).shape)) != array.shape:
                raise EngineError(f"{name} must be {array.shape}, got {got}; export it again")
