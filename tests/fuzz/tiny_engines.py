"""Two engines of 16x16, made by hand with every operator that an engine may have.

The one with z_m takes a box (format 2), the other makes whole pictures alone (format 1).

They say nothing about pictures; a thousand of them load in the time of a few real ones.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from picme_rt import engine as engines
from picme_rt import tensors
from picme_rt.onnx_file import OPSET
from picme_rt.windows import Crop

SIZE, LATENT = 16, 4
FEATURE = (4, 8, 8)
# the last 3x3 reaches one pixel, a pixel of the transposed convolution one place onwards
CROPS = (Crop(side=8, before=1, after=2, halo=0),)
KINDS = {"float32": 1, "int64": 7}


class Files(NamedTuple):
    """An engine as bytes: each file by its name, and what its manifest says."""

    files: dict[str, bytes]
    engine: engines.Engine


class _Graph:
    """Nodes and weights in the order in which they are added."""

    def __init__(self, seed):
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def put(self, operator, *inputs, out=None, outputs=1, **attributes):
        names = [out] if out else [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(operator, inputs, names, f"n{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def keep(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape):
        return self.keep((0.3 * self.random.standard_normal(shape)).astype(np.float32))

    def half(self, *shape):
        """A weight that lies in the file as float16."""
        stored = self.keep((0.3 * self.random.standard_normal(shape)).astype(np.float16))
        return self.put("Cast", stored, to=1)

    def real(self, *numbers):
        return self.keep(np.array(numbers if len(numbers) > 1 else numbers[0], np.float32))

    def integers(self, *numbers):
        return self.keep(np.array(numbers, np.int64))

    def gemm(self, x, wide, out, *, bias=True):
        weight = self.half(out, wide)
        more = (self.normal(out),) if bias else ()
        return self.put("Gemm", x, weight, *more, transA=0, transB=1, alpha=1.0, beta=1.0)

    def conv(self, x, cin, cout, side, *, bias=True, **attributes):
        weight = self.normal(cout, cin, side, side)
        more = (self.normal(cout),) if bias else ()
        return self.put("Conv", x, weight, *more, kernel_shape=[side, side], group=1, **attributes)

    def rounded(self, x, scale):
        """To int8 and back."""
        by = self.real(scale), self.keep(np.array(0, np.int8))
        return self.put("DequantizeLinear", self.put("QuantizeLinear", x, *by), *by)

    def conv_int8(self, x, cin, cout, side, **attributes):
        """A convolution as int8 has it: weights in the file as int8, what goes in rounded."""
        levels = self.random.integers(-127, 128, (cout, cin, side, side)).astype(np.int8)
        scales = self.keep(self.random.uniform(0.002, 0.003, cout).astype(np.float32))
        weight = self.put("DequantizeLinear", self.keep(levels), scales, axis=0)
        taken = self.rounded(x, 0.03)
        return self.put("Conv", taken, weight, kernel_shape=[side, side], group=1, **attributes)

    def reshape(self, x, *shape, out=None):
        return self.put("Reshape", x, self.integers(*shape), out=out, allowzero=1)

    def bytes(self, table):
        ends = [
            [helper.make_tensor_value_info(t.name, KINDS[t.kind], t.axes) for t in way]
            for way in (table.inputs, table.outputs)
        ]
        graph = helper.make_graph(self.nodes, "g", *ends, initializer=self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 10
        if any(t.cropped for t in table.outputs):
            return model.SerializeToString()  # what a crop leaves follows the box
        return onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString()


def _encoder(table, primitives, *, z_m):
    g = _Graph(primitives)
    known = g.put("Sub", g.real(1.0), "hole")
    seen = g.put("Concat", g.put("Mul", "image", known), "hole", axis=1)
    x = g.conv(seen, 4, 4, 3, strides=[2, 2], pads=[1, 1, 1, 1], dilations=[1, 1])
    x = g.put("LeakyRelu", x, alpha=0.1)
    g.put("Tanh", x, out="f_0")
    deep = g.put("SpaceToDepth", x, blocksize=2)
    small = g.put("AveragePool", deep, kernel_shape=[4, 4], strides=[4, 4], count_include_pad=1)
    row = g.reshape(g.put("Div", small, g.real(1.25)), -1, 16)
    if z_m:
        g.put("LogSoftmax", g.gemm(row, 16, primitives), out="log_alpha", axis=-1)
        g.put("Tanh", g.gemm(row, 16, LATENT, bias=False), out="z_m")
    else:  # as `pic` has it: one Gaussian, log_alpha of 0
        one = g.put("Unsqueeze", g.gemm(row, 16, LATENT), g.integers(1))
        one = g.put("Gather", one, g.keep(np.array(0, np.int64)), axis=2)
        g.put("Expand", g.real(0.0), g.put("Shape", one, start=0), out="log_alpha")
    g.reshape(g.gemm(row, 16, primitives * LATENT), -1, primitives, LATENT, out="mu")
    wide = g.reshape(g.gemm(row, 16, primitives * LATENT), -1, primitives, LATENT)
    g.put("Clip", wide, g.real(-6.0), g.real(3.0), out="log_sigma")
    return g.bytes(table)


def _decoder(table, *, z_m):
    g = _Graph(7)
    row, wide = (g.put("Concat", "z", "z_m", axis=1), 2 * LATENT) if z_m else ("z", LATENT)
    x = g.reshape(g.gemm(row, wide, 64), -1, 4, 4, 4)
    small = x
    x = g.put("Resize", x, "", g.real(1.0, 1.0, 2.0, 2.0), mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")  # fmt: skip
    x = g.put("Add", x, g.put("DepthToSpace", small, blocksize=2, mode="CRD"))
    x = g.put("InstanceNormalization", x, g.normal(4), g.normal(4), epsilon=1e-5)
    scale, shift = g.put("Split", g.gemm(row, wide, 8), outputs=2, axis=1, num_outputs=2)
    axes = g.integers(2, 3)
    x = g.put("Mul", x, g.put("Unsqueeze", scale, axes))
    x = g.put("Add", x, g.put("Unsqueeze", shift, axes))
    flat = g.reshape(x, -1, 4, 64)
    looks = g.put("MatMul", g.put("Transpose", flat, perm=[0, 2, 1]), flat)
    shares = g.put("Softmax", looks, axis=-1)
    most = g.put("ReduceMax", shares, g.integers(-1), keepdims=1)  # a row, as int8 has it
    shares = g.put("Transpose", g.put("Div", shares, most), perm=[0, 2, 1])
    seen = g.put("MatMul", flat, shares)
    seen = g.put("Mul", seen, g.put("Transpose", most, perm=[0, 2, 1]))
    seen = g.reshape(seen, -1, 4, 8, 8)
    x = g.put("Add", g.put("Add", x, seen), "f_0")
    pooled = g.put("AveragePool", "hole", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1)
    x = g.put("Concat", x, pooled, axis=1)
    if z_m:
        ends = [g.put("Gather", "box", g.keep(np.array(i, np.int64)), axis=0) for i in (0, 1)]
        x = g.put("Slice", x, *ends, axes)
    x = g.put("ConvTranspose", x, g.normal(5, 5, 3, 3), g.normal(5), kernel_shape=[3, 3],
              strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], group=1)  # fmt: skip
    x = g.put("Pad", x, g.integers(0, 0, 1, 0, 0, 0, 0, 1), mode="edge")
    x = g.put("Pad", x, g.integers(0, 0, 0, 1, 0, 0, 1, 0), mode="reflect")
    x = g.conv_int8(x, 5, 3, 3, strides=[1, 1], pads=[0, 0, 0, 0])
    g.put("Tanh", x, out="picture")
    return g.bytes(table)


TWO_CROPS = (Crop(side=8, before=0, after=0, halo=0), Crop(side=16, before=0, after=0, halo=0))


def _bent_decoder(table, how):
    """Crops the hole, and something else by rows that are inside for the boxes looked at first.

    These begin in rows 8, 0 and 12 of the picture; f_0 and f_1 are the first rows of their windows.
    """
    g = _Graph(7)
    (f_0, _), (f_1, l_1) = (
        [g.put("Gather", "box", g.keep(np.array(2 * i + j, np.int64)), axis=0) for j in (0, 1)]
        for i in (0, 1)
    )
    two, axes = g.keep(np.array(2, np.int64)), g.integers(2, 3)
    begin = g.put("Mul", f_0, two)
    first, last = g.put("Add", f_1, begin), g.put("Add", l_1, begin)
    if how == "product":  # last - (first (first - 8) (first - 12))^2
        x, start = "hole", first
        by = [g.put("Add", first, g.integers(-n, -n)) for n in (8, 12)]
        bend = g.put("Mul", g.put("Mul", first, by[0]), by[1])
        bend = g.put("Mul", g.put("Mul", bend, bend), g.integers(-1, -1))
        end = g.put("Add", last, bend)
    else:  # 8 f_1 to 8 f_0 + 1 of a map of 48 x 48
        x = g.put("Resize", "hole", "", g.real(1.0, 1.0, 3.0, 3.0), mode="nearest",
                  nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip
        eight = g.integers(8, 8)
        start = g.put("Mul", f_1, eight)
        end = g.put("Add", g.put("Mul", f_0, eight), g.integers(1, 1))
    part = g.put("Slice", x, start, end, axes)
    part = g.put("InstanceNormalization", part, g.normal(1), g.normal(1), epsilon=1e-5)
    for axis in (3, 2):
        part = g.put("Gather", part, g.keep(np.array(0, np.int64)), axis=axis)
    map_ = g.put("Add", g.put("Slice", "hole", first, last, axes), g.put("Unsqueeze", part, axes))
    g.put("Tanh", g.put("Concat", map_, map_, map_, axis=1), out="picture")
    return g.bytes(table)


def bent(how: str) -> Files:
    """An engine whose decoder is right for the boxes that a reader looks at first, for few others.

    Args:
        how: "product" of a box's own numbers, or "sum" of them.
    """
    tables = tensors.tables(
        size=SIZE, primitives=1, latent=LATENT, features=[FEATURE], z_m=False, crops=2
    )
    graphs = {
        "fp32/encoder.onnx": _encoder(tables.encoder, 1, z_m=False),
        "fp32/decoder.onnx": _bent_decoder(tables.decoder, how),
    }
    engine = dataclasses.replace(make(z_m=False).engine, crops=TWO_CROPS)
    return Files({**graphs, engines.MANIFEST: signed(engine, graphs)}, engine)


def make(*, z_m: bool) -> Files:
    """An engine with z_m and a mixture of two, or one without and with one Gaussian."""
    primitives = 2 if z_m else 1
    crops = CROPS if z_m else ()
    tables = tensors.tables(
        size=SIZE, primitives=primitives, latent=LATENT, features=[FEATURE], z_m=z_m,
        crops=len(crops),
    )  # fmt: skip
    graphs = {
        "fp32/encoder.onnx": _encoder(tables.encoder, primitives, z_m=z_m),
        "fp32/decoder.onnx": _decoder(tables.decoder, z_m=z_m),
    }
    engine = engines.Engine(
        path=Path("tiny"), name="tiny", framing="aligned", size=SIZE, primitives=primitives,
        latent=LATENT, features=[FEATURE], z_m=z_m,
        variants={"fp32": {role: f"fp32/{role}.onnx" for role in ("encoder", "decoder")}},
        files={}, provenance={"data": "none", "measures": [1, 2.5, None]},
        crops=crops,
    )  # fmt: skip
    return Files({**graphs, engines.MANIFEST: signed(engine, graphs)}, engine)


def signed(engine: engines.Engine, graphs: dict[str, bytes]) -> bytes:
    """The manifest of an engine whose graphs have these bytes, with their right digests."""
    files = {
        name: engines.File(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in graphs.items()
    }
    return engines.manifest(dataclasses.replace(engine, files=files)).encode()
