"""The cases that run alone: the table has every one of them."""

import subprocess
import sys
from pathlib import Path

from cpu_backends import LIBRARIES


def test_every_case_is_timed_in_a_process_of_its_own():
    script = Path(__file__).with_name("alone.py")
    short = ["--turns", "1", "--calls", "1", "--warm", "0", "--size", "64"]
    command = [sys.executable, str(script), *short]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines()[2:]]
    assert rows[:3] == ["reference loop", "torch, folded", "plain export"]
    assert rows[3:] == [", ".join((n, *one)) for n in ("picme", "cats") for one in LIBRARIES]
