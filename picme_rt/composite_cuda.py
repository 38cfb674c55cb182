"""`composite` on a GPU: arrays of any library in, an array of the caller's filled, on a stream."""

from picme_rt.cuda_arrays import CudaArray, Placed, Stream, check_shape, place, stream_of
from picme_rt.cuda_launch import launch
from picme_rt.errors import InputError
from picme_rt.packed_canvases import PackedCanvases

_TYPES = "float32 float16 bfloat16"


def composite_cuda(
    pictures: CudaArray,
    originals: CudaArray | None,
    canvases: PackedCanvases,
    packed: CudaArray,
    *,
    out: CudaArray,
    scratch: CudaArray,
    stream: Stream | None = None,
) -> None:
    """`picme_rt.kernels.composite` on a GPU; the bytes are the same.

    Four kernels are queued and the call returns: keep the arrays until the stream has run them.
    Nothing is allocated, copied or waited for, so a CUDA graph may capture the call. A replay reads
    anew what the arrays hold, `packed` too: it works for other canvases of these sizes, whose bytes
    were copied there. Call it once before capturing: the first call loads the kernels.

    Args:
        pictures: (B, k, 3, S, S) in [-1, 1], float32, float16 or bfloat16 (or uint16, its bits),
            C-contiguous on a GPU, as all arrays. B and k may be 0.
        originals: (B, H, W, 3) uint8 on the same GPU; None if `out` holds the known pixels already:
            then only pixels of the hole change.
        canvases: B, as `picme_rt.packed_canvases.pack` packs them.
        packed: (N,) uint8 that begins with a copy of `canvases.data`.
        out: (B, k, H, W, 3) uint8, written; it overlaps no other array.
        scratch: float32 of `canvases.scratch_shape(k)`, written; it overlaps no other array. Its g
            may be larger, for canvases to come.
        stream: the CUDA stream: its address, or a stream of torch, CuPy, pycuda or cuda.core. None
            takes the stream that the arrays name, else CUDA's default stream: torch names none, so
            pass it unless torch works on its default stream too.

    Raises:
        InputError: an argument is not as above; dtypes and layouts are never converted.
        UnavailableError: the kernels are built without CUDA, or there is no GPU to run them.
    """
    arrays = (pictures, originals, packed, out, scratch)
    queue = stream_of((array for array in arrays if array is not None), stream)
    found = {
        "pictures": place("pictures", pictures, _TYPES, "Bk3SS", stream=queue),
        "packed": place("packed", packed, "uint8", "N", stream=queue),
        "out": place("out", out, "uint8", "BkHW3", stream=queue, written=True),
        "scratch": place("scratch", scratch, "float32", "Bk3gs", stream=queue, written=True),
    }
    if originals is not None:
        found["originals"] = place("originals", originals, "uint8", "BHW3", stream=queue)
    _check_shapes(found, canvases)
    for name in ("out", "scratch"):
        _check_alone(name, found)
    launch(
        "composite_cuda",
        pictures=found["pictures"].pointer,
        dtype=found["pictures"].dtype,
        originals=found["originals"].pointer if originals is not None else 0,
        packed=found["packed"].pointer,
        out=found["out"].pointer,
        scratch=found["scratch"].pointer,
        batch=canvases.batch,
        k=found["pictures"].shape[1],
        size=canvases.size,
        grid=found["scratch"].shape[3],
        height=found["out"].shape[2],
        width=found["out"].shape[3],
        stream=queue,
    )


def _check_shapes(found: dict[str, Placed], canvases: PackedCanvases) -> None:
    side, k = canvases.size, found["pictures"].shape[1]
    check_shape("pictures", found["pictures"], (canvases.batch, k, 3, side, side))
    height, width = found["out"].shape[2:4]
    check_shape("out", found["out"], (canvases.batch, k, height, width, 3))
    if canvases.height > height or canvases.width > width:
        raise InputError(
            f"out must be at least {canvases.height} x {canvases.width} for the boxes of its "
            f"canvases, got {height} x {width}"
        )
    if "originals" in found:
        check_shape("originals", found["originals"], (canvases.batch, height, width, 3))
    grid = max(found["scratch"].shape[3], canvases.grid)
    if grid > side:
        raise InputError(f"scratch must have a g of at most {side}, got {grid}")
    check_shape("scratch", found["scratch"], (canvases.batch, k, 3, grid, grid + side))
    packed = found["packed"]
    if packed.size < canvases.data.size or packed.pointer % 16:
        raise InputError(
            f"packed must hold the {canvases.data.size} bytes of its canvases from a multiple of "
            f"16 on, got {packed.size} at address {packed.pointer:#x}"
        )


def _check_alone(name: str, found: dict[str, Placed]) -> None:
    """Refuses an array that overlaps with another one."""
    begin, end = found[name].pointer, found[name].pointer + found[name].size
    for other, array in found.items():
        if other != name and array.pointer < end and begin < array.pointer + array.size:
            raise InputError(f"{name} must not overlap with {other}: give it memory of its own")
