"""What int8 costs on real pictures: the range of each value, and which layers are worth it."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from picme_export import attention_rows, joined_sums, quantise
from picme_export.quantise import Layer
from picme_export.rewrites.graph import Graph
from picme_rt import backends, choices, composite, framing, kernels, pipeline, tensors, windows
from picme_rt.encoded import Mixture
from picme_rt.engine import Engine
from picme_rt.errors import InputError
from picme_rt.framing import Box
from picme_rt.images import Float, Hole, Image
from picme_training import data, masks
from picme_training.config import MaskConfig

Feeds = Sequence[Mapping[str, NDArray[Any]]]
"""Every input of a graph by name, (1, ...), once for each picture."""

SHARES = (1.0, 0.8, 0.65, 0.5, 0.4)
"""Of a value's largest magnitude: the ranges that are tried."""


def read(folder: Path, engine: Engine, *, seed: int) -> list[tuple[Image, Hole]]:
    """The pictures of a folder at the engine's size in random order, each with a random hole.

    Args:
        folder: Pictures, or a file of `picme pack`.
        engine: Says the size.
        seed: Of the order and of the holes, which are those of training.

    Raises:
        InputError: There are fewer than four pictures.
    """
    found = data.load_pictures(folder, engine.size, smallest=engine.size)
    if len(found.pixels) < 4:
        raise InputError(
            f"--calibration must hold at least 4 pictures of {engine.size} pixels or more, "
            f"got {len(found.pixels)} in {folder}"
        )
    pixels = found.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    order = np.random.default_rng([seed, 6]).permutation(len(pixels))
    return [
        (pixels[i], masks.draw(MaskConfig(), engine.size, np.random.default_rng([seed, 7, i])))
        for i in order
    ]


def decoder_feeds(engine: Engine, pictures: Iterable[tuple[Image, Hole]]) -> Feeds:
    """What the decoder sees of some pictures in a session, one latent each: fit, encode, sample."""
    backend = backends.load(engine, backends.defaults("onnxruntime", "fp32"))
    names = [tensor.name for tensor in engine.tables.decoder.inputs]
    whole = windows.windows(engine.size, engine.crops, Box(0, 0, engine.size, engine.size))
    box = {"box": whole.rows} if engine.crops else {}
    feeds = []
    for place, (pixels, hole) in enumerate(pictures):
        region = framing.regions(hole, engine.size, engine.framing)[0]
        fitted = composite.fit(pixels, hole, region, engine.size)
        given = backend.encode(fitted.image[None], fitted.hole[None])
        alpha, mu, sigma = (given[name] for name in Mixture._fields)
        seed = np.array([place], np.uint64)
        given["z"] = kernels.sample_gmm(alpha, mu, sigma, seed, k=1).z[0]
        given["hole"] = fitted.hole[None]
        feeds.append({name: given[name] for name in names if name in given} | box)
    return feeds


def largest(model: onnx.ModelProto, feeds: Feeds, names: Collection[str]) -> dict[str, float]:
    """The largest magnitude of each value over all feeds; 1 where it is 0 throughout."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    given = {value.name for value in model.graph.output}
    made, kind = [name for name in names if name not in inputs], onnx.TensorProto.FLOAT
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, kind, None) for name in made if name not in given
    )
    session, top = _session(shown), dict.fromkeys(names, 0.0)
    for feed in feeds:
        values = {**feed, **dict(zip(made, session.run(made, dict(feed)), strict=True))}
        for name in names:
            top[name] = max(top[name], float(np.abs(values[name]).max()))
    return {name: found or 1.0 for name, found in top.items()}


def prepare(
    model: onnx.ModelProto, find: Callable[[Collection[str]], dict[str, float]]
) -> dict[str, float]:
    """Brings a decoder, in place, to the form that int8 is made of: attention_rows, joined_sums.

    Args:
        model: A decoder in float32.
        find: The `largest` magnitudes of some values of it.

    Returns:
        Those of every value of `quantise.activations`.
    """
    _rewrite(model, attention_rows.rewrite)
    top = find(quantise.activations(quantise.layers(model)))
    _rewrite(model, lambda graph: joined_sums.rewrite(graph, top))
    return {name: top[name] for name in quantise.activations(quantise.layers(model))}


def _rewrite(model: onnx.ModelProto, one: Callable[[Graph], int]) -> None:
    graph = Graph(model)
    if one(graph):
        graph.finish()


class Tried(NamedTuple):
    """One layer alone in int8.

    Attributes:
        layer: The layer.
        error: Mean squared error of the pictures in the hole, in squared levels of 255.
        ranges: Of the values that are quantised with it.
    """

    layer: Layer
    error: float
    ranges: dict[str, float]


def alone(
    model: onnx.ModelProto, table: tensors.Graph, feeds: Feeds, top: Mapping[str, float]
) -> list[Tried]:
    """Every layer alone in int8, with the best of `SHARES` of the largest magnitudes as ranges.

    The worst picture decides. Where pictures follow from small differences of large values, fine
    steps are worth more than the few values that they clip; the values' own squared errors would
    not know, and a mean hides the one picture that needs what was clipped.

    Args:
        model: A decoder in float32.
        table: Its inputs and outputs.
        feeds: Some pictures.
        top: Largest magnitude of every value of `quantise.activations`.
    """
    want, layers = _pictures(model, table, feeds), quantise.layers(model)

    def best(one: Layer, go_on: pipeline.GoOn) -> Tried:
        tried = []
        for share in SHARES:
            go_on()
            ranges = {name: share * top[name] for name in quantise.activations([one])}
            got = _pictures(quantise.quantise(model, [one], ranges), table, feeds)
            errors = _errors(want, got, feeds)
            tried.append((max(errors), Tried(one, float(np.mean(errors)), ranges)))
        return min(tried, key=lambda each: each[0])[1]

    # a session computes on one thread: its sums, and so what is chosen, depend on no core
    with contextlib.closing(pipeline.in_order(best, layers, at_once=choices.cores())) as outcomes:
        bar = tqdm(
            outcomes,
            total=len(layers),
            desc="trying layers in int8",
            unit="layer",
            leave=False,
            disable=None,
        )
        return list(bar)


def choose(tried: Sequence[Tried], macs: Mapping[str, int], *, budget: float) -> list[Tried]:
    """The layers that are worth it: the others have the largest error a multiplication.

    Errors of layers are nearly independent: their squares add up.

    Args:
        tried: Every layer alone.
        macs: Multiplications of every layer by name.
        budget: Largest sum of the errors.
    """
    chosen = sorted(tried, key=lambda one: one.error / macs[one.layer.name])
    while chosen and sum(one.error for one in chosen) > budget:
        chosen.pop()
    return chosen


def joint(chosen: Sequence[Tried]) -> dict[str, float]:
    """A range for each value: of the layers that share it, the widest."""
    found: dict[str, float] = {}
    for one in chosen:
        for name, value in one.ranges.items():
            found[name] = max(value, found.get(name, 0.0))
    return found


def _errors(want: list[Float], got: list[Float], feeds: Feeds) -> list[float]:
    """Of each picture, mean squared error in the hole, in squared levels of 255."""
    return [
        float(np.square((a - b)[:, feed["hole"][0, 0] > 0] * 127.5).mean())
        for a, b, feed in zip(want, got, feeds, strict=True)
    ]


def _pictures(model: onnx.ModelProto, table: tensors.Graph, feeds: Feeds) -> list[Float]:
    session = _session(model)
    return [session.run([table.outputs[0].name], dict(feed))[0][0] for feed in feeds]


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
