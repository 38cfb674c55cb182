"""A training keeps its memory: what was freed is not asked of the system again, page by page."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from picme_training import memory
if "keep" in sys.argv:
    memory.keep()
import torch

def round_of_blocks():
    blocks = [torch.empty(30 << 20, dtype=torch.uint8).fill_(1) for _ in range(3)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(10):
    before = round_of_blocks()
for _ in range(10):
    after = round_of_blocks()
print(after - before)
"""


def faults(*arguments):
    """Pages that the system hands out in ten rounds of three blocks of 30 MiB."""
    known = {name: value for name, value in os.environ.items() if "ALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        env={**known, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_what_was_freed_is_there_for_the_next_block():
    assert faults("keep") < faults()
