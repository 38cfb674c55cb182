"""Quantised layers on OpenVINO, where this CPU's int8 would saturate and where it does not."""

import platform
from pathlib import Path

import numpy as np
import openvino
import pytest
import tiny_engines
from test_backends import opened, walk

from picme_rt import engine as engines
from picme_rt.backends import openvino_int8


@pytest.fixture
def tiny(tmp_path):
    """An engine whose decoder has a quantised convolution of the largest weights."""
    for name, content in tiny_engines.make(z_m=True).files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return engines.load(tmp_path)


@pytest.fixture
def compiled(monkeypatch):
    """Whatever OpenVINO compiles."""
    made, real = [], openvino.Core.compile_model

    def keep(*given, **more):
        made.append(real(*given, **more))
        return made[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", keep)
    return made


def convolved_in(models):
    """The kinds of number that convolutions take."""
    nodes = [node.get_rt_info() for one in models for node in one.get_runtime_model().get_ops()]
    return {
        info["runtimePrecision"].value
        for info in nodes
        if "Convolution" in str(info["layerType"].value)
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the flags of /proc/cpuinfo")
def test_it_is_known_whether_this_cpu_saturates():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    exact = flags & {"avx512_vnni", "avx_vnni", "amx_int8"}
    assert openvino_int8.saturates() == (not exact)


def test_where_sums_saturate_quantised_layers_are_computed_in_float32(tiny, compiled, monkeypatch):
    monkeypatch.setattr(openvino_int8, "saturates", lambda: True)
    want = walk(opened(tiny.path, "onnxruntime"), tiny)["picture"]
    got = walk(opened(tiny.path, "openvino"), tiny)["picture"]
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
    assert convolved_in(compiled) == {"f32"}


def test_elsewhere_they_are_computed_in_int8(tiny, compiled, monkeypatch):
    monkeypatch.setattr(openvino_int8, "saturates", lambda: False)
    walk(opened(tiny.path, "openvino"), tiny)
    assert convolved_in(compiled) & {"u8", "i8"}


def test_a_graph_without_them_does_not_ask(engine, monkeypatch):
    monkeypatch.setattr(openvino_int8, "saturates", lambda: 1 / 0)
    opened(engine, "openvino")
