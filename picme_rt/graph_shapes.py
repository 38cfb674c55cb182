"""What a graph would do, worked out before ONNX Runtime sees it: every shape, memory, arithmetic.

Who writes an engine chooses its graphs, with the right digests. So the operators are those of
operators.py alone, every shape is known before the graph runs, and what it takes is bounded by
the size of its picture.
"""

import math
from typing import NamedTuple

from picme_rt import onnx_file, tensors
from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.graph_nodes import Call, Value
from picme_rt.onnx_file import Declared, Model, Weight
from picme_rt.operators import RULES
from picme_rt.windows import Crop, Windows, windows

FLOATS_PER_PIXEL = 8192
"""Most numbers of all values of a graph together, a pixel of the picture; ours have up to 1019."""
MACS_PER_PIXEL = 1 << 21
"""Most multiplications of a graph a pixel of its picture; ours up to 74,801."""
MOST_BYTES = 4 << 30
"""Most bytes of all values of a graph together, whatever the picture's size."""
MOST_VALUE_BYTES = 1 << 30
_NOTHING = Value("int64", ())
_KNOWN = 64  # numbers of a weight that a rule may ask for


class Cost(NamedTuple):
    """What one item of a batch takes.

    Attributes:
        shapes: Shape of every value by name, the batch axis of 1 in front where it has one.
        bytes: Of all values together but the weights, and of what the operators need beside.
        macs: Multiplications.
    """

    shapes: dict[str, tuple[int, ...]]
    bytes: int
    macs: int


def check(content: bytes, graph: tensors.Graph, crops: tuple[Crop, ...] = ()) -> Cost:
    """Refuses a graph that is not as our exporter writes it, or takes more than a picture can.

    Args:
        content: All bytes of the ONNX file.
        graph: Inputs and outputs that it must have, in this order.
        crops: Of a decoder with a box: it is looked at with the whole picture, and with boxes of
            one pixel in the middle and in two corners.

    Returns:
        What it takes, with a box that is the whole picture.

    Raises:
        EngineError: The graph is damaged or foreign, has another operator or attribute, another
            input or output, shapes that do not follow from each other, or is too large.
    """
    model = onnx_file.parse(content)
    _check_ends("inputs", model.inputs, graph.inputs)
    _check_ends("outputs", model.outputs, graph.outputs)
    side = _side(graph)
    places = (side // 2, 0, side - 1) if crops else ()
    for box in (*(Box(at, at, at + 1, at + 1) for at in places), Box(0, 0, side, side)):
        found = _check_box(model, graph, side**2, windows(side, crops, box))
    return found


def check_fixed(content: bytes, graph: tensors.Graph, pixels: int) -> Cost:
    """Likewise of a graph without a box, such as a pyramid's, for a picture of so many pixels."""
    model = onnx_file.parse(content)
    _check_ends("inputs", model.inputs, graph.inputs)
    _check_ends("outputs", model.outputs, graph.outputs)
    return _check_box(model, graph, pixels, None)


def cost(content: bytes, graph: tensors.Graph, crops: tuple[Crop, ...], box: Box) -> Cost:
    """What a checked decoder takes for a box of its picture."""
    side = _side(graph)
    return _check_box(onnx_file.parse(content), graph, side**2, windows(side, crops, box))


def _side(graph: tensors.Graph) -> int:
    """S, of the picture that both graphs work on."""
    return next(t.shape[-1] for t in graph.inputs if t.name == "hole")


def _check_box(model: Model, graph: tensors.Graph, pixels: int, asked: Windows | None) -> Cost:
    known, taken, macs = _run(model, pixels, asked)
    for tensor in graph.outputs:
        shape = (1, *tensor.shape)
        if tensor.cropped and asked is not None:
            made = asked.made
            shape = (1, *tensor.shape[:-2], made.bottom - made.top, made.right - made.left)
        if (got := known.get(tensor.name, _NOTHING)).shape != shape:
            raise EngineError(f"output {tensor.name} must be {shape}, got {got.shape}")
    cropped = {tensor.name for tensor in graph.outputs if tensor.cropped}
    free = {str(one.shape[0]): 1 for one in model.inputs if one.kind == "float32"}  # the batch
    for declared in (*model.values, *model.outputs):
        if declared.name not in cropped:
            _check_declared(declared, known.get(declared.name, _NOTHING), free)
    return Cost({name: value.shape for name, value in known.items()}, taken, macs)


def _check_ends(what: str, got: tuple[Declared, ...], expected: tuple[tensors.Tensor, ...]) -> None:
    """Names, kinds and shapes of inputs or outputs; a free axis may have any name."""
    names = [one.name for one in got]
    if names != [t.name for t in expected]:
        raise EngineError(f"{what} must be {', '.join(t.name for t in expected)}, got {names}")
    for one, tensor in zip(got, expected, strict=True):
        pairs = list(zip(one.shape, tensor.axes, strict=False))
        right = len(one.shape) == len(tensor.axes) and one.kind == tensor.kind
        if not right or not all(a == b or {type(a), type(b)} == {str} for a, b in pairs):
            raise EngineError(
                f"{what} must be as the engine says, with a free axis where it has a name: "
                f"{tensor.name} {tensor.kind} {tensor.axes}, got {one.kind} {one.shape}"
            )


def _check_declared(declared: Declared, value: Value, free: dict[str, int]) -> None:
    """What the file says of a value must be what follows; a name is one length, here `free`'s."""
    fits = len(declared.shape) == len(value.shape) and declared.kind == value.kind
    for said, length in zip(declared.shape, value.shape, strict=False):
        expected = free.setdefault(said, length) if isinstance(said, str) else said
        fits = fits and expected in (None, length)
    if not fits:
        raise EngineError(
            f"value {declared.name!r} must be {value.kind} {value.shape}, "
            f"got {declared.kind} {declared.shape}"
        )


def _run(model: Model, pixels: int, asked: Windows | None) -> tuple[dict[str, Value], int, int]:
    """Every node in turn, as far as its shapes go: all values, bytes and multiplications."""
    known = {weight.name: _weight(weight) for weight in model.weights}
    _check_stored(model)
    for one in model.inputs:
        if one.kind == "int64" and asked is not None:  # the box
            row = tuple(asked.rows.ravel().tolist())
            known[one.name] = Value("int64", asked.rows.shape, row, free=True)
            continue
        known[one.name] = Value("float32", (1, *(n for n in one.shape[1:] if isinstance(n, int))))
    most = min(FLOATS_PER_PIXEL * 4 * pixels, MOST_BYTES)
    taken = sum(_bytes(known[one.name]) for one in model.inputs)
    macs = 0
    for node in model.nodes:
        rule = RULES.get(node.operator)
        if rule is None:
            raise EngineError(f"it has the operator {node.operator!r}, which no engine has")
        try:
            call = Call(node, [known[name] if name else None for name in node.inputs])
            results = rule(call)
            call.finish(len(results.values))
            taken += sum(_bytes(value) for value in results.values) + 4 * results.scratch
        except KeyError as exc:
            raise EngineError(
                f"{node.operator} {node.name!r} takes {exc} before it is made"
            ) from exc
        except EngineError as exc:
            raise EngineError(f"{node.operator} {node.name!r}: {exc}") from exc
        known.update(zip(node.outputs, results.values, strict=True))
        macs += results.macs
        if taken > most or macs > MACS_PER_PIXEL * pixels:
            raise EngineError(
                f"{node.operator} {node.name!r}: up to here it takes {taken} bytes and {macs} "
                f"multiplications, more than {most} and {MACS_PER_PIXEL * pixels} for {pixels} "
                "pixels"
            )
    return known, taken, macs


def _check_stored(model: Model) -> None:
    """A weight that lies in the file as float16 is cast once, and has no other use."""
    users: dict[str, list[str]] = {w.name: [] for w in model.weights if w.kind == "float16"}
    for node in model.nodes if users else ():
        for name in node.inputs:
            if name in users:
                users[name].append(node.operator)
    for name, operators in users.items():
        if operators != ["Cast"]:
            raise EngineError(
                f"weight {name!r} is float16, so it must be the input of one Cast and of nothing "
                f"else, got {', '.join(operators) or 'no use'}"
            )


def _weight(weight: Weight) -> Value:
    content = None
    if math.prod(weight.shape) <= _KNOWN:
        content = tuple(weight.numbers.ravel().tolist())
    elif weight.kind == "int64":
        raise EngineError(f"integers are for shapes, got {weight.shape} of them: {weight.name!r}")
    return Value(weight.kind, weight.shape, content, fixed=True)


def _bytes(value: Value) -> int:
    if len(value.shape) > onnx_file.MOST_AXES:
        raise EngineError(f"a value has {len(value.shape)} axes, more than {onnx_file.MOST_AXES}")
    size = value.numbers * onnx_file.ITEM_BYTES[value.kind]
    if size > MOST_VALUE_BYTES:
        raise EngineError(
            f"a value of shape {value.shape} takes more than {MOST_VALUE_BYTES} bytes"
        )
    return size
