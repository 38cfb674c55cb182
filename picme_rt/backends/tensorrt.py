"""Plans of TensorRT and TensorRT-RTX, loaded: a network per graph, a context per run's buffers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from picme_rt.backends.tensorrt_library import Library
from picme_rt.device_buffers import Layout
from picme_rt.errors import EngineError, UnavailableError
from picme_rt.plans import ROLES, Plans
from picme_rt.tensors import Graph


class Networks(NamedTuple):
    """Both plans of an engine on the GPU.

    Attributes:
        encoder: Its engine, in TensorRT's word.
        decoder: Likewise.
        owner: What must live as long.
    """

    encoder: Any
    decoder: Any
    owner: object


def load(library: Library, plans: Plans, tables: Mapping[str, Graph]) -> Networks:
    """Loads both plans.

    Args:
        library: The one that built them.
        plans: Checked, for this version and GPU.
        tables: Inputs and outputs of both graphs, by role.

    Raises:
        EngineError: A plan is damaged, or has other tensors than the table says.
    """
    runtime = library.module.Runtime(library.logger)
    found = []
    for role in ROLES:
        engine = runtime.deserialize_cuda_engine(plans.read(role))
        if engine is None:
            raise EngineError(
                f"{library.name} does not load the {role}'s plan in {plans.path}: {library.why()}; "
                "build it again on this machine"
            )
        _check(library, engine, tables[role], f"{plans.path / role}.plan")
        found.append(engine)
    encoder, decoder = found
    return Networks(encoder, decoder, runtime)


def _check(library: Library, engine: Any, table: Graph, path: str) -> None:
    """Refuses a plan whose tensors are not those of the table: addresses would be wrong ones."""
    trt = library.module
    wanted = {
        tensor.name: (way, tuple(n if isinstance(n, int) else -1 for n in tensor.axes))
        for way, tensors in (("INPUT", table.inputs), ("OUTPUT", table.outputs))
        for tensor in tensors
    }
    ways = {trt.TensorIOMode.INPUT: "INPUT", trt.TensorIOMode.OUTPUT: "OUTPUT"}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    got = {
        name: (ways[engine.get_tensor_mode(name)], tuple(engine.get_tensor_shape(name)))
        for name in names
    }
    if got != wanted or any(engine.get_tensor_dtype(n) != trt.DataType.FLOAT for n in names):
        raise EngineError(f"{path} has the tensors {got}, expected {wanted} of float32")


def context_bytes(network: Any) -> int:
    """Memory of the GPU that one context of an engine takes; 0 where the library does not say."""
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(network, name):
            return int(getattr(network, name))
    return 0


class Context:
    """One network ready to run on fixed addresses, for fixed shapes.

    Args:
        library: The library.
        network: An engine of its.
        table: The network's inputs and outputs.
        layout: Has a buffer for each.
        begin: The address where the layout begins.

    Raises:
        EngineError: The network does not take these shapes.
        UnavailableError: There is no memory for it.
    """

    def __init__(self, library: Library, network: Any, table: Graph, layout: Layout, begin: int):
        self._library = library
        self._context = _new_context(library.module, network)
        if self._context is None:
            raise UnavailableError(
                f"{library.name} has no context for these sizes: {library.why()}; free memory of "
                "the GPU, or build plans with a smaller --max-batch or --max-k"
            )
        for tensor in table.inputs:
            shape = layout.buffers[tensor.name].shape
            if not self._context.set_input_shape(tensor.name, shape):
                raise EngineError(
                    f"{library.name} does not take {tensor.name} of shape {shape}: {library.why()}"
                )
        for tensor in (*table.inputs, *table.outputs):
            address = begin + layout.buffers[tensor.name].offset
            if not self._context.set_tensor_address(tensor.name, address):
                raise EngineError(
                    f"{library.name} does not take an address for {tensor.name}: {library.why()}"
                )
        if missing := self._context.infer_shapes():
            raise EngineError(f"{library.name} lacks the shapes of {', '.join(missing)}")

    def run(self, stream: int) -> None:
        """Queues one run.

        Raises:
            EngineError: The library refuses.
        """
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"{self._library.name} does not run a plan: {self._library.why()}")


def _new_context(trt: Any, network: Any) -> Any:
    """A context whose kernels are those of its first run for good.

    TensorRT-RTX would begin with others and change to better ones when these are compiled: a
    picture's bits would depend on when it is made, and a CUDA graph would keep the slower ones.
    """
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return network.create_execution_context()
    config = network.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return network.create_execution_context(config)
