"""The cases of atomic_cases.py, in a process of their own.

They fork hundreds of times, once for each system call at which a writer may be killed. The child
of a process in which ONNX Runtime has run may wait for ever: when it collects garbage and frees a
session, it waits for threads that it does not have.
"""

import subprocess
import sys
from pathlib import Path


def test_every_case_of_a_killed_failing_or_interrupted_writer_passes():
    cases = Path(__file__).with_name("atomic_cases.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", cases],
        cwd=cases.parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
