"""Ways to damage an engine: its bytes, its manifest's entries, its graphs' parts, its files.

Every function takes a `random.Random` first, so that a case is a function of its number alone.
"""

import copy
import dataclasses
import json
import struct

import onnx
from onnx import helper

from picme_rt.windows import Crop

INTEGERS = (
    0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 4095, 4096, 4097, 65536,
    1 << 20, 1 << 28, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1,
    -1, -2, -3, -4, -8, -64, -(1 << 31), -(1 << 63),
)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1.5, 64.0, 65.0, 1e-30, 1e30, 3e38, float("inf"),
         -float("inf"), float("nan"))  # fmt: skip
TEXTS = ("", "a", "NOTSET", "SAME_UPPER", "VALID", "constant", "edge", "wrap", "reflect", "linear",
         "cubic", "nearest", "align_corners", "half_pixel", "ceil", "\n", "x" * 2000)  # fmt: skip
OPERATORS = (
    "Add", "Sub", "Mul", "Div", "Conv", "ConvTranspose", "Gemm", "MatMul", "Concat", "Split",
    "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Tile", "ConstantOfShape", "Resize",
    "Pad", "Gather", "Slice", "GatherND", "ScatterND", "Shape", "Softmax", "LogSoftmax", "Tanh",
    "Clip", "LeakyRelu", "AveragePool", "MaxPool", "InstanceNormalization", "If", "Loop", "Scan",
    "Range", "RandomNormal", "Einsum", "NonZero", "Identity", "Constant", "Cast",
    "StringNormalizer", "",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 7, 16, 64, 1 << 31, 10**30, 1.5, 1e300, "", "a", "\ud800", "../x",
    "/etc/passwd", "fp32/encoder.onnx", "fp32/decoder.onnx", "engine.json", "é\n", "x" * 5000,
    [], {}, [[]], [None], {"": None}, [1] * 500,
)  # fmt: skip


def damage_bytes(random, content: bytes) -> bytes:
    """One to three changes of single bytes or of stretches."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at, length = random.randrange(len(data) + 1), random.choice((1, 1, 2, 4, 8, 64))
        match random.randrange(8):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << random.randrange(8)
            case 1 if data:
                data[min(at, len(data) - 1)] = random.choice((0, 1, 2, 0x7F, 0x80, 0xFF, 0x30))
            case 2:
                data[at:at] = random.randbytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:  # lengths that do not end, or that are absurd
                bomb = random.choice((b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\xff\xff\xff\xff\x07"))
                data[at : at + random.choice((0, 1, len(bomb)))] = bomb
            case 6 if random.random() < 0.3:
                del data[at:]
            case _:
                other = random.randrange(len(data) + 1)
                data[at : at + length] = data[other : other + length]
    return bytes(data)


def change_sizes(random, engine, graphs):
    """Other sizes in the manifest, and the graphs' inputs and outputs as they ask for."""
    feature = list(engine.features[0])
    feature[random.randrange(3)] = random.choice((1, 2, 16, 64, 4096))
    change = random.choice((
        {"size": random.choice((17, 32, 64, 512, 4096))},
        {"primitives": random.choice((1, 3, 64, 4096))},
        {"latent": random.choice((1, 5, 256, 1 << 20))},
        {"features": [tuple(feature)]},
        {"features": [(4096, 4096, 4096)] * random.choice((1, 64))},
        {"z_m": not engine.z_m},
        {"crops": random.choice((
            (),
            (Crop(side=16, before=0, after=0, halo=0),),
            (Crop(side=1, before=64, after=64, halo=64),),
            (Crop(side=4, before=1, after=1, halo=1), Crop(side=8, before=0, after=0, halo=2)),
            (Crop(side=8, before=0, after=0, halo=0),) * 16,
        ))},
    ))  # fmt: skip
    engine, made = dataclasses.replace(engine, **change), {}
    for (name, content), table in zip(graphs.items(), engine.tables, strict=True):
        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        for row, tensors in ((graph.input, table.inputs), (graph.output, table.outputs)):
            del row[:]
            row.extend(
                helper.make_tensor_value_info(t.name, 7 if t.kind == "int64" else 1, t.axes)
                for t in tensors
            )
        del graph.value_info[:]
        made[name] = model.SerializeToString()
    return engine, made


def damage_tree(random, content: bytes) -> bytes:
    """One to three changes of the manifest's entries; it stays JSON, more or less."""
    tree = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        parent, key = random.choice(places)
        match random.randrange(8):
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(random.choice(VALUES))
            case 3:
                del parent[key]
            case 4:
                parent[key] = copy.deepcopy(_at(random.choice(places)))
            case 5 if isinstance(parent, dict):
                parent[random.choice([str(v) for v in VALUES])] = parent.pop(key)
            case 6 if type(parent[key]) is int:
                parent[key] = random.choice((*INTEGERS, parent[key] + 1, float(parent[key])))
            case _ if isinstance(parent[key], list) and parent[key]:
                parent[key] = parent[key] * random.choice((2, 100))
    text = json.dumps(tree)
    match random.randrange(40):
        case 0:
            text = text.replace("16", random.choice(("NaN", "1e999", "9" * 5000, "-0", "16.0")), 1)
        case 1:
            text = text[:-1] + ', "format": 1}'
        case 2:
            deep = random.choice((20, 500, 100_000))
            text = text[:-1] + ', "more": ' + "[" * deep + "]" * deep + "}"
        case 3:
            text = text.encode("utf-8").decode("latin-1").join(("\ufeff", ""))
    return text.encode("utf-8", "surrogatepass")


def _places(tree):
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(entries):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _at(place):
    return place[0][place[1]]


def damage_graph(random, content: bytes, other: bytes) -> bytes:
    """One to three changes of a graph's parts; `other` is a graph to take parts from."""
    model = onnx.ModelProto.FromString(content)
    if random.random() < 0.5:  # else most changes of a shape contradict what is said of it
        del model.graph.value_info[:]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(GRAPH_CHANGES)(random, model, onnx.ModelProto.FromString(other))
    return model.SerializeToString()


def _node(random, model):
    return random.choice(model.graph.node) if model.graph.node else None


def _names(model):
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return made + [v.name for v in graph.input] + [w.name for w in graph.initializer] or [""]


def change_attribute(random, model, other):
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = random.choice(nodes)
    attribute = random.choice(node.attribute)
    types = onnx.AttributeProto
    if attribute.type == types.INTS and random.random() < 0.8 and attribute.ints:
        i = random.randrange(len(attribute.ints))
        attribute.ints[i] = random.choice(INTEGERS)
        if random.random() < 0.3:
            del attribute.ints[i:]
    elif attribute.type == types.INT and random.random() < 0.8:
        attribute.i = random.choice(INTEGERS)
    elif attribute.type == types.FLOAT and random.random() < 0.8:
        attribute.f = random.choice(REALS)
    elif attribute.type == types.STRING and random.random() < 0.8:
        attribute.s = random.choice(TEXTS).encode()
    elif random.random() < 0.5:
        node.attribute.remove(attribute)
    else:
        attribute.type = random.randrange(15)


def add_attribute(random, model, other):
    source = [a for node in (*other.graph.node, *model.graph.node) for a in node.attribute]
    node = _node(random, model)
    if node is None:
        return
    if random.random() < 0.6 and source:
        node.attribute.append(random.choice(source))
    elif random.random() < 0.5:
        node.attribute.append(helper.make_attribute("body", model.graph.__class__(name="inner")))
    else:
        node.attribute.append(helper.make_attribute("then", random.choice(TEXTS[1:])))


def change_operator(random, model, other):
    if node := _node(random, model):
        if random.random() < 0.9:
            node.op_type = random.choice(OPERATORS)
        else:
            node.domain = random.choice(("ai.onnx", "com.microsoft", "ai.onnx.ml", "\n"))


def drop_node(random, model, other):
    if node := _node(random, model):
        model.graph.node.remove(node)


def repeat_node(random, model, other):
    """The same node again, many times over, each on the last one's result."""
    node = _node(random, model)
    if node is None or not node.output or not node.input:
        return
    last, at = node.output[0], list(model.graph.node).index(node)
    kept = list(model.graph.node)
    made = []
    for i in range(random.choice((1, 2, 20, 300, 5000))):
        again = copy.deepcopy(node)
        again.name = f"{node.name}_again{i}"
        again.input[0] = last
        del again.output[:]
        again.output.extend(f"{name}_again{i}" for name in node.output)
        last = again.output[0]
        made.append(again)
    for after in kept[at + 1 :]:
        for i, name in enumerate(after.input):
            if name == node.output[0]:
                after.input[i] = last
    del model.graph.node[:]
    model.graph.node.extend([*kept[: at + 1], *made, *kept[at + 1 :]])


def swap_nodes(random, model, other):
    nodes = list(model.graph.node)
    if nodes:
        i, j = random.randrange(len(nodes)), random.randrange(len(nodes))
        nodes[i], nodes[j] = nodes[j], nodes[i]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def rewire(random, model, other):
    node = _node(random, model)
    if node is None:
        return
    row = node.input if random.random() < 0.8 else node.output
    name = random.choice([*_names(model), "", "nowhere"])
    match random.randrange(4):
        case 0:
            row.append(name)
        case 1 if row:
            del row[random.randrange(len(row))]
        case _ if row:
            row[random.randrange(len(row))] = name


def take_node(random, model, other):
    if node := _node(random, other):
        if random.random() < 0.8:
            node.name = "taken"
            for i in range(len(node.output)):
                node.output[i] = f"taken{i}"
        model.graph.node.insert(random.randrange(len(model.graph.node) + 1), node)


def insert_bomb(random, model, other):
    """A node that makes much of little, between a value and who reads it."""
    node = _node(random, model)
    if node is None or not node.input:
        return
    i = random.randrange(len(node.input))
    name, place = node.input[i], list(model.graph.node).index(node)
    much = random.choice((2, 50, 1000, 1 << 20, 1 << 31, 1 << 40))
    shape = [random.choice((1, much)) for _ in range(random.choice((1, 2, 4, 4)))]
    operator, inputs, attributes = random.choice((
        ("Expand", [name, "bomb"], {}),
        ("Tile", [name, "bomb"], {}),
        ("ConstantOfShape", ["bomb"], {}),
        ("Reshape", [name, "bomb"], {}),
        ("Pad", [name, "bomb"], {"mode": random.choice(("reflect", "constant"))}),
        ("Resize", [name, "", "scales"], {"mode": "nearest", "nearest_mode": "floor",
                                          "coordinate_transformation_mode": "asymmetric"}),
        ("Resize", [name, "", "", "bomb"], {"mode": "nearest"}),
        ("Concat", [name] * min(much, 3000), {"axis": random.choice((0, 1, 2, -1))}),
        ("Concat", [name] * 60, {"axis": random.choice((0, 1, 2, -1))}),
        ("Unsqueeze", [name, "bomb"], {}),
        ("MatMul", [name, name], {}),
        ("Transpose", [name], {"perm": [0, 2, 3, 1]}),
        ("AveragePool", [name], {"kernel_shape": [min(much, 1 << 31)] * 2}),
    ))  # fmt: skip
    if operator == "Pad":
        shape = shape * 2
    scales = [1.0, 1.0, *random.choices((1.0, 2.0, 64.0, 1000.0, 1e9, 0.5, float("nan")), k=2)]
    model.graph.initializer.append(
        helper.make_tensor("bomb", 7, [len(shape)], _raw(shape, "q"), raw=True)
    )
    model.graph.initializer.append(
        helper.make_tensor("scales", 1, [4], _raw(scales, "f"), raw=True)
    )
    model.graph.node.insert(place, helper.make_node(operator, inputs, ["boom"], **attributes))
    model.graph.node[place + 1].input[i] = "boom"


def bend_box(random, model, other):
    """What a window begins or ends with, moved by a number or by another row of the box."""
    nodes = model.graph.node
    places = [i for i, node in enumerate(nodes) if node.op_type == "Slice" and len(node.input) > 2]
    if not places:
        return
    at, end = random.choice(places), random.choice((1, 2))
    rows = [name for n in nodes[:at] if n.op_type == "Gather" for name in n.output]
    by = random.choice([*rows, "bend"])
    if by == "bend":
        row = _raw(random.choices((0, 1, 2, -1, -4, 4, 8, 1 << 62), k=2), "q")
        model.graph.initializer.append(helper.make_tensor("bend", 7, [2], row, raw=True))
    operator = random.choice(("Add", "Mul"))
    nodes.insert(at, helper.make_node(operator, [nodes[at].input[end], by], ["bent"]))
    nodes[at + 1].input[end] = "bent"


def _raw(numbers, code):
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def change_weight(random, model, other):
    if not model.graph.initializer:
        return
    weight = random.choice(model.graph.initializer)
    match random.randrange(7):
        case 0 if weight.dims:
            weight.dims[random.randrange(len(weight.dims))] = random.choice(INTEGERS)
        case 1:
            weight.dims.append(random.choice((0, 1, 1, 2, 1 << 40)))
        case 2:
            dims = list(weight.dims)
            random.shuffle(dims)
            del weight.dims[:]
            weight.dims.extend(dims)
        case 3:
            weight.data_type = random.randrange(24)
        case 4 if weight.raw_data:
            numbers = INTEGERS if weight.data_type == 7 else REALS
            pick = random.choice(numbers)
            item = _raw([pick], "q" if weight.data_type == 7 else "f")
            at = random.randrange(len(weight.raw_data) // len(item) or 1) * len(item)
            data = bytearray(weight.raw_data)
            data[at : at + len(item)] = item
            weight.raw_data = bytes(data)
        case 5:
            weight.raw_data = weight.raw_data[: random.randrange(len(weight.raw_data) + 1)]
        case _:  # every number of one weight at once, of the right length
            few = weight.raw_data[:8]
            weight.raw_data = (few * len(weight.raw_data))[: len(weight.raw_data)]


def give_external(random, model, other):
    if model.graph.initializer:
        weight = random.choice(model.graph.initializer)
        place = random.choice(("/etc/passwd", "../engine.json", "encoder.onnx", "", "x" * 3000))
        weight.external_data.add(key="location", value=place)
        if random.random() < 0.7:
            weight.data_location = onnx.TensorProto.EXTERNAL
        if random.random() < 0.7:
            weight.ClearField("raw_data")


def change_ends(random, model, other):
    """Inputs, outputs and what is said of values in between."""
    graph = model.graph
    row = random.choice((graph.input, graph.output, graph.value_info, graph.value_info))
    if not row:
        return
    value = random.choice(row)
    dims = value.type.tensor_type.shape.dim
    match random.randrange(8):
        case 0 | 1 | 2 if dims:
            random.choice(dims).dim_value = random.choice(INTEGERS)
        case 3 if dims:
            random.choice(dims).dim_param = random.choice(("B", "N", "", "x" * 2000))
        case 4:
            value.type.tensor_type.elem_type = random.randrange(24)
        case 5:
            row.remove(value)
        case 6:
            value.name = random.choice(_names(model))
        case _:
            row.append(copy.deepcopy(random.choice((*row, *graph.input))))


def add_what_no_engine_has(random, model, other):
    graph = model.graph
    match random.randrange(9):
        case 0:
            model.metadata_props.add(key="ort_config", value='{"session_options": {}}')
        case 1:
            model.functions.add(name="f", domain="", input=["x"], output=["x"])
        case 2:
            model.training_info.add()
        case 3:
            graph.sparse_initializer.add().dims.extend([1 << 40])
        case 4:
            graph.quantization_annotation.add(tensor_name=random.choice(_names(model)))
        case 5:
            model.opset_import[0].version = random.choice((1, 7, 13, 20, 22, 23, 1 << 40, -1))
        case 6:
            model.opset_import.add(domain="com.microsoft", version=1)
        case 7:
            model.ir_version = random.choice((0, 3, 7, 11, 14, 1 << 40))
        case _:
            model.doc_string = "x" * random.choice((10, 100_000))


GRAPH_CHANGES = (
    *(change_attribute, change_attribute, change_attribute, add_attribute, change_operator),
    *(drop_node, repeat_node, swap_nodes, rewire, rewire, rewire, take_node, insert_bomb),
    *(bend_box, bend_box),
    *(insert_bomb, change_weight, change_weight, change_weight, give_external, change_ends),
    *(change_ends, add_what_no_engine_has),
)
