"""The bytes of a graph: what our exporter writes is read as `onnx` reads it, else refused."""

import struct

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from picme_rt import onnx_file
from picme_rt.errors import EngineError


@pytest.fixture
def model():
    """A small graph with one of everything that a graph may have."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    axes = numpy_helper.from_array(np.array([-1, 2], np.int64), "axes")
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["y"], "first", alpha=0.5, transB=1),
        helper.make_node("Reshape", ["y", "axes"], ["out"], "second"),
        helper.make_node("Resize", ["out", "", "w"], ["z"], "third", mode="nearest"),
        helper.make_node("Transpose", ["z"], ["end"], "fourth", perm=[1, 0]),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["B", 3]) for name in ("x", "end")]
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], [weight, axes])
    graph.value_info.append(helper.make_tensor_value_info("y", 1, ["B", 2]))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    made.ir_version = 10
    return made


def refused(content, says=None):
    if isinstance(content, onnx.ModelProto):
        content = content.SerializeToString()
    with pytest.raises(EngineError, match=says):
        onnx_file.parse(content)


def test_a_small_graph_is_read_field_by_field(model):
    read = onnx_file.parse(model.SerializeToString())
    assert read.inputs == (onnx_file.Declared("x", "float32", ("B", 3)),)
    assert read.values == (onnx_file.Declared("y", "float32", ("B", 2)),)
    assert [w[:3] for w in read.weights] == [("w", "float32", (2, 3)), ("axes", "int64", (2,))]
    assert read.nodes[0] == onnx_file.Node(
        "first", "Gemm", ("x", "w"), ("y",), {"alpha": 0.5, "transB": 1}
    )
    assert read.nodes[2].inputs == ("out", "", "w")
    assert [node.attributes for node in read.nodes[2:]] == [{"mode": "nearest"}, {"perm": (1, 0)}]
    assert type(read.nodes[0].attributes["alpha"]) is float


@pytest.mark.parametrize("preset", ["picme", "pic", "cats"])
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_an_exported_graph_is_read_as_onnx_reads_it(exported, preset, role):
    content = (exported(preset).path / "fp32" / f"{role}.onnx").read_bytes()
    read, graph = onnx_file.parse(content), onnx.ModelProto.FromString(content).graph
    for ours, theirs in (
        (read.inputs, graph.input), (read.outputs, graph.output), (read.values, graph.value_info)
    ):  # fmt: skip
        assert [one[:2] for one in ours] == [
            (one.name, {1: "float32", 7: "int64"}[one.type.tensor_type.elem_type]) for one in theirs
        ]
        assert [one.shape for one in ours] == [
            tuple(axis.dim_value or axis.dim_param or None for axis in shape.dim)
            for shape in (one.type.tensor_type.shape for one in theirs)
        ]
    for ours, theirs in zip(read.weights, graph.initializer, strict=True):
        assert ours.name == theirs.name
        there = numpy_helper.to_array(theirs)
        assert ours.shape == there.shape
        assert (np.frombuffer(ours.content, ours.kind) == there.ravel()).all()
    for ours, theirs in zip(read.nodes, graph.node, strict=True):
        assert ours[:4] == (
            theirs.name, theirs.op_type, tuple(theirs.input), tuple(theirs.output)
        )  # fmt: skip
        there = {a.name: helper.get_attribute_value(a) for a in theirs.attribute}
        assert ours.attributes == {
            name: v.decode() if isinstance(v, bytes) else tuple(v) if isinstance(v, list) else v
            for name, v in there.items()
        }


def test_weights_are_not_copied(exported):
    content = (exported("cats").path / "fp32" / "decoder.onnx").read_bytes()
    largest = max(onnx_file.parse(content).weights, key=lambda weight: len(weight.content))
    assert largest.content.obj is content


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a", b"ORTM", b"\0" * 100])
def test_bytes_that_are_no_graph_are_refused(content):
    refused(content)


def test_a_graph_cut_anywhere_is_refused(model):
    content = model.SerializeToString()
    for length in range(len(content)):
        refused(content[:length])


def put_external(model):
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def put_external_location(model):
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def put_sparse(model):
    model.graph.sparse_initializer.add().dims.extend([4])


def put_function(model):
    model.functions.add(name="f")


def put_training(model):
    model.training_info.add()


def put_metadata(model):
    model.metadata_props.add(key="ort_config", value="{}")


def put_quantisation(model):
    model.graph.quantization_annotation.add(tensor_name="w")


def put_typed_data(model):
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend(range(6))


def put_segment(model):
    model.graph.initializer[0].segment.begin = 1


@pytest.mark.parametrize(
    ("put", "number"),
    [
        (put_external, 13), (put_external_location, 14), (put_sparse, 15), (put_function, 25),
        (put_training, 20), (put_metadata, 14), (put_quantisation, 14), (put_typed_data, 4),
        (put_segment, 3),
    ],
)  # fmt: skip
def test_what_our_exporter_never_writes_is_refused(model, put, number):
    put(model)
    refused(model, f"ONNX field {number}, which no engine has")


def test_a_graph_inside_of_a_node_is_refused(model):
    model.graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto()))
    refused(model, "ONNX field 6, which no engine has")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.opset_import.add(domain="com.microsoft", version=1), "opset must be 21"),
        (lambda m: m.opset_import[0].__setattr__("version", 22), "opset must be 21"),
        (lambda m: m.__setattr__("ir_version", 7), "IR version must be in"),
        (lambda m: m.graph.node[0].__setattr__("domain", "com.microsoft"), "must be a standard"),
        (lambda m: m.graph.node[1].output.append("y"), "the name of another one"),
        (lambda m: m.graph.node[1].output.append(""), "no name"),
        (lambda m: m.graph.node[1].__setattr__("name", "first"), "a node has no name, or the"),
        (lambda m: m.graph.initializer[1].__setattr__("name", "w"), "the name of another one"),
        (lambda m: m.graph.initializer[0].__setattr__("name", "x"), "the name of another one"),
        (lambda m: m.graph.value_info.append(m.graph.value_info[0]), "the name of another one"),
        (lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]), "given twice"),
        (lambda m: m.graph.node[0].attribute[0].__setattr__("type", 2), "type that no engine"),
        (lambda m: m.graph.node[0].attribute[0].__setattr__("type", 4), "type that no engine"),
        (
            lambda m: m.graph.initializer[0].__setattr__("data_type", 11),
            "float32, float16, int8 or int64",
        ),
        (lambda m: m.graph.initializer[0].dims.append(2), "must have 48 bytes"),
        (lambda m: m.graph.initializer[0].dims.append(0), "positive axes"),
        (lambda m: m.graph.initializer[0].dims.append(-1), "positive axes"),
        (lambda m: m.graph.initializer[0].dims.extend([1 << 30] * 4), "must have .* bytes"),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 7), "up to 8 positive axes"),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 70), "too many entries in dims"),
        (lambda m: m.graph.initializer[0].__setattr__("raw_data", b"abc"), "must have 24 bytes"),
        (
            lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 8),
            "float32, float16, int8 or",
        ),
        (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "must be a tensor"),
        (lambda m: m.graph.node[0].input.extend(["x"] * 64), "too many entries in input"),
        (lambda m: m.graph.node.extend([m.graph.node[0]] * 5000), "too many entries in node"),
        (lambda m: m.graph.node[0].__setattr__("name", "x" * 2000), "longer than 1024 bytes"),
    ],
)
def test_a_graph_of_another_kind_is_refused_with_what_it_is(model, change, says):
    change(model)
    refused(model, says)


def field(number, wire, payload):
    return bytes([number << 3 | wire]) + payload


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (field(1, 0, b"\x8a\x00"), "a number is damaged"),  # 10 in more bytes than it needs
        (field(1, 0, b"\xff" * 9 + b"\x02"), "a number is damaged"),  # beyond 64 bits
        (field(1, 0, b"\xff" * 20), "a number is damaged"),
        (field(1, 0, b"\x0a") * 2, "two entries in ir_version"),
        (field(1, 2, b"\x01a"), "ir_version is damaged"),
        (field(1, 5, b"abcd"), "ir_version is damaged"),
        (field(7, 3, b""), "graph is damaged"),  # a group, which protobuf once had
        (field(7, 2, b"\xff\xff\xff\xff\x0f"), "ends too early"),
        (field(2, 2, b"\x02\xff\xfe"), "producer_name is no text"),
    ],
)
def test_bytes_that_could_be_read_in_two_ways_are_refused(content, says):
    refused(content, says)


def test_numbers_in_a_row_are_read_packed_or_one_by_one(model):
    forms = field(1, 0, b"\x02") + field(1, 0, b"\x03"), field(1, 2, b"\x02\x02\x03")
    content = model.SerializeToString()
    for one, other in (forms, forms[::-1]):
        if one in content:
            changed = content.replace(one, other)  # of one length: what lies around still fits
    assert changed != content
    assert onnx_file.parse(changed) == onnx_file.parse(content)


def test_a_negative_number_is_read_as_one(model):
    model.graph.node[3].attribute[0].ints[0] = -7
    model.graph.node[0].attribute[0].f = struct.unpack("<f", b"\x01\0\0\0")[0]
    read = onnx_file.parse(model.SerializeToString())
    assert read.nodes[3].attributes["perm"] == (-7, 0)
    assert read.nodes[0].attributes["alpha"] > 0
