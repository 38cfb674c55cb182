"""The Python face of `composite`: from the decoder's pictures to the bytes of the results.

Import it as `picme_rt.kernels.composite`. docs/compositing.md is the specification.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picme_rt import compiled
from picme_rt.compiled import Impl
from picme_rt.composite import Canvas
from picme_rt.composite_ref import composite_ref
from picme_rt.errors import InputError

_TYPES = (np.float32, np.float16, np.uint16)


def composite(
    pictures: NDArray[Any],
    originals: NDArray[np.uint8] | None,
    canvases: Sequence[Canvas],
    *,
    out: NDArray[np.uint8] | None = None,
    threads: int | None = None,
    impl: Impl = "auto",
) -> NDArray[np.uint8]:
    """Pastes k pictures of each of B regions into copies of the originals.

    Known pixels are copied to the bit; bytes of `originals` under the hole change nothing.

    Args:
        pictures: (B, k, 3, S, S) in [-1, 1], float32, float16 or the bits of bfloat16 as uint16. B
            and k may be 0. NaN gives 0 in the hole, a value outside of [-1, 1] the nearer end.
        originals: (B, H, W, 3) uint8; None if `out` holds the known pixels already, as for the
            second region of a picture: then only pixels of the hole are written.
        canvases: B, as `picme_rt.composite.canvas` makes them; each box inside H x W.
        out: (B, k, H, W, 3) uint8, C-contiguous, to write into; it must not overlap with
            `pictures` or `originals`.
        threads: At most so many; None takes as many as the work is worth. No bit depends on it.
        impl: `native` is the compiled kernel, `ref` the NumPy reference, `auto` the compiled kernel
            where it is built, else the reference: the same bits.

    Returns:
        `out`, or a new array of that shape.

    Raises:
        InputError: An argument is not as above.
        UnavailableError: impl="native" and the compiled module is not built.
    """
    module, count = compiled.find(impl), compiled.thread_count(threads)
    shape = _check_arrays(pictures, originals, out)
    _check_canvases(canvases, pictures.shape, shape)
    result = np.empty(shape, np.uint8) if out is None else out
    if module is None:
        composite_ref(pictures, originals, canvases, result)
    else:
        module.composite(
            np.require(pictures, requirements=("C", "A")),
            None if originals is None else np.ascontiguousarray(originals),
            list(canvases),
            result,
            threads=count,
        )
    return result


def _check_arrays(pictures: object, originals: object, out: object) -> tuple[int, ...]:
    """Refuses what is no array as `composite` says; gives the shape of its result."""
    named = {"pictures": pictures, "originals": originals, "out": out}
    for name, value in named.items():
        if not isinstance(value, np.ndarray) and (name == "pictures" or value is not None):
            raise InputError(
                f"{name} must be a NumPy array, got {type(value).__name__}: use np.asarray"
            )
    assert isinstance(pictures, np.ndarray)
    if pictures.dtype not in _TYPES or not pictures.dtype.isnative:
        raise InputError(
            "pictures must be float32, float16 or uint16 (the bits of bfloat16), "
            f"got {pictures.dtype}: convert it yourself with .astype(np.float32)"
        )
    side = pictures.shape[-1] if pictures.ndim == 5 else 0
    if side < 1 or pictures.shape[2:] != (3, side, side):
        raise InputError(f"pictures must be (B, k, 3, S, S), got shape {pictures.shape}")
    if originals is None and out is None:
        raise InputError("originals must be (B, H, W, 3) where no out is given, got None")
    for name, axes in (("originals", "B, H, W, 3"), ("out", "B, k, H, W, 3")):
        value = named[name]
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype != np.uint8:
            raise InputError(f"{name} must be uint8, got {value.dtype}")
        if value.ndim != axes.count(",") + 1 or value.shape[-1] != 3 or 0 in value.shape[-3:-1]:
            raise InputError(f"{name} must be ({axes}), got shape {value.shape}")
    if isinstance(originals, np.ndarray):
        size = originals.shape[1:]
    else:
        assert isinstance(out, np.ndarray)
        size = out.shape[2:]
    return _check_out(pictures, originals, out, (*pictures.shape[:2], *size))


def _check_out(
    pictures: NDArray[Any], originals: object, out: object, shape: tuple[int, ...]
) -> tuple[int, ...]:
    if isinstance(originals, np.ndarray) and originals.shape[0] != shape[0]:
        raise InputError(f"originals must be {shape[0]} as pictures, got {originals.shape[0]}")
    if not isinstance(out, np.ndarray):
        return shape
    if out.shape != shape:
        raise InputError(f"out must be {shape} as pictures and originals say, got {out.shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError("out must be C-contiguous and writeable: write into a copy of it")
    for name, value in (("pictures", pictures), ("originals", originals)):
        if isinstance(value, np.ndarray) and np.may_share_memory(out, value):
            raise InputError(f"out must not overlap with {name}: give it memory of its own")
    return shape


def _check_canvases(
    canvases: Sequence[Canvas], pictures: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    if len(canvases) != pictures[0]:
        raise InputError(f"canvases must be {pictures[0]} as pictures, got {len(canvases)}")
    for canvas in canvases:
        if not isinstance(canvas, Canvas):
            raise InputError(
                f"canvases must be of type Canvas, got {type(canvas).__name__}: "
                "picme_rt.composite.canvas makes them"
            )
        if canvas.size != pictures[3]:
            raise InputError(
                f"pictures must be {canvas.size} x {canvas.size} as their canvas, "
                f"got {pictures[3]} x {pictures[4]}"
            )
        box = canvas.box
        rows, columns = 0 <= box.top < box.bottom, 0 <= box.left < box.right
        if not (rows and columns and box.bottom <= shape[2] and box.right <= shape[3]):
            raise InputError(
                f"canvases must have their boxes inside {shape[2]} x {shape[3]}, got {box}"
            )
        size = box.bottom - box.top, box.right - box.left
        taps = len(canvas.rows.first), len(canvas.columns.first)
        if not size == canvas.inside.shape == taps:
            raise InputError(
                f"canvases must have inside and taps of their box's {size[0]} x {size[1]}, "
                f"got {canvas.inside.shape} and {taps}"
            )
