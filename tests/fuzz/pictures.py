"""Random pictures, masks and options: a result whose known pixels are exact, or one clear error.

    python tests/fuzz/pictures.py engines/cats128 --cases 10000

Case i is a function of (seed, i) alone. The generator knows which cases are wrong, so that a wrong
one that passes and a right one that is refused are findings too. Cases run in a child process: one
that dies is a crash, one that says nothing for long is a hang.
"""

import argparse
import copy
import json
import multiprocessing
import sys
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow
from tqdm import tqdm

import picme_rt

WRONG = 0.08  # share of the cases in which each of picture, mask and options is wrong
SILENCE = 60  # seconds without a word: a hang


class Case(NamedTuple):
    img: Any
    mask: Any
    options: dict[str, Any]
    pixels: Any  # (H, W, 3) uint8 and (H, W) bool that a session must see; None in a wrong case
    hole: Any
    wrong: list[str]


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    kind = rng.integers(20)
    if kind < 4:
        low, high = 1, 5
    elif kind < 12:
        low, high = 5, 80
    elif kind < 18:
        low, high = 60, 200
    elif kind == 18:  # a ribbon
        return tuple(rng.permutation([rng.integers(1, 4), rng.integers(500, 4000)]).tolist())
    else:
        low, high = 300, 900
    return tuple(rng.integers(low, high, 2).tolist())


def _picture(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    if rng.random() < 0.3:
        return np.full((*shape, 3), rng.integers(0, 256, 3), np.uint8)
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def _given(rng: np.random.Generator, pixels: np.ndarray) -> tuple[Any, np.ndarray]:
    """A picture as somebody has it, and what a session must see."""
    kind = rng.integers(8)
    if kind == 0:
        return pixels[::-1, ::-1], np.ascontiguousarray(pixels[::-1, ::-1])
    if kind == 1:
        return np.asfortranarray(pixels), pixels
    if kind == 2:
        frozen = pixels.copy()
        frozen.setflags(write=False)
        return frozen, pixels
    if kind == 3:
        mode = str(rng.choice(["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV"]))
        pil = Pillow.fromarray(pixels).convert(mode)
        return pil, np.asarray(pil.convert("RGB"))
    return pixels, pixels


def _wrong_picture(rng: np.random.Generator, pixels: np.ndarray) -> Any:
    deep = pixels.astype(np.uint16) * 257
    with_nan = pixels.astype(np.float32)
    with_nan[0, 0, 0] = np.nan
    choices = [
        deep, with_nan, pixels / 255, pixels[..., 0], np.dstack([pixels, pixels[..., :1]]),
        pixels[None], pixels.astype(bool), pixels.astype(np.int64), pixels[:0], None, "cat.png",
        pixels.tolist(), object(), b"", pixels.transpose(2, 0, 1)[..., None], [pixels, None],
        Pillow.new("I;16", pixels.shape[1::-1]), Pillow.new("F", pixels.shape[1::-1]),
        np.datetime64("2020"), float("nan"), {}, pixels.astype(complex),
    ]  # fmt: skip
    return choices[rng.integers(len(choices))]


def _hole(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    hole = np.zeros(shape, bool)
    kind = rng.integers(8)
    if kind == 0:
        return hole
    if kind == 1:
        return ~hole
    if kind == 2:
        hole[rng.integers(shape[0]), rng.integers(shape[1])] = True
        return hole
    if kind == 3:
        return rng.random(shape) < rng.random()
    for _ in range(rng.integers(1, 4)):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        height, width = rng.integers(1, shape[0] + 1), rng.integers(1, shape[1] + 1)
        hole[top : top + height, left : left + width] = True
    return hole


def _mask(rng: np.random.Generator, hole: np.ndarray) -> Any:
    """A hole as a mask of any kind whose nonzero places are the hole."""
    kind = rng.integers(7)
    if kind == 0:
        return hole
    if kind == 1:
        return hole.astype(np.uint8) * np.uint8(rng.integers(1, 256))
    if kind == 2:
        return np.where(hole, rng.normal(size=hole.shape) + 10, 0.0)[..., None]
    if kind == 3:
        return hole.astype(np.int64) * -7
    if kind == 4:
        return Pillow.fromarray(hole.astype(np.uint8) * 255)
    if kind == 5:
        return Pillow.fromarray(hole)
    return np.asfortranarray(hole.astype(np.float16))


def _wrong_mask(rng: np.random.Generator, hole: np.ndarray) -> Any:
    with_nan = hole.astype(float)
    with_nan[-1, -1] = rng.choice([np.nan, np.inf])
    height, width = hole.shape
    choices = [
        with_nan, np.zeros((height + 1, width)), np.zeros((height, width, 3), np.uint8), None,
        "mask.png", hole.astype(complex), hole.astype("U1"), Pillow.new("RGB", (width, height)),
        Pillow.new("L", (width + 1, height)), hole[None], object(), 0, [[1], [1, 2]],
    ]  # fmt: skip
    return choices[rng.integers(len(choices))]


def _options(rng: np.random.Generator) -> dict[str, Any]:
    found: dict[str, Any] = {"k": int(rng.integers(1, 4))}
    found["seed"] = int(rng.integers(0, 2**64, dtype=np.uint64))
    if rng.random() < 0.4:
        found["mode"] = str(rng.choice(["categorical", "per_primitive", "mean"]))
    elif rng.random() < 0.3:
        found["primitive"] = int(rng.integers(6))
    if rng.random() < 0.3:
        found["temperature"] = float(rng.choice([0.0, 0.3, 1.0, 2.0]))
    return found


def _wrong_option(rng: np.random.Generator) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [
        {"k": 0}, {"k": -1}, {"k": 10**12}, {"k": 1.5}, {"k": None}, {"k": "6"}, {"k": True},
        {"k": float("nan")}, {"k": 2**70}, {"seed": -1}, {"seed": 2**64}, {"seed": 0.5},
        {"seed": None}, {"mode": "best"}, {"mode": None}, {"mode": 3}, {"primitive": 6},
        {"primitive": -1}, {"primitive": "a"}, {"temperature": -1.0}, {"temperature": float("nan")},
        {"temperature": float("inf")}, {"temperature": "hot"}, {"temperature": None},
    ]  # fmt: skip
    return choices[rng.integers(len(choices))]


def make(seed: int, i: int) -> Case:
    """Case i of a seed."""
    rng = np.random.default_rng([seed, i])
    shape = _shape(rng)
    img, pixels = _given(rng, _picture(rng, shape))
    hole = _hole(rng, shape)
    mask, options, wrong = _mask(rng, hole), _options(rng), []
    if rng.random() < WRONG:
        img = _wrong_picture(rng, pixels)
        wrong.append("img")
    if rng.random() < WRONG:
        mask = _wrong_mask(rng, hole)
        wrong.append("mask")
    if rng.random() < WRONG:
        options |= _wrong_option(rng)
        wrong.append("options")
    return Case(img, mask, options, pixels, hole, wrong)


def check(session: picme_rt.Session, seed: int, i: int) -> str:
    """Runs one case: `completed`, or `refused` where that is right; anything else raises.

    Raises:
        AssertionError: A wrong result, or a case that should have been refused or completed.
    """
    case = make(seed, i)
    before = copy.deepcopy(case.img) if isinstance(case.img, np.ndarray) else None
    way = i % 4
    try:
        found = _run(session, case, way)
    except picme_rt.InputError as exc:
        if not case.wrong:
            raise AssertionError(f"refused without a reason: {exc}") from exc
        return "refused"
    assert not case.wrong, f"wrong {case.wrong} passed"
    k = case.options["k"]
    assert found.shape == (k, *case.pixels.shape), found.shape
    assert found.dtype == np.uint8
    known = ~case.hole
    assert (found[:, known] == case.pixels[known]).all(), "known pixels differ"
    if before is not None:
        assert (before == case.img).all(), "the input was changed"
    if i % 16 == 0:  # what lies under the hole cannot matter
        other = case.pixels.copy()
        other[case.hole] ^= 255
        again = session.complete(other, case.hole, **case.options).images
        assert (again == found).all(), "bytes under the hole were read"
    return "completed"


def _run(session: picme_rt.Session, case: Case, way: int) -> np.ndarray:
    if way == 0:
        return session.complete(case.img, case.mask, **case.options).images
    if way == 1:
        return np.stack([one.image for one in session.stream(case.img, case.mask, **case.options)])
    if way == 2:
        return session.encode(case.img, case.mask).complete(**case.options).images
    return session.complete_batch([case.img], [case.mask], **case.options)[0].images


def work(engine: Path, seed: int, numbers: range, sender: Connection) -> None:
    """A child: sends a word for each case."""
    warnings.simplefilter("error")
    with picme_rt.Session(engine) as session:
        for i in numbers:
            try:
                sender.send((check(session, seed, i), ""))
            except Exception as exc:  # whatever it is, it is what this looks for
                sender.send(("finding", f"{type(exc).__name__}: {exc}"))


def run(engine: Path, seed: int, cases: int) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Runs the cases; what was counted, and every finding."""
    counts: Counter[str] = Counter()
    findings = []
    context = multiprocessing.get_context("spawn")
    with tqdm(total=cases, mininterval=1) as bar:
        while bar.n < cases:
            receiver, sender = context.Pipe(duplex=False)
            numbers = range(bar.n, cases)
            child = context.Process(target=work, args=(engine, seed, numbers, sender))
            child.start()
            sender.close()
            for i in numbers:
                try:
                    word, says = receiver.recv() if receiver.poll(SILENCE) else ("hang", "")
                except EOFError:
                    word, says = "crash", ""
                counts[word] += 1
                bar.update()
                if word not in ("completed", "refused"):
                    findings.append({"case": i, "finding": word, "says": says})
                if word in ("hang", "crash"):
                    break
            child.kill()
            child.join()
            receiver.close()
    return counts, findings


def main() -> int:
    """Prints what was seen as JSON; 1 on any finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="another set of cases (default: 0)")
    options = parser.parse_args()
    counts, findings = run(options.engine, options.seed, options.cases)
    print(json.dumps({"seed": options.seed, "cases": counts, "findings": findings}, indent=1))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
