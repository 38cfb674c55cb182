"""The forms that int8 is made of: divided rows of an attention, and sums in one convolution."""

import dataclasses
import functools
import hashlib
import shutil

import numpy as np
import onnx
import openvino
import pytest
from onnx import numpy_helper
from onnx_models import model_of, rewritten
from skimage import data
from test_backends import opened, walk

from picme_export import attention_rows, calibrate, joined_sums, quantise
from picme_export.rewrites.graph import Graph
from picme_rt import backends, graph_shapes
from picme_rt import engine as engines
from picme_rt.backends import openvino_int8

PLACES, WIDE = 40, 6


def attention(perm=(0, 2, 1), axis=-1, more=()):
    """Two maps that are gathered with the weights of one attention, their product."""
    return model_of(
        [
            ("Softmax", ["scores"], "weights", {"axis": axis}),
            ("Transpose", ["weights"], "turned", {"perm": list(perm)}),
            ("MatMul", ["one", "turned"], "of_one", {}),
            ("MatMul", ["other", "turned"], "of_other", {}),
            ("Mul", ["of_one", "of_other"], "out", {}),
            *more,
        ],
        {"scores": (PLACES, PLACES), "one": (WIDE, PLACES), "other": (WIDE, PLACES)},
        {},
    )


def test_rows_are_divided_and_what_they_gather_is_the_same():
    model = attention()
    kinds = rewritten(attention_rows.rewrite, model, 1)
    assert kinds == {"Softmax": 1, "ReduceMax": 1, "Div": 1, "Transpose": 2, "MatMul": 2, "Mul": 3}
    assert len(attention_rows.products(model.graph)) == 2
    assert attention_rows.rewrite(Graph(model)) == 0  # once is enough


def test_weights_that_something_else_takes_stay_as_they_are():
    taken_too = ("Mul", ["weights", "weights"], "squares", {})
    assert attention_rows.rewrite(Graph(attention(more=[taken_too]))) == 0
    model = attention()
    assert attention_rows.products(model.graph) == set()
    assert quantise.layers(model) == []


@pytest.mark.parametrize("other", [{"perm": (0, 1, 2)}, {"axis": 1}])
def test_another_turn_and_weights_of_columns_are_left(other):
    assert attention_rows.rewrite(Graph(attention(**other))) == 0


def test_a_flat_row_beside_a_sharp_one_keeps_its_weights_in_int8():
    scores = np.zeros((1, PLACES, PLACES), np.float32)
    scores[0, 0, 3] = 40  # weights of this row are 0 and 1, those of the others 1 / 40
    values = np.random.default_rng(0).standard_normal((2, 1, WIDE, PLACES)).astype(np.float32)
    given = {"scores": scores, "one": values[0], "other": values[1]}

    def gathered(model):
        return calibrate._session(model).run(None, given)[0]

    model = attention()
    want = gathered(model)
    graph = Graph(model)
    attention_rows.rewrite(graph)
    graph.finish()
    layers = quantise.layers(model)
    assert {one.operator for one in layers} == {"MatMul"}
    ranges = dict.fromkeys(quantise.activations(layers), 4.0)
    ranges |= {one.takes[1]: 1.0 for one in layers}
    done = quantise.quantise(model, layers, ranges)
    kinds = [node.op_type for node in done.graph.node]
    turned = kinds.index("Transpose", kinds.index("Div"))
    assert kinds[turned - 1] == "DequantizeLinear"  # bytes are turned
    error = np.abs(gathered(done) - want).max()
    assert 0 < error < 0.03 * np.abs(want).max()


BOX = {"first": np.array([1, 2]), "last": np.array([6, 7]), "sides": np.array([2, 3])}


def crops(
    *,
    other_box=("first", "last"),
    other_pads=(0, 0, 0, 1),
    sides=(8, 8),
    more=(),
    out="out",
    bias=True,
):
    """leaky(conv(crop of 4 channels) + conv(crop of 3)), twice."""
    kept = BOX | {"lower": np.array([0, 1]), "upper": np.array([5, 6]), "b": (5,)}
    nodes = [
        ("Slice", ["wide", "first", "last", "sides"], "part", {}),
        ("Slice", ["thin", *other_box, "sides"], "piece", {}),
    ]
    for name in ("v", "w"):
        kept |= {f"{name}1": (5, 4, 1, 2), f"{name}2": (5, 3, 1, 2)}
        biases = ["b"] if bias else []
        about = {"kernel_shape": [1, 2]}
        nodes += [
            ("Conv", ["part", f"{name}1", *biases], f"{name}a", about | {"pads": [0, 0, 0, 1]}),
            ("Conv", ["piece", f"{name}2"], f"{name}b", about | {"pads": list(other_pads)}),
            ("Add", [f"{name}a", f"{name}b"], f"{name}c", {}),
        ]
    nodes += [("Mul", ["vc", "wc"], "out", {}), *more]
    return model_of(nodes, {"wide": (4, 8, 8), "thin": (3, *sides)}, kept, out)


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_crops_become_one_of_one_crop(bias):
    model, largest = crops(bias=bias), {"part": 4.0, "piece": 0.5}
    kinds = rewritten(functools.partial(joined_sums.rewrite, largest=largest), model, 2)
    assert kinds == {"Mul": 2, "Concat": 1, "Slice": 1, "Conv": 2}
    (crop,) = (node.output[0] for node in model.graph.node if node.op_type == "Slice")
    assert largest == {"part": 4.0, "piece": 0.5, crop: 4.0}
    (factor,) = (w for w in model.graph.initializer if w.dims == [1])
    assert numpy_helper.to_array(factor) == [8.0]
    assert quantise.activations(quantise.layers(model)) == [crop]


def test_maps_of_equal_range_are_joined_as_they_are():
    largest = {"part": 2.0, "piece": 2.0}
    kinds = rewritten(functools.partial(joined_sums.rewrite, largest=largest), crops(), 2)
    assert kinds["Mul"] == 1


def plain(*before):
    """conv(4 channels) + (conv(3) + conv(3)), all of maps as they are but for `before`."""
    weights = {"w1": (5, 4, 3, 3), "w2": (5, 3, 3, 3), "w3": (5, 3, 3, 3), "b": (5,), "c": (5,)}
    weights["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    about = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        *before,
        ("Conv", ["wide", "w1", "b"], "one", about),
        ("Conv", ["thin", "w2"], "other", about),
        ("Conv", ["last" if before else "third", "w3", "c"], "another", about),
        ("Add", ["other", "another"], "two", {}),
        ("Add", ["one", "two"], "out", {}),
    ]
    side = 6 if before else 8
    given = {"wide": (4, 8, 8), "thin": (3, 8, 8), "third": (3, side, side)}
    return model_of(nodes, given, weights)


def test_a_sum_of_three_with_two_biases_becomes_one_convolution():
    largest = {"wide": 1.0, "thin": 3.0, "third": 1.0}
    kinds = rewritten(functools.partial(joined_sums.rewrite, largest=largest), plain(), 1)
    assert kinds == {"Mul": 1, "Concat": 1, "Conv": 1}


def test_convolutions_of_groups_are_left_apart():
    about = {"kernel_shape": [1, 1], "group": 2}
    nodes = [
        ("Conv", ["wide", "v"], "a", about),
        ("Conv", ["thin", "w"], "b", about),
        ("Add", ["a", "b"], "out", {}),
    ]
    given = {"wide": (4, 8, 8), "thin": (4, 8, 8)}
    model = model_of(nodes, given, {"v": (4, 2, 1, 1), "w": (4, 2, 1, 1)})
    assert joined_sums.rewrite(Graph(model), {"wide": 1.0, "thin": 1.0}) == 0


def test_padded_maps_are_left_apart():
    padded = plain(("Pad", ["third", "pads"], "last", {"mode": "edge"}))
    largest = {"wide": 1.0, "thin": 1.0, "last": 1.0}
    assert joined_sums.rewrite(Graph(padded), largest) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"other_box": ("lower", "upper")},
        {"other_pads": (0, 1, 0, 0)},
        {"sides": (9, 9)},
        {"more": [("Mul", ["va", "wb"], "m", {}), ("Mul", ["out", "m"], "end", {})], "out": "end"},
    ],
    ids=["another box", "another padding", "another size", "taken elsewhere too"],
)
def test_what_differs_is_not_joined(other):
    assert joined_sums.rewrite(Graph(crops(**other)), {"part": 4.0, "piece": 0.5}) == 0


@pytest.fixture(scope="module")
def decoder(exported):
    """The tiny `picme` engine, its decoder with an attention that counts, and what it is fed."""
    engine = engines.load(exported("picme").path)
    model = onnx.load_from_string(engine.read("fp32/decoder.onnx"))
    (gamma,) = (w for w in model.graph.initializer if w.name.endswith("attention.gamma"))
    gamma.CopyFrom(numpy_helper.from_array(np.ones(gamma.dims, np.float32), gamma.name))
    hole = np.zeros((64, 64), bool)
    hole[20:44, 16:50] = True
    pieces = [data.chelsea()[60:124, 64 * i : 64 * (i + 1)] for i in range(3)]
    feeds = calibrate.decoder_feeds(engine, [(piece, hole) for piece in pieces])
    return engine, model, feeds


@pytest.fixture(scope="module")
def prepared(decoder):
    _, model, feeds = decoder
    made = onnx.ModelProto.FromString(model.SerializeToString())
    return made, calibrate.prepare(made, functools.partial(calibrate.largest, made, feeds))


def test_a_prepared_decoder_gives_the_same_pictures(decoder, prepared):
    engine, model, feeds = decoder
    made, top = prepared
    assert set(top) == set(quantise.activations(quantise.layers(made)))
    before, after = (calibrate._pictures(m, engine.tables.decoder, feeds) for m in (model, made))
    np.testing.assert_allclose(after, before, atol=1e-5)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("ReduceMax") == 1
    assert kinds.count("Slice") < [node.op_type for node in model.graph.node].count("Slice")


def test_its_products_are_layers_that_are_worth_their_multiplications(decoder, prepared):
    engine, made = decoder[0], prepared[0]
    cost = graph_shapes.check(made.SerializeToString(), engine.tables.decoder, engine.crops)
    macs = quantise.multiplications(made, cost.shapes)
    products = [one for one in quantise.layers(made) if one.operator == "MatMul"]
    assert len(products) == 2
    for one in products:
        _, wide, places = cost.shapes[one.gives]
        assert macs[one.name] == wide * places * places
    assert 0.97 * cost.macs < sum(macs.values()) < cost.macs


@pytest.fixture(scope="module")
def written(decoder, prepared, tmp_path_factory):
    """An engine of both decoders, every layer of the second in int8."""
    engine, model, _ = decoder
    made, top = prepared
    quantised = quantise.quantise(made, quantise.layers(made), top)
    path = tmp_path_factory.mktemp("int8") / "picme"
    shutil.copytree(engine.path, path)
    files, contents = dict(engine.files), {"fp32": model, "int8": quantised}
    for variant, graph in contents.items():
        content, name = graph.SerializeToString(), f"{variant}/decoder.onnx"
        (path / variant).mkdir(exist_ok=True)
        (path / name).write_bytes(content)
        files[name] = engines.File(hashlib.sha256(content).hexdigest(), len(content))
    roles = engine.variants["fp32"]
    variants = {"fp32": roles, "int8": roles | {"decoder": "int8/decoder.onnx"}}
    changed = dataclasses.replace(engine, files=files, variants=variants)
    (path / engines.MANIFEST).write_text(engines.manifest(changed))
    return engines.load(path)


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_every_backend_computes_them_in_int8(written, backend):
    want = walk(opened(written.path, "onnxruntime"), written)["picture"]
    got = walk(opened(written.path, backend, "int8"), written)["picture"]
    error = np.sqrt(np.square(got - want).mean())
    assert 0 < error < 0.03 * np.abs(want).max()


def test_openvino_multiplies_attention_s_rows_in_int8(written, monkeypatch):
    compiled, real = [], openvino.Core.compile_model

    def keep(*given, **more):
        compiled.append(real(*given, **more))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", keep)
    monkeypatch.setattr(openvino_int8, "saturates", lambda: False)
    opened(written.path, "openvino", "int8", threads=1)
    said = [node.get_rt_info() for one in compiled for node in one.get_runtime_model().get_ops()]
    kinds = [
        info["runtimePrecision"].astype(str)
        for info in said
        if info["layerType"].astype(str) == "MatMul"
    ]
    assert sum(kind in ("i8", "u8") for kind in kinds) == 2
