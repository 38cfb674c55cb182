"""A measurement by a process of its own: what it has found is kept, however it ends.

The picme_rt of the repository is already imported in the process that asks; this one imports the
one that was built for the GPU. It appends each thing that it finds to a file, as one line of JSON.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

Result = dict[str, Any]
Found = tuple[str, Any]
"""Which list of a part's result it belongs to, and what it is."""
MOST_SECONDS = 540
TRAINING = Path(__file__).parents[1]
CALL = "import sys; from gpu import own_process; own_process.tell(*sys.argv[1:])"


def run(
    name: str, device: torch.device, tiny: bool, folder: Path, *, check: str
) -> tuple[Result, list[Found]]:
    """What `gpu.NAME.use` gives with the picme_rt in `folder`.

    Returns:
        Whether it came to its end, a check of the name `check`; and what it found until then.
    """
    found = folder / "found.jsonl"
    found.touch()
    ended: Result = {"name": check, "pass": False}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CALL, name, str(device), str(tiny), str(found)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(TRAINING)))},
            cwd=folder,
            stdout=subprocess.DEVNULL,  # the tables go there
            timeout=MOST_SECONDS,
            check=False,
        )
        ended["pass"] = done.returncode == 0
        if not ended["pass"]:
            ended["said"] = f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        ended["said"] = f"it was ended after {MOST_SECONDS} s"
    whole = [line for line in found.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return ended, [(kind, value) for kind, value in map(json.loads, whole)]


def tell(name: str, device: str, tiny: str, path: str) -> None:
    """What the process does: it writes down each thing as it is found."""
    with open(path, "a", encoding="utf-8") as file:
        module = importlib.import_module(f"gpu.{name}")
        for one in module.use(torch.device(device), tiny == "True"):
            file.write(json.dumps(one) + "\n")
            file.flush()


def sorted_out(found: Iterable[Found], kinds: Iterable[str]) -> dict[str, list[Any]]:
    """Everything by its kind."""
    lists: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for kind, value in found:
        lists[kind].append(value)
    return lists
