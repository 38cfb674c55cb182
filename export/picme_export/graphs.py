"""The two graphs of an engine as torch modules, and their way to ONNX.

The model does not know that ONNX exists: these wrappers give it flat inputs and outputs, in the
order of `picme_rt.tensors`. No operator draws random numbers: noise enters through z.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from picme_export import half_weights, mean_as_conv, named_shapes, rewrites
from picme_rt import graph_shapes, tensors
from picme_rt.onnx_file import OPSET
from picme_rt.windows import Crop
from picme_training import cropping
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
    """z [, z_m], f_0, ..., hole, box -> the box of the picture (Algorithm 2, line 6)."""

    def __init__(self, model: Picme, *, z_m: bool):
        super().__init__()
        self.model, self.takes_z_m = model, z_m

    @property
    def crops(self) -> tuple[Crop, ...]:
        """Where the decoder crops its maps."""
        return crops_of(self.model)

    def forward(self, *inputs: Tensor) -> Tensor:
        z, *rest, hole, box = inputs
        z_m = rest.pop(0) if self.takes_z_m else None
        crop = _slices(box) if torch.compiler.is_exporting() else cropping.to(box)
        return self.model.decode(z, z_m, tuple(rest), hole, crop)[-1]


def _slices(box: Tensor) -> cropping.Cropping:
    """Crops by ONNX's `Slice`, whose results torch takes to be as large as the whole map.

    A size that depends on a value is more than torch.export can follow; nothing after a crop asks
    for one (`verify.parity` compares boxes of several sizes).
    """

    def crop(x: Tensor, place: int, ratios: tuple[int, ...] = ()) -> Tensor:
        given = (x, *cropping.ends(box, place, ratios), torch.tensor([2, 3]))
        return torch.onnx.ops.symbolic("Slice", given, dtype=x.dtype, shape=x.shape)

    return crop


def crops_of(model: Picme) -> tuple[Crop, ...]:
    """Where the decoder of a model crops its maps to a box."""
    found = model.decoder.crops
    assert isinstance(found, tuple)  # nn.Module takes what it holds to be tensors or modules
    return found


def tables_of(model: Picme) -> tensors.Tables:
    """The table of every tensor that enters or leaves the graphs of a model."""
    return tensors.tables(
        size=model.config.size,
        primitives=model.config.primitives,
        latent=model.latent_dim,
        features=[tuple(shape) for shape in model.encoder.shapes],
        z_m=model.config.preset != "pic",
        crops=len(crops_of(model)),
    )


def random_inputs(
    graph: tensors.Graph, batch: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Inputs for a graph: normal numbers, for `hole` a map of 0 and 1, for `box` a few integers."""
    found = {}
    for tensor in graph.inputs:
        if tensor.name == "box":
            found["box"] = torch.arange(math.prod(tensor.shape)).view(tensor.shape)
            continue
        value = torch.randn(batch, *tensor.shape, generator=generator)
        found[tensor.name] = (value > 0).float() if tensor.name == "hole" else value
    return found


def _free_sides(graph: onnx.GraphProto) -> None:
    """Takes back what torch said of shapes after a crop: the sides of the picture are free."""
    del graph.value_info[:]
    for value in graph.output:
        for axis, name in zip(value.type.tensor_type.shape.dim[2:], tensors.SIDES, strict=True):
            axis.dim_param = name


def traced(module: nn.Module, graph: tensors.Graph) -> onnx.ModelProto:
    """One graph with a free batch axis, weights inside, without paths of this machine."""
    inputs = random_inputs(graph, 2, torch.Generator().manual_seed(0))
    batch = torch.export.Dim("B", min=1, max=4096)
    axes = tuple({0: batch} if tensor.batched else {} for tensor in graph.inputs)
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
    mean_as_conv.rewrite(graph_proto)
    if any(tensor.cropped for tensor in graph.outputs):
        _free_sides(graph_proto)
    values = *graph_proto.input, *graph_proto.output, *graph_proto.value_info
    for entry in (model, graph_proto, *graph_proto.node, *graph_proto.initializer, *values):
        del entry.metadata_props[:]  # hold file names and lines of the exporting machine
        entry.doc_string = ""
    return model


def to_onnx(
    module: nn.Module,
    graph: tensors.Graph,
    path: Path,
    *,
    rewrite: bool = True,
    target: rewrites.Target = "cpu",
    half: bool = False,
) -> dict[str, Any]:
    """Writes one graph, `traced`.

    Args:
        module: The graph in torch.
        graph: Its inputs and outputs.
        path: The file.
        rewrite: Whether the exact rewrites are applied; a benchmark compares with the plain graph.
        target: Of the rewrites.
        half: Whether weights are stored as float16, where that holds them exactly.

    Returns:
        What the rewrites did (`rewrites.apply`); nothing for a plain graph.

    Raises:
        EngineError: The network has an operator, or a size, that no engine may have.
    """
    crops = module.crops if isinstance(module, DecoderGraph) else ()
    model = traced(module, graph)
    return written(model, graph, crops, path, rewrite=rewrite, target=target, half=half)


def written(
    model: onnx.ModelProto,
    graph: tensors.Graph,
    crops: tuple[Crop, ...],
    path: Path,
    *,
    rewrite: bool = True,
    target: rewrites.Target = "cpu",
    half: bool = False,
) -> dict[str, Any]:
    """`to_onnx` of a graph that is `traced` already, and changed in place."""

    def macs(model: onnx.ModelProto) -> int:
        return graph_shapes.check(model.SerializeToString(), graph, crops).macs

    report = rewrites.apply(model, macs, target) if rewrite else {}
    if rewrite:
        named_shapes.write(model, graph, crops)
    if half:
        half_weights.store(model)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    graph_shapes.check(content, graph, crops)  # what a reader would refuse is not written
    path.write_bytes(content)
    return report
