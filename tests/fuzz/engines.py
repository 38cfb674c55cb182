"""Damages engines and opens them: each must be refused in one line, or give a right result.

    python tests/fuzz/engines.py --cases 100000        prints a summary as JSON; 1 on any finding
    python tests/fuzz/engines.py --first 4711 --cases 1   one case again
    python tests/fuzz/engines.py --backend openvino       graphs that pass go to OpenVINO

A case is a function of the seed and its number. Cases run in a child process with bounded memory;
the parent counts a child that dies as a crash, one that says nothing for long as a hang.
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import engine_mutations as mutations
import numpy as np
import tiny_engines
import tiny_pyramid
from tqdm import tqdm

import picme_rt
import picme_rt.backends.onnxruntime  # so that no child meets sources that changed meanwhile
import picme_rt.backends.openvino
from picme_rt import engine as engines
from picme_rt import pyramid
from picme_rt.errors import PicmeError
from picme_rt.pyramid import Pyramid

SILENCE = 30  # seconds without a word: a hang
MEMORY = 256 << 20  # bytes more than an engine that is whole takes: a finding
CHILD_CASES = 5000
KINDS = {
    "manifest bytes": 13, "manifest entries": 20, "graph bytes": 5, "graph bytes, signed": 20,
    "graph parts, signed": 37, "sizes, signed": 3, "files": 2,
}  # fmt: skip


class Case(NamedTuple):
    """Files of a damaged engine, the engine it was made from, and its kind."""

    files: dict[str, bytes]
    whole: tiny_engines.Files
    kind: str


class Outcome(NamedTuple):
    """What came of a case: `refused`, `loaded`, or what is wrong with it."""

    kind: str
    word: str
    says: str
    seconds: float
    resident: int


def wholes_of() -> list[tiny_engines.Files]:
    """The engines that cases are made from, of both kinds."""
    pyramids = [tiny_pyramid.make(larger=larger) for larger in (False, True)]
    return [*(tiny_engines.make(z_m=z_m) for z_m in (True, False)), *pyramids]


def graphs_of(whole: tiny_engines.Files) -> list[str]:
    """The names of an engine's graphs."""
    return [name for name in whole.files if name.endswith(".onnx")]


def make(seed: int, number: int, wholes: list[tiny_engines.Files]) -> Case:
    """One case."""
    dice = random.Random(f"{seed} {number}")
    whole = dice.choice(wholes)
    (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
    graphs = graphs_of(whole)
    engine, files, name = whole.engine, dict(whole.files), dice.choice(graphs)
    idc = isinstance(engine, Pyramid)
    if kind == "manifest bytes":
        files[engines.MANIFEST] = mutations.damage_bytes(dice, files[engines.MANIFEST])
    elif kind == "manifest entries":
        files[engines.MANIFEST] = mutations.damage_tree(dice, files[engines.MANIFEST])
    elif kind == "files":
        damage_files(dice, files)
    elif kind == "graph parts, signed":
        from_ = dice.choice(wholes)
        other = from_.files[dice.choice(graphs_of(from_))]
        files[name] = mutations.damage_graph(dice, files[name], other)
    elif kind == "sizes, signed" and not idc:
        engine, changed = mutations.change_sizes(dice, engine, {g: files[g] for g in graphs})
        files.update(changed)
    else:
        files[name] = mutations.damage_bytes(dice, files[name])
    if kind.endswith("signed"):
        contents = {n: content for n, content in files.items() if n != engines.MANIFEST}
        sign = tiny_pyramid.signed if idc else tiny_engines.signed
        files[engines.MANIFEST] = sign(engine, contents)
    return Case(files, whole, kind)


def damage_files(dice, files):
    """Files that are gone, of another length, or no files: the value's first word says what."""
    name = dice.choice(list(files))
    files[name] = dice.choice(
        (b"", files[name] + b"\0" * dice.choice((1, 1 << 20, 3 << 20)), b"<none>", b"<directory>",
         b"<pipe>", b"<link>", b"<folder link>", b"<device>", b"<hole>")
    )  # fmt: skip


def write(root: Path, files: dict[str, bytes]) -> None:
    """Puts a case on disk, in place of the last one."""
    for old in (root, root.with_name("elsewhere")):
        shutil.rmtree(old, ignore_errors=True)
    (root / "fp32").mkdir(parents=True)
    for name, content in files.items():
        path = root / name
        match content:
            case b"<none>":
                pass
            case b"<directory>":
                path.mkdir()
            case b"<pipe>":
                os.mkfifo(path)
            case b"<link>":
                path.symlink_to("/etc/passwd")
            case b"<folder link>":
                if path.parent != root:
                    path.parent.rename(root.with_name("elsewhere"))
                    path.parent.symlink_to(root.with_name("elsewhere"))
            case b"<device>":
                path.symlink_to("/dev/zero")
            case b"<hole>":
                with path.open("wb") as file:
                    file.truncate(1 << 40)
            case _:
                path.write_bytes(content)


def picture():
    """(20, 18, 3) and a hole; another size than the engine's."""
    img = np.random.default_rng(0).integers(0, 256, (20, 18, 3)).astype(np.uint8)
    hole = np.zeros(img.shape[:2], np.uint8)
    hole[5:12, 4:13] = 255
    return img, hole


def complete(root: Path, backend: str = "onnxruntime"):
    """Opens an engine and completes the picture with it; one of a single picture, its own."""
    with picme_rt.Session(root, backend=backend) as session:
        if session.info.picture is None:
            return session.complete(*picture(), k=2, seed=3)
        return session.complete(*tiny_pyramid.picture(), k=2, seed=3, diversity="high")


def decides(root: Path, *, idc: bool):
    """What of a manifest decides a result beside its graphs."""
    return decides_of(pyramid.load(root) if idc else engines.load(root))


def decides_of(engine: engines.Bundle):
    """Likewise of what was read."""
    if isinstance(engine, Pyramid):
        return engine.sizes, engine.windows
    return engine.framing


def judge(
    case: Case, root: Path, expected: np.ndarray, backend: str = "onnxruntime"
) -> tuple[str, str]:
    """Opens a case; `refused`, `loaded`, or what is wrong, and the words for it."""
    write(root, case.files)
    try:
        images = complete(root, backend).images
    except PicmeError as exc:
        text = str(exc)
        if "\n" in text or not text.isprintable() or len(text) > 1200:
            return "long words", text
        if re.search("bad_alloc|allocate|no graph that runs|did not run", text):
            return "late", text  # refused by the library, so it got what it should not see
        return "refused", text
    except Exception as exc:  # anything else is what this looks for
        return "foreign error", f"{type(exc).__name__}: {exc}"
    idc = isinstance(case.whole.engine, Pyramid)
    img, hole = tiny_pyramid.picture() if idc else picture()
    if images.shape != (2, *img.shape) or (images[:, hole == 0] != img[hole == 0]).any():
        return "wrong picture", "known pixels or shape"
    same = all(case.files[name] == case.whole.files[name] for name in graphs_of(case.whole))
    if not same and not case.kind.endswith("signed"):
        return "wrong picture", "a changed graph was not noticed"
    same = same and decides(root, idc=idc) == decides_of(case.whole.engine)
    if same and not np.array_equal(images, expected):
        return "wrong picture", "the graphs are whole, and the result is another"
    return "loaded", ""


def work(seed: int, numbers: range, root: Path, backend: str, sender) -> None:
    """A child: sends its warm start, then an `Outcome` a case."""
    warnings.simplefilter("error")
    wholes = wholes_of()
    expected = []
    for whole in wholes:
        write(root, whole.files)
        expected.append(complete(root, backend).images)
    taken = Path("/proc/self/statm").read_text().split()[0]
    limit = int(taken) * os.sysconf("SC_PAGESIZE") + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = resident()
    sender.send(None)
    for number in numbers:
        case = make(seed, number, wholes)
        begin = time.perf_counter()
        word, says = judge(case, root, expected[wholes.index(case.whole)], backend)
        outcome = Outcome(case.kind, word, says, time.perf_counter() - begin, resident() - start)
        sender.send(outcome)


def resident() -> int:
    """Most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcomes(seed: int, first: int, cases: int, root: Path, backend: str):
    """Each case's number and `Outcome`; a child that dies or hangs is one, and the next goes on."""
    context = multiprocessing.get_context("fork")
    number, end = first, first + cases
    while number < end:
        numbers = range(number, min(number + CHILD_CASES, end))
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(seed, numbers, root, backend, sender))
        child.start()
        sender.close()
        warm = False
        while number < numbers.stop:
            try:
                heard = receiver.recv() if receiver.poll(SILENCE) else "hang"
            except EOFError:
                heard = "crash"
            if heard is None:
                warm = True
                continue
            if isinstance(heard, str):
                child.kill()
                child.join()
                if not warm:
                    raise RuntimeError("an engine that is whole does not run: nothing to compare")
                heard = Outcome("?", heard, f"exit code {child.exitcode}", 0.0, 0)
            yield number, heard
            number += 1
            if heard.kind == "?":
                break
        child.join()
        receiver.close()


def reason(text: str, root: Path) -> str:
    """What an error says, without what changes from case to case."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "_", text.replace(str(root), "ENGINE"))
    return re.sub(r"[-\d.]*\d[\d.]*(, |\b)", "#", text)[:90]


def run(seed: int, first: int, cases: int, backend: str = "onnxruntime") -> dict:
    """Runs cases first .. first + cases - 1; what was counted, and every finding."""
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    reasons: collections.Counter = collections.Counter()
    findings, slowest, most = [], (0.0, 0), 0
    tqdm.monitor_interval = 0  # no thread beside a fork
    with tempfile.TemporaryDirectory() as folder, tqdm(total=cases, mininterval=1) as bar:
        root = Path(folder) / "engine"
        for number, outcome in outcomes(seed, first, cases, root, backend):
            bar.update()
            word = outcome.word
            if word in ("refused", "loaded") and outcome.resident > MEMORY:
                word = "memory"
            kinds[outcome.kind][word] += 1
            if word == "refused":
                reasons[reason(outcome.says, root)] += 1
            elif word != "loaded":
                findings.append({"case": number, "finding": word, **outcome._asdict()})
            slowest = max(slowest, (round(outcome.seconds, 3), number))
            most = max(most, outcome.resident)
    count = sum(kinds.values(), collections.Counter())
    return {
        "seed": seed, "first": first, "cases": cases, "backend": backend, "count": dict(count),
        "kinds": {kind: dict(words) for kind, words in sorted(kinds.items())},
        "slowest": {"seconds": slowest[0], "case": slowest[1]},
        "most_memory_mib": most >> 20,
        "reasons": dict(reasons.most_common(60)),
        "findings": findings,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="another set of cases (default 0)")
    parser.add_argument("--backend", default="onnxruntime", help="(default onnxruntime)")
    options = parser.parse_args()
    found = run(options.seed, options.first, options.cases, options.backend)
    print(json.dumps(found, indent=1))
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
