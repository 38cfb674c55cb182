"""One graph of an engine as a function of torch's: read by our own reader, nothing but torch.

No package of ONNX is needed, and what runs are torch's own operators: the way of an engine to a
GPU where only torch is.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from picme_rt import onnx_file
from picme_rt.backends.torch_operators import MAKERS, How, Run
from picme_rt.onnx_file import Node, Weight
from picme_rt.tensors import Graph

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""What convolutions compute in, by precision; tf32 is float32 whose products a GPU rounds."""
_LAYERS = {"Conv", "ConvTranspose", "Gemm"}
_ELEMENTWISE = {"Add", "Div", "Mul", "Sub"}
_READ_BY_HOST = {"Clip", "Resize"}  # bounds and factors; a GPU would be waited for


class _Step(NamedTuple):
    """A node that runs: what it takes, what it gives, what nobody takes after it."""

    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    done: tuple[str, ...]


class Network:
    """A graph of which every part was checked (`graph_shapes.check`).

    Weights lie on the device, and what follows from weights alone is computed once, here.

    Attributes:
        precision: One of `DTYPES`.

    Args:
        content: The bytes of an ONNX file.
        table: Its inputs and outputs.
        place: Where it runs.
        precision: One of `DTYPES`.
    """

    def __init__(self, content: bytes, table: Graph, *, place: torch.device, precision: str):
        model = onnx_file.parse(content)
        # cuDNN's fast convolutions have their channels last; oneDNN chooses for itself
        layout = torch.channels_last if place.type == "cuda" else torch.contiguous_format
        self._how = How(DTYPES[precision], layout)
        self._outputs = tuple(tensor.name for tensor in table.outputs)
        self._place, self.precision = place, precision
        self._fixed: dict[str, Any] = {w.name: self._weight(w) for w in model.weights}
        self._steps = self._plan(model.nodes)

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The outputs by name, of the types that they were computed in.

        Args:
            inputs: By name: float32 tensors on the device, `box` a NumPy array of int64.
        """
        values = {**self._fixed, **inputs}
        for step in self._steps:
            made = step.run(*(values[name] if name else None for name in step.inputs))
            several = made if len(step.outputs) > 1 else (made,)
            values.update(zip(step.outputs, several, strict=True))
            for name in step.done:
                del values[name]
        return {name: values[name] for name in self._outputs}

    @property
    def dtype(self) -> torch.dtype:
        """What its layers compute in."""
        return self._how.dtype

    @property
    def steps(self) -> int:
        """How many nodes run in a call."""
        return len(self._steps)

    def _weight(self, weight: Weight) -> Any:
        if weight.kind == "int64":
            return weight.numbers
        return torch.from_numpy(weight.numbers.copy()).to(self._place)

    def _plan(self, nodes: tuple[Node, ...]) -> tuple[_Step, ...]:
        """The nodes that are left once those of weights alone were computed."""
        found: list[_Step] = []
        for node in nodes:
            run = MAKERS[node.operator](node, self._how)
            if all(name in self._fixed or not name for name in node.inputs):
                made = run(*(self._fixed[name] if name else None for name in node.inputs))
                several = made if len(node.outputs) > 1 else (made,)
                self._fixed.update(zip(node.outputs, several, strict=True))
                continue
            self._lower(node)
            found.append(_Step(run, self._hosted(node), node.outputs, ()))
        used = {name for step in found for name in step.inputs} | set(self._outputs)
        self._fixed = {name: value for name, value in self._fixed.items() if name in used}
        return self._with_ends(found)

    def _lower(self, node: Node) -> None:
        """Brings a layer's weights to their type and layout once, not at every call."""
        for name in node.inputs if node.operator in _LAYERS | _ELEMENTWISE else ():
            value = self._fixed.get(name)
            if isinstance(value, Tensor):
                layout = self._how.layout if value.ndim == 4 else torch.preserve_format
                self._fixed[name] = value.to(self._how.dtype, memory_format=layout)

    def _hosted(self, node: Node) -> tuple[str, ...]:
        """The node's inputs, with copies in the host's memory of numbers that it reads there."""
        if node.operator not in _READ_BY_HOST:
            return node.inputs
        first, *rest = node.inputs
        for name in filter(None, rest):
            self._fixed[f"{name} on the host"] = self._fixed[name].cpu()
        return (first, *(f"{name} on the host" if name else "" for name in rest))

    def _with_ends(self, steps: list[_Step]) -> tuple[_Step, ...]:
        """Each step with the values that are taken last by it: their memory is free again."""
        kept = set(self._fixed) | set(self._outputs)
        planned = []
        for step in reversed(steps):
            last = (set(step.inputs) | set(step.outputs)) - kept - {""}
            kept |= last
            planned.append(step._replace(done=tuple(sorted(last))))
        return tuple(reversed(planned))
