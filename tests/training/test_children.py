"""A SIGTERM for a process that waits for others ends these too."""

import os
import signal
import subprocess
import sys

from picme_training import children

CHILD = "import os, time; os.write(2, b'%d ' % os.getpid()); time.sleep(60)"  # one write: whole
PARENT = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from picme_training import children

def run(i):
    return children.run([sys.executable, "-c", "{CHILD}"], sys.stderr).returncode

with children.told(), ThreadPoolExecutor(2) as pool:
    print(list(pool.map(run, range(3))))
"""


def alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_end_with_their_parent_and_none_is_left():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        try:
            heard = b""
            while heard.count(b" ") < 2:
                heard += os.read(parent.stderr.fileno(), 100)
            parent.send_signal(signal.SIGTERM)
            said, _ = parent.communicate(timeout=60)
        finally:
            parent.kill()
    assert said == b"[-15, -15, -15]\n"  # the third one was ended as it began
    assert parent.returncode == 0
    assert not any(map(alive, map(int, heard.split())))


def test_what_a_command_says_and_how_it_ends_is_given(tmp_path):
    path = tmp_path / "log.txt"
    code = "import sys; print('out'); print('log', file=sys.stderr); sys.exit(4)"
    with path.open("w") as log:
        done = children.run([sys.executable, "-c", code], log)
    assert (done.returncode, done.stdout, path.read_text()) == (4, "out\n", "log\n")


def test_afterwards_signals_are_what_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with children.told():
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
        assert children._ending.is_set()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not children._ending.is_set()
