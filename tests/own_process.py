"""Tests that need a process to themselves."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable

_INSIDE = "PICME_TEST_IN_OWN_PROCESS"


def in_own_process(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test without fixtures in a pytest of its own.

    For signals: late in a long run of the whole suite, with every library loaded, the kernel twice
    killed the process where a test sent its main thread SIGINT (SIGSEGV, SI_KERNEL).
    """

    @functools.wraps(test)
    def run() -> None:
        if os.environ.get(_INSIDE):
            test()
            return
        name = f"{test.__code__.co_filename}::{test.__name__}"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name],
            env={**os.environ, _INSIDE: "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run
