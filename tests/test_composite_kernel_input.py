"""What the composite refuses, and how it says so."""

import dataclasses
import sys

import numpy as np
import pytest

from picme_rt import composite, framing, kernels
from picme_rt.errors import InputError, UnavailableError


def scene(size=16, k=2):
    """Pictures (1, k, 3, S, S), an original (1, 40, 50, 3) and one canvas, all of noise."""
    rng = np.random.default_rng(0)
    img, hole = rng.integers(0, 256, (40, 50, 3), np.uint8), np.zeros((40, 50), bool)
    hole[10:21, 16:26] = True
    (region,) = framing.regions(hole, size, "aligned")
    canvas = composite.canvas(composite.fit(img, hole, region, size), hole, region)
    pictures = rng.uniform(-1, 1, (1, k, 3, size, size)).astype(np.float32)
    return pictures, img[None], [canvas]


def test_native_that_is_not_built_is_said_and_auto_takes_the_reference(monkeypatch):
    arrays = scene()
    want = kernels.composite(*arrays, impl="native")
    monkeypatch.setitem(sys.modules, "picme_rt._kernels", None)
    with pytest.raises(UnavailableError, match="impl='native' needs the compiled module"):
        kernels.composite(*arrays, impl="native")
    assert (kernels.composite(*arrays) == want).all()


PICTURES, ORIGINALS, CANVASES = scene()
OUT = np.zeros((1, 2, 40, 50, 3), np.uint8)
OTHER = scene(32)[2]
FAR, ABOVE, EMPTY, SMALL = (
    [dataclasses.replace(CANVASES[0], box=framing.Box(*box))]
    for box in ((30, 40, 41, 50), (-1, 16, 10, 26), (10, 16, 10, 26), (10, 16, 20, 26))
)
THIN = [dataclasses.replace(CANVASES[0], columns=CANVASES[0].columns.part(0, 9))]
CUT = [dataclasses.replace(CANVASES[0], inside=CANVASES[0].inside[:, 1:])]


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": PICTURES.tolist()}, "pictures must be a NumPy array, got list"),
        ({"pictures": PICTURES.astype(np.float64)}, "pictures must be float32.*got float64"),
        ({"pictures": PICTURES.astype(">f4")}, "pictures must be float32.*got >f4"),
        ({"pictures": PICTURES[0]}, r"pictures must be \(B, k, 3, S, S\), got shape \(2, 3, 16"),
        ({"pictures": PICTURES[..., :15]}, r"pictures must be \(B, k, 3, S, S\)"),
        ({"pictures": PICTURES[..., :0, :0]}, r"pictures must be \(B, k, 3, S, S\)"),
        ({"originals": ORIGINALS.astype(np.int16)}, "originals must be uint8, got int16"),
        ({"originals": ORIGINALS[0]}, r"originals must be \(B, H, W, 3\), got shape"),
        ({"originals": ORIGINALS[..., :2]}, r"originals must be \(B, H, W, 3\), got shape"),
        ({"originals": ORIGINALS[:, :0]}, r"originals must be \(B, H, W, 3\), got shape"),
        ({"originals": np.repeat(ORIGINALS, 2, 0)}, "originals must be 1 as pictures, got 2"),
        ({"originals": None}, "originals must be .* where no out is given, got None"),
        ({"canvases": []}, "canvases must be 1 as pictures, got 0"),
        ({"canvases": [None]}, "canvases must be of type Canvas, got NoneType"),
        ({"canvases": OTHER}, "pictures must be 32 x 32 as their canvas, got 16 x 16"),
        ({"canvases": FAR}, "canvases must have their boxes inside 40 x 50"),
        ({"canvases": ABOVE}, "canvases must have their boxes inside 40 x 50"),
        ({"canvases": EMPTY}, "canvases must have their boxes inside 40 x 50"),
        ({"canvases": SMALL}, r"inside and taps of .* 10 x 10, got \(11, 10\) and \(11, 10\)"),
        ({"canvases": THIN}, r"inside and taps of .* 11 x 10, got \(11, 10\) and \(11, 9\)"),
        ({"canvases": CUT}, r"inside and taps of .* 11 x 10, got \(11, 9\) and \(11, 10\)"),
        ({"out": OUT[:, :1]}, r"out must be \(1, 2, 40, 50, 3\) .*, got \(1, 1, 40, 50, 3\)"),
        ({"out": OUT.astype(np.float32)}, "out must be uint8, got float32"),
        (
            {"out": OUT.swapaxes(0, 1).repeat(2, 1)[:, :1].swapaxes(0, 1)},
            "out must be C-contiguous",
        ),
        ({"out": np.broadcast_to(OUT[:, :1], OUT.shape)}, "out must be C-contiguous and writeable"),
        ({"threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
        ({"threads": 1.5}, "threads must be an integer from 1 to 1024, got 1.5"),
        ({"impl": "cuda"}, "impl must be one of auto, ref, native, got 'cuda'"),
    ],
)
def test_a_wrong_argument_is_refused_with_one_clear_error(change, message, impl):
    arguments = {"pictures": PICTURES, "originals": ORIGINALS, "canvases": CANVASES, "impl": impl}
    with pytest.raises(InputError, match=message):
        kernels.composite(**arguments | change)


def test_out_must_not_overlap_with_what_is_read():
    pictures, _, canvases = scene(k=1)
    out = np.zeros((1, 1, 40, 50, 3), np.uint8)
    with pytest.raises(InputError, match="out must not overlap with originals"):
        kernels.composite(pictures, out[0], canvases, out=out)
    memory = np.zeros(12000, np.uint8)
    inside = memory[: 4 * pictures.size].view(np.float32).reshape(pictures.shape)
    out = memory[3000:9000].reshape(out.shape)
    with pytest.raises(InputError, match="out must not overlap with pictures"):
        kernels.composite(inside, None, canvases, out=out)


def native(*arrays, threads=1, lanes=""):
    from picme_rt import _kernels

    _kernels.composite(*arrays, threads=threads, lanes=lanes)


def test_the_binding_itself_refuses_what_would_reach_outside_of_an_array():
    pictures, originals, (canvas,) = scene()
    out = np.empty((1, 2, 40, 50, 3), np.uint8)
    grow, box = canvas.grow, canvas.box
    wrong = [
        {"image": canvas.image.astype(np.float64)},
        {"image": canvas.image[:, :-1].copy()},
        {"image": canvas.image.swapaxes(1, 2)},
        {"known": canvas.known.astype(np.uint8)},
        {"pull": canvas.pull[:, :-1].copy()},
        {"pull": canvas.pull[:3, :3].copy()},
        {"inside": canvas.inside[1:].copy()},
        {"grow": grow._replace(first=grow.first + np.int32(1))},
        {"grow": grow._replace(first=grow.first - np.int32(1))},
        {"grow": grow._replace(first=grow.first[::-1].copy())},
        {"grow": grow._replace(weights=grow.weights[:, :-1].copy())},
        {"rows": canvas.rows.part(0, 3)},
        {"box": box._replace(top=-1)},
        {"box": box._replace(left=50)},
    ]
    for change in wrong:
        with pytest.raises(ValueError, match=r"composite: |has another|is not aligned"):
            native(pictures, originals, [dataclasses.replace(canvas, **change)], out)
    for bad in ({"threads": -1}, {"lanes": "sse9"}):
        with pytest.raises(ValueError, match=r"threads must be|no lanes"):
            native(pictures, originals, [canvas], out, **bad)
    other = np.zeros(pictures.shape, "V0"), pictures.astype(">f2")
    for array in (pictures.astype(np.float64), pictures.swapaxes(3, 4), pictures[0], *other):
        with pytest.raises(ValueError, match="pictures must be"):
            native(array, originals, [canvas], out)
    for array in (originals.astype(np.int32), originals[:, ::2], originals.tolist()):
        with pytest.raises((TypeError, ValueError)):
            native(pictures, array, [canvas], out)
