"""The backends and precisions that this machine runs: what tests of all of them go through."""

from picme_rt import backends
from picme_rt.backends import openvino

_CAPABLE = openvino._import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
BF16 = "BF16" in _CAPABLE  # older CPUs refuse it, which test_backends.py simulates too
EVERY = [(name, "fp32") for name in backends.BACKENDS] + [("openvino", "bf16")] * BF16
