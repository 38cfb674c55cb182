"""The two graphs of an engine as torch modules, and their way to ONNX.

The model does not know that ONNX exists: these wrappers give it flat inputs and outputs, in the
order of `picme_rt.tensors`. No operator draws random numbers: noise enters through z.
"""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from picme_export import rewrites
from picme_rt import graph_shapes, tensors
from picme_rt.onnx_file import OPSET
from picme_training.networks import Picme


class EncoderGraph(nn.Module):
    """image, hole -> log_alpha, mu, log_sigma [, z_m], f_0, f_1, ... (Algorithm 2, lines 1-2)."""

    def __init__(self, model: Picme):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        encoding, mixture = self.model.encode(image, hole)
        kept = encoding.features if encoding.z_m is None else (encoding.z_m.mu, *encoding.features)
        return (*mixture, *kept)


class DecoderGraph(nn.Module):
    """z [, z_m], f_0, ..., hole -> picture at the full size (Algorithm 2, line 6)."""

    def __init__(self, model: Picme, *, z_m: bool):
        super().__init__()
        self.model, self.takes_z_m = model, z_m

    def forward(self, *inputs: Tensor) -> Tensor:
        z, *rest, hole = inputs
        z_m = rest.pop(0) if self.takes_z_m else None
        return self.model.decode(z, z_m, tuple(rest), hole)[-1]


def tables_of(model: Picme) -> tensors.Tables:
    """The table of every tensor that enters or leaves the graphs of a model."""
    return tensors.tables(
        size=model.config.size,
        primitives=model.config.primitives,
        latent=model.latent_dim,
        features=[tuple(shape) for shape in model.encoder.shapes],
        z_m=model.config.preset != "pic",
    )


def random_inputs(
    graph: tensors.Graph, batch: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Inputs for a graph: normal numbers, and for `hole` a random map of 0 and 1."""
    found = {}
    for tensor in graph.inputs:
        value = torch.randn(batch, *tensor.shape, generator=generator)
        found[tensor.name] = (value > 0).float() if tensor.name == "hole" else value
    return found


def to_onnx(
    module: nn.Module, graph: tensors.Graph, path: Path, *, rewrite: bool = True
) -> dict[str, Any]:
    """Writes one graph with a free batch axis, weights inside, without paths of this machine.

    Args:
        module: The graph in torch.
        graph: Its inputs and outputs.
        path: The file.
        rewrite: Whether the exact rewrites are applied; a benchmark compares with the plain graph.

    Returns:
        What the rewrites did (`rewrites.apply`); nothing for a plain graph.

    Raises:
        EngineError: The network has an operator, or a size, that no engine may have.
    """
    inputs = random_inputs(graph, 2, torch.Generator().manual_seed(0))
    batch = torch.export.Dim("B", min=1, max=4096)
    axes = tuple({0: batch} for _ in inputs)
    # one entry for all the *inputs of the decoder's forward
    shapes: tuple[object, ...] = (axes,) if isinstance(module, DecoderGraph) else axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, not ours to mend
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=[t.name for t in graph.inputs],
            output_names=[t.name for t in graph.outputs],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True
    model = program.model_proto
    graph_proto = model.graph
    values = *graph_proto.input, *graph_proto.output, *graph_proto.value_info
    for entry in (model, graph_proto, *graph_proto.node, *graph_proto.initializer, *values):
        del entry.metadata_props[:]  # hold file names and lines of the exporting machine
        entry.doc_string = ""

    def macs(model: onnx.ModelProto) -> int:
        return graph_shapes.check(model.SerializeToString(), graph).macs

    report = rewrites.apply(model, macs) if rewrite else {}
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    graph_shapes.check(content, graph)  # what a reader would refuse is not written
    path.write_bytes(content)
    return report
