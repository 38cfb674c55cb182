"""Every value's shape, written beside it: a number for each axis, or a name where it is free.

ONNX Runtime lets a convolution add to what is there already, where both are equally large. From the
operators alone it cannot tell: a Reshape or a product loses the batch's name, and nothing says that
two crops of one box are alike. Axes of one name are equally long, whatever the batch and the box.
"""

import onnx

from picme_export.rewrites.graph import infer_shapes
from picme_rt import graph_shapes, tensors
from picme_rt.framing import Box
from picme_rt.windows import Crop


def write(model: onnx.ModelProto, graph: tensors.Graph, crops: tuple[Crop, ...]) -> None:
    """Writes the shape of each float value between inputs and outputs, in place.

    Args:
        model: A graph as it will be stored.
        graph: Its inputs and outputs.
        crops: Of a decoder with a box.
    """
    infer_shapes(model)
    batch, _, size, _ = next(tensor.axes for tensor in graph.inputs if tensor.name == "hole")
    assert isinstance(batch, str)
    assert isinstance(size, int)
    content = model.SerializeToString()
    boxes = (
        Box(size // 4, size // 4, size // 4 + 3, size // 2 + 3),
        Box(0, size // 2, size // 2, size),
        Box(0, 0, size, size),
    )
    found = [graph_shapes.cost(content, graph, crops, box).shapes for box in boxes]
    names: dict[tuple[int, ...], str] = {}
    for value in model.graph.value_info:
        axes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            continue
        for place, axis in enumerate(axes):
            lengths = tuple(shapes[value.name][place] for shapes in found)
            if len(set(lengths)) > 1:
                axis.dim_param = names.setdefault(lengths, f"side_{len(names)}")
            elif place > 0 or axis.HasField("dim_value"):
                axis.dim_value = lengths[0]
            else:
                axis.dim_param = batch
