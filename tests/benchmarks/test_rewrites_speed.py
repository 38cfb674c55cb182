"""What the exact rewrites are worth: plain graphs against rewritten ones, in turns."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest
from contestants import random_network
from cpu_backends import LIBRARIES
from pytest_benchmark.fixture import BenchmarkFixture

from picme_export import graphs
from picme_rt.backends import onnxruntime, openvino
from picme_rt.backends.graphs import Checked, Graphs
from picme_rt.choices import Settings
from picme_rt.turns import Turns
from picme_rt.windows import windows
from picme_training.networks import fold

TURNS = 25
LOADERS = {"onnxruntime": onnxruntime.load, "openvino": openvino.load}


@pytest.fixture(scope="module", params=["picme", "cats"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, is_timed: bool
) -> list[Graphs]:
    """Plain and rewritten graphs of one network with random weights: 256x256, else 64x64."""
    model = fold(random_network(request.param, 256 if is_timed else 64))
    tables, place = graphs.tables_of(model), tmp_path_factory.mktemp(request.param)
    crops, side = graphs.crops_of(model), model.config.size
    checked: dict[bool, list[Checked]] = {False: [], True: []}
    for module, table, cropped in (
        (graphs.EncoderGraph(model), tables.encoder, ()),
        (graphs.DecoderGraph(model, z_m=True), tables.decoder, crops),
    ):
        traced = graphs.traced(module, table)  # torch's exporter takes seconds
        for rewrite, written in checked.items():
            path, one = place / "graph.onnx", onnx.ModelProto()
            one.CopyFrom(traced)
            graphs.written(one, table, cropped, path, rewrite=rewrite)
            written.append(Checked(path, path.read_bytes(), table))
    return [Graphs("fp32", *two, crops, partial(windows, side, crops)) for two in checked.values()]


@pytest.mark.benchmark(group="plain and rewritten graphs in turn: extra_info has each one's times")
@pytest.mark.parametrize(("backend", "precision"), LIBRARIES)
def test_rewritten_graphs_against_plain_ones(
    benchmark: BenchmarkFixture, both: list[Graphs], backend: str, precision: str
) -> None:
    """One encode and six decodes, CPU milliseconds of all threads."""
    random = np.random.default_rng(0)
    side = both[0].encoder.table.inputs[0].shape[-1]
    image = random.uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    hole = np.zeros((1, 1, side, side), np.float32)
    hole[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 1
    calls: dict[str, Callable[[], object]] = {}
    pictures = {}
    for name, found in zip(("plain", "rewritten"), both, strict=True):
        engine = LOADERS[backend](found, Settings(backend, precision, threads=1), Turns(1))
        z = np.full((1, *found.decoder.table.inputs[0].shape), 0.5, np.float32)
        values = engine.encode(image, hole) | {"hole": hole}
        decode = engine.decoding(values)
        pictures[name] = decode(z).copy()

        def call(engine=engine, decode=decode, z=z) -> None:  # type: ignore[no-untyped-def]
            engine.encode(image, hole)
            for _ in range(6):
                decode(z)

        calls[name] = call
    times: dict[str, list[float]] = {name: [] for name in calls}

    def turn() -> None:
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - began))

    benchmark.pedantic(turn, rounds=TURNS)
    for name, taken in times.items():
        benchmark.extra_info[name] = [round(min(taken), 1), round(statistics.median(taken), 1)]
    error = np.abs(pictures["plain"] - pictures["rewritten"]).max()
    assert error <= (1e-5 if precision == "fp32" else 0.1)
