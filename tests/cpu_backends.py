"""The backends and precisions that this machine runs: what tests of all of them go through."""

from picme_rt import backends
from picme_rt.backends import openvino, pyramids

_CAPABLE = openvino._import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
BF16 = "BF16" in _CAPABLE  # older CPUs refuse it, which test_backends.py simulates too
EVERY = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("torch", "fp32")]
EVERY[2:2] = [("openvino", "bf16")] * BF16  # in the order of tuning
assert {name for name, _ in EVERY} == set(backends.BACKENDS)
PYRAMIDS = [one for one in EVERY if one[0] in pyramids.BACKENDS]  # of engines of kind `idc`
LIBRARIES = [one for one in EVERY if one[0] != "torch"]  # that are made for inference
