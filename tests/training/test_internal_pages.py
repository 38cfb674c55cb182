import subprocess
import sys

ROUNDS = """
import resource, sys
import numpy as np
from picme_training.internal import pages

if sys.argv[1] == "kept":
    assert pages.keep()

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        maps = [np.ones(3 << 17) for _ in range(8)]  # of 3 MB
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2)
print(faults(10))
"""


def test_maps_take_the_pages_of_those_before_and_do_not_by_default():
    kept, default = (
        int(subprocess.check_output([sys.executable, "-c", ROUNDS, name], text=True))
        for name in ("kept", "default")
    )
    assert default > 100
    assert kept < 0.1 * default
