"""The cases that run alone: the table has every one of them."""

import shutil
import sys

import alone
from cpu_backends import LIBRARIES

from picme_export import export


def test_every_case_is_timed_in_a_process_of_its_own(exported, monkeypatch, capsys):
    engines = {name: exported(name).path for name in alone.ENGINES}

    def stored(model, place, *, name):
        shutil.copytree(engines[name], place)

    monkeypatch.setattr(export, "write", stored)  # tracing takes seconds
    short = ["--turns", "1", "--calls", "1", "--warm", "0", "--size", "64"]
    monkeypatch.setattr(sys, "argv", ["alone.py", *short])
    alone.main()
    rows = [line.split(" | ")[0].strip("| ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[:3] == ["reference loop", "torch, folded", "plain export"]
    assert rows[3:] == [", ".join((n, *one)) for n in ("picme", "cats") for one in LIBRARIES]
