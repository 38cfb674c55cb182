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
from picme_rt.onnx_file import Declared, Model, Node, Weight
from picme_rt.operators import RULES
from picme_rt.windows import Crop, Windows, windows

FLOATS_PER_PIXEL = 8192
"""Most numbers of all values of a graph together, a pixel of the picture; ours have up to 1019."""
MACS_PER_PIXEL = 1 << 21
"""Most multiplications of a graph a pixel of its picture; ours up to 74,801."""
MOST_BYTES = 4 << 30
"""Most bytes of all values of a graph together, whatever the picture's size."""
MOST_VALUE_BYTES = 1 << 30
BATCHES = (1, 2)
"""Every graph is followed with both: what two items take more than twice would grow without bound
with the batch that a backend runs, and so would what is of one length with any."""
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


class Shapes:
    """Every shape of one graph, for one box after another.

    Whether a window is inside of its map, whether maps that meet are alike and what the name of an
    axis stands for are questions of each box, and no few boxes answer them for all. What a graph
    may make of the rows of a box never falls when they grow, but they do not grow with the box:
    where window i begins within window i - 1 is what rounding leaves, 0 here and 1 or 3 a pixel
    further. So the window of a wrong sum of rows may be right for any few boxes and beyond its map
    for the next. Hence a decoder is followed anew for each box that it is asked for
    (`backends.graphs`), as far as the box reaches and with as many items as run; all else is worked
    out once. Before any box comes it is followed with each of `BATCHES`: with one item alone B x B
    is 1.

    Args:
        content: All bytes of the ONNX file.
        graph: Inputs and outputs that it must have, in this order.
        pixels: Of its picture, which say how much it may take.
        batch: Items of the runs that `follow` is asked for.

    Raises:
        EngineError: As `check`, as far as no box matters.
    """

    def __init__(self, content: bytes, graph: tensors.Graph, pixels: int, batch: int = 1):
        model = onnx_file.parse(content)
        _check_ends("inputs", model.inputs, graph.inputs)
        _check_ends("outputs", model.outputs, graph.outputs)
        _check_stored(model)
        self._graph = graph
        before, self._nodes, of_box = _split(model)
        self._batch = batch
        self._begun = {n: _begun(model, graph, n, pixels) for n in sorted({*BATCHES, batch})}
        for trace in self._begun.values():
            trace.follow(before)
            for declared in model.values:
                if declared.name not in of_box:
                    trace.check(declared)
        cropped = {t.name for t in graph.outputs if t.cropped}
        self._declared = tuple(
            one
            for one in (*(v for v in model.values if v.name in of_box), *model.outputs)
            if one.name not in cropped
        )

    def follow(self, asked: Windows) -> None:
        """Follows the graph for the windows of a box, with as many items as will run.

        Raises:
            EngineError: As `check`, for this box.
        """
        self._followed(self._begun[self._batch].copy(), asked)

    def cost(self, asked: Windows | None) -> Cost:
        """What the graph takes for these windows of a box; None where it takes no box.

        Raises:
            EngineError: As `check`, for this box.
        """
        one, *more = (self._followed(trace.copy(), asked) for trace in self._begun.values())
        for other in more:
            if other.taken > other.batch * one.taken or other.macs > other.batch * one.macs:
                raise EngineError(
                    f"what it takes must grow as the batch does, got {one.taken} bytes and "
                    f"{one.macs} multiplications of one item, {other.taken} and {other.macs} of "
                    f"{other.batch}"
                )
        shapes = {name: value.shape for name, value in one.known.items()}
        return Cost(shapes, one.taken, one.macs)

    def _followed(self, trace: "_Trace", asked: Windows | None) -> "_Trace":
        if asked is not None:
            box = Value("int64", asked.rows.shape, tuple(asked.rows.ravel().tolist()), free=True)
            trace.known |= {t.name: box for t in self._graph.inputs if t.kind == "int64"}
            trace.taken += trace.bytes_of(box)
        trace.follow(self._nodes)
        for tensor in self._graph.outputs:
            shape = (trace.batch, *tensor.shape)
            if tensor.cropped and asked is not None:
                made = asked.made
                sides = (made.bottom - made.top, made.right - made.left)
                shape = (trace.batch, *tensor.shape[:-2], *sides)
            if (got := trace.known.get(tensor.name, _NOTHING)).shape != shape:
                raise EngineError(f"output {tensor.name} must be {shape}, got {got.shape}")
        for declared in self._declared:
            trace.check(declared)
        return trace


def check(content: bytes, graph: tensors.Graph, crops: tuple[Crop, ...] = ()) -> Cost:
    """Refuses a graph that is not as our exporter writes it, or takes more than a picture can.

    Args:
        content: All bytes of the ONNX file.
        graph: Inputs and outputs that it must have, in this order.
        crops: Of a decoder with a box: it is looked at with the whole picture, and with boxes of
            one pixel in the middle and in two corners. `checked` gives what looks at others.

    Returns:
        What it takes, with a box that is the whole picture.

    Raises:
        EngineError: The graph is damaged or foreign, has another operator or attribute, another
            input or output, shapes that do not follow from each other, or is too large.
    """
    return checked(content, graph, crops)[1]


def checked(
    content: bytes, graph: tensors.Graph, crops: tuple[Crop, ...], batch: int = 1
) -> tuple[Shapes, Cost]:
    """Likewise, and its shapes for the boxes that come, in runs of `batch` items."""
    side = _side(graph)
    shapes = Shapes(content, graph, side**2, batch)
    places = (side // 2, 0, side - 1) if crops else ()
    for box in (*(Box(at, at, at + 1, at + 1) for at in places), Box(0, 0, side, side)):
        found = shapes.cost(windows(side, crops, box))
    return shapes, found


def check_fixed(content: bytes, graph: tensors.Graph, pixels: int) -> Cost:
    """Likewise of a graph without a box, such as a pyramid's, for a picture of so many pixels."""
    return Shapes(content, graph, pixels).cost(None)


def cost(content: bytes, graph: tensors.Graph, crops: tuple[Crop, ...], box: Box) -> Cost:
    """What a checked decoder takes for a box of its picture."""
    side = _side(graph)
    return Shapes(content, graph, side**2).cost(windows(side, crops, box))


def _side(graph: tensors.Graph) -> int:
    """S, of the picture that both graphs work on."""
    return next(t.shape[-1] for t in graph.inputs if t.name == "hole")


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


class _Trace:
    """What is known of a graph's values as far as its nodes were followed.

    Attributes:
        batch: Items.
        known: Every value so far.
        lengths: What the names of axes stand for.
        taken: Bytes so far, as in `Cost`.
        macs: Multiplications so far.
    """

    def __init__(self, batch: int, known: dict[str, Value], lengths: dict[str, int], pixels: int):
        self.batch, self.known, self.lengths, self._pixels = batch, known, lengths, pixels
        self.taken, self.macs = 0, 0

    def copy(self) -> "_Trace":
        """One that goes on by itself."""
        made = _Trace(self.batch, dict(self.known), dict(self.lengths), self._pixels)
        made.taken, made.macs = self.taken, self.macs
        return made

    def follow(self, nodes: list[Node]) -> None:
        """Every node in turn, as far as its shapes go."""
        most = self.batch * min(FLOATS_PER_PIXEL * 4 * self._pixels, MOST_BYTES)
        most_macs = self.batch * MACS_PER_PIXEL * self._pixels
        for node in nodes:
            rule = RULES.get(node.operator)
            if rule is None:
                raise EngineError(f"it has the operator {node.operator!r}, which no engine has")
            try:
                call = Call(node, [self.known[name] if name else None for name in node.inputs])
                results = rule(call)
                call.finish(len(results.values))
                self.taken += sum(map(self.bytes_of, results.values)) + 4 * results.scratch
            except EngineError as exc:
                raise EngineError(f"{node.operator} {node.name!r}: {exc}") from exc
            self.known.update(zip(node.outputs, results.values, strict=True))
            self.macs += results.macs
            if self.taken > most or self.macs > most_macs:
                raise EngineError(
                    f"{node.operator} {node.name!r}: up to here it takes {self.taken} bytes and "
                    f"{self.macs} multiplications, more than {most} and {most_macs} for "
                    f"{self._pixels} pixels and a batch of {self.batch}"
                )

    def check(self, declared: Declared) -> None:
        """What the file says of a value must be what follows; a name is one of the lengths."""
        value = self.known.get(declared.name, _NOTHING)
        fits = len(declared.shape) == len(value.shape) and declared.kind == value.kind
        for said, length in zip(declared.shape, value.shape, strict=False):
            expected = self.lengths.setdefault(said, length) if isinstance(said, str) else said
            fits = fits and expected in (None, length)
        if not fits:
            raise EngineError(
                f"value {declared.name!r} must be {value.kind} {value.shape}, "
                f"got {declared.kind} {declared.shape}"
            )

    def bytes_of(self, value: Value) -> int:
        """Of one value, which may be only so large."""
        if len(value.shape) > onnx_file.MOST_AXES:
            raise EngineError(
                f"a value has {len(value.shape)} axes, more than {onnx_file.MOST_AXES}"
            )
        size = value.numbers * onnx_file.ITEM_BYTES[value.kind]
        if size > self.batch * MOST_VALUE_BYTES:
            raise EngineError(
                f"a value of shape {value.shape} takes more than {MOST_VALUE_BYTES} bytes an item"
            )
        return size


def _begun(model: Model, graph: tensors.Graph, batch: int, pixels: int) -> _Trace:
    """What a graph is given: its weights, and inputs of so many items but for a box."""
    given = {weight.name: _weight(weight) for weight in model.weights}
    lengths = {}
    for one in model.inputs:
        if one.kind == "float32":
            sides = (n for n in one.shape[1:] if isinstance(n, int))
            free = isinstance(one.shape[0], str)  # a pyramid's erosion is one number for all items
            given[one.name] = Value("float32", (batch if free else 1, *sides))
            if free:
                lengths[str(one.shape[0])] = batch
    trace = _Trace(batch, given, lengths, pixels)
    trace.taken = sum(trace.bytes_of(given[t.name]) for t in graph.inputs if t.name in given)
    return trace


def _split(model: Model) -> tuple[list[Node], list[Node], set[str]]:
    """The nodes that no box changes, those that it does, and the names that follow from it."""
    of_box = {one.name for one in model.inputs if one.kind == "int64"}
    made = {one.name for row in (model.inputs, model.weights) for one in row} | {""}
    before: list[Node] = []
    after: list[Node] = []
    for node in model.nodes:
        for name in node.inputs:
            if name not in made:
                raise EngineError(f"{node.operator} {node.name!r} takes {name!r} before it is made")
        made.update(node.outputs)
        if of_box.isdisjoint(node.inputs):
            before.append(node)
        else:
            after.append(node)
            of_box.update(node.outputs)
    return before, after, of_box


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
