"""What an exported graph says of its values, and what ONNX Runtime makes of that."""

from collections import Counter

import onnx
import onnxruntime
import pytest

from picme_export import named_shapes
from picme_rt import engine as engines

PRESETS = ["picme", "pic", "cats"]


def decoder_of(exported, preset):
    engine = engines.load(exported(preset).path)
    return engine, engine.read(engine.variants["fp32"]["decoder"])


def shapes_of(model):
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input)
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_axis_has_a_number_or_a_name(exported, preset):
    _, content = decoder_of(exported, preset)
    model = onnx.load_from_string(content)
    made = {name for node in model.graph.node for name in node.output} - {"picture"}
    shapes = shapes_of(model)
    assert made <= set(shapes)
    assert all(all(shapes[name]) for name in made)


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_maps_that_are_added_are_said_to_be_alike(exported, preset):
    _, content = decoder_of(exported, preset)
    model = onnx.load_from_string(content)
    shapes, sums = shapes_of(model), 0
    for node in model.graph.node:
        both = [shapes[name] for name in node.input if len(shapes.get(name, ())) == 4]
        if node.op_type == "Add" and len(both) == 2:
            assert both[0] == both[1], node.name
            sums += 1
    assert sums > 5
    after_crops = [s for s in shapes.values() if any("side" in str(axis) for axis in s)]
    assert len(after_crops) > 5


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_onnx_runtime_adds_within_convolutions(exported, tmp_path, preset):
    """Else each Add of its blocked maps stands between three Reshapes."""
    _, content = decoder_of(exported, preset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    before, after = (
        Counter(node.op_type for node in onnx.load(one, load_external_data=False).graph.node)
        if isinstance(one, str)
        else Counter(node.op_type for node in onnx.load_from_string(one).graph.node)
        for one in (content, options.optimized_model_filepath)
    )
    if "ReorderInput" not in after:
        pytest.skip("ONNX Runtime has no blocked convolutions on this kind of CPU")
    assert after["Reshape"] <= before["Reshape"]
    assert after["Add"] < before["Add"] / 2


def test_written_again_they_are_the_same(exported):
    engine, content = decoder_of(exported, "picme")
    model = onnx.load_from_string(content)
    named_shapes.write(model, engine.tables.decoder, engine.crops)
    assert model.SerializeToString() == content
