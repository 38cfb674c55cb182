"""Where everything of a run lies on the GPU, worked out before anything is allocated.

A run's arrays stand in one stretch of memory: first what is copied there, then what stays, last
what is copied back, so that each way is one copy.

    [ image hole seeds packed originals | maps of the encoder, z, picture, scratch | mixture, out ]
      copied there                                                  copied back
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from picme_rt.tensors import Tables

ALIGNMENT = 256  # as TensorRT wants its tensors, and more than any kernel of ours needs
_ITEM = {name: np.dtype(name).itemsize for name in ("float32", "uint8", "int32", "uint64")}


class Sizes(NamedTuple):
    """What the buffers of a run depend on, besides the engine.

    Attributes:
        batch: B, pictures a run.
        k: Latents a picture.
        height: H of the pictures.
        width: W likewise.
        packed: Bytes that packed canvases may take.
        grid: g, side of a seam's grid.
    """

    batch: int
    k: int
    height: int
    width: int
    packed: int
    grid: int


class Buffer(NamedTuple):
    """One array.

    Attributes:
        offset: Where it begins, in bytes from the stretch's beginning.
        shape: All its axes.
        dtype: NumPy's name.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * _ITEM[self.dtype]


class Layout(NamedTuple):
    """Every buffer by name; all tensors of the two graphs are among them.

    Attributes:
        buffers: In the order of their offsets.
        there: The first so many bytes are copied to the GPU.
        back: From this byte on they are copied back.
        size: Bytes of all.
    """

    buffers: dict[str, Buffer]
    there: int
    back: int
    size: int


def layout(tables: Tables, sizes: Sizes) -> Layout:
    """The buffers of a run.

    Args:
        tables: Of the engine.
        sizes: Of the run.
    """
    batch, k = sizes.batch, sizes.k
    side = tables.encoder.inputs[0].shape[-1]
    grid, (latent,) = sizes.grid, tables.decoder.inputs[0].shape
    of_encoder = {t.name: ((batch, *t.shape), "float32") for t in tables.encoder.outputs}
    mixture = {name: of_encoder.pop(name) for name in ("log_alpha", "mu", "log_sigma")}
    there = {
        **{t.name: ((batch, *t.shape), "float32") for t in tables.encoder.inputs},
        "seeds": ((batch,), "uint64"),
        "packed": ((sizes.packed,), "uint8"),
        "originals": ((batch, sizes.height, sizes.width, 3), "uint8"),
    }
    stay = {
        **of_encoder,
        "z": ((batch, k, latent), "float32"),
        "picture": ((batch, k, 3, side, side), "float32"),
        "scratch": ((batch, k, 3, grid, grid + side), "float32"),
    }
    back = {
        **mixture,
        "primitive": ((batch, k), "int32"),
        "log_prob": ((batch, k), "float32"),
        "out": ((batch, k, sizes.height, sizes.width, 3), "uint8"),
    }
    buffers: dict[str, Buffer] = {}
    ends, end = [], 0
    for group in (there, stay, back):
        for name, (shape, dtype) in group.items():
            buffers[name] = Buffer(end, shape, dtype)
            end += -(-buffers[name].size // ALIGNMENT) * ALIGNMENT
        ends.append(end)
    return Layout(buffers, ends[0], ends[1], ends[2])


def bucket(n: int, most: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24 ... that holds n, and at most `most`.

    So few graphs serve every number, and at most a third of a run is thrown away.

    Args:
        n: 1 to `most`.
        most: What the plan was built for.
    """
    assert 1 <= n <= most
    step = 1
    while step < n:
        if step >= 2 and step + step // 2 >= n:
            return min(step + step // 2, most)
        step *= 2
    return min(step, most)


def shares(n: int, most: int) -> Iterator[int]:
    """N as few parts of at most `most`, the largest first: runs for more than a plan takes."""
    for begin in range(0, n, most):
        yield min(most, n - begin)


def padded(size: int) -> int:
    """Room for packed canvases: holes of other sizes may need other bytes, graphs stay."""
    return 1 << max(16, (size - 1).bit_length())
