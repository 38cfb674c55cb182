"""`sample_gmm` on a GPU: arrays of any library in, arrays of the caller's filled, on a stream."""

from picme_rt.cuda_arrays import CudaArray, Placed, Stream, check_shape, place, stream_of
from picme_rt.cuda_launch import launch
from picme_rt.errors import InputError
from picme_rt.kernels import Mode, check_options

LATENT_TYPES = "float32 float16 bfloat16"


def sample_gmm_cuda(
    log_alpha: CudaArray,
    mu: CudaArray,
    log_sigma: CudaArray,
    seeds: CudaArray,
    *,
    k: int,
    first: int = 0,
    mode: Mode = "categorical",
    primitive: int | None = None,
    temperature: float = 1.0,
    out_z: CudaArray,
    out_primitive: CudaArray,
    out_log_prob: CudaArray | None = None,
    stream: Stream | None = None,
) -> None:
    """`picme_rt.kernels.sample_gmm` on a GPU; z and primitive have the same bits.

    One kernel is queued and the call returns: keep the arrays until the stream has run it. Nothing
    is allocated, copied or waited for, so a CUDA graph may capture the call. A replay reads anew
    what the arrays hold; k, first, mode, primitive and temperature are as they were captured. Call
    it once before capturing: the first call loads the kernel.

    The values in the arrays are not looked at, for that would mean to wait: NaN gives NaN.

    Args:
        log_alpha: (B, P) float32, C-contiguous on a GPU, as all arrays; the values as in
            `sample_gmm`.
        mu: (B, P, D) float32.
        log_sigma: (B, P, D) float32.
        seeds: (B,) uint64, on the same GPU.
        k: as in `sample_gmm`, and so are first, mode, primitive and temperature.
        first: index of the first sample.
        mode: how the primitive is chosen.
        primitive: a fixed primitive.
        temperature: factor on sigma.
        out_z: (B, k, D), written: float32, or rounded to nearest even to the array's own float16 or
            bfloat16 (or uint16, its bits). No output may overlap another array.
        out_primitive: (B, k) int32, written.
        out_log_prob: (B, k) float32, of z before it is rounded, written to a relative 1e-5; None
            computes none, which is faster.
        stream: the CUDA stream: its address, or a stream of torch, CuPy, pycuda or cuda.core. None
            takes the stream that the arrays name, else CUDA's default stream: torch names none, so
            pass it unless torch works on its default stream too.

    Raises:
        InputError: an argument is not as above; dtypes and layouts are never converted.
        UnavailableError: the kernels are built without CUDA, or there is no GPU to run them.
    """
    arrays = (log_alpha, mu, log_sigma, seeds, out_z, out_primitive, out_log_prob)
    queue = stream_of((array for array in arrays if array is not None), stream)
    inputs = (
        place("log_alpha", log_alpha, "float32", "BP", stream=queue),
        place("mu", mu, "float32", "BPD", stream=queue),
        place("log_sigma", log_sigma, "float32", "BPD", stream=queue),
        place("seeds", seeds, "uint64", "B", stream=queue),
    )
    batch, primitives, dim = _sizes(*inputs)
    k, first, primitive = check_options(
        primitives, k=k, first=first, mode=mode, primitive=primitive, temperature=temperature
    )
    density = None
    if out_log_prob is not None:
        density = place("out_log_prob", out_log_prob, "float32", "Bk", stream=queue, written=True)
        check_shape("out_log_prob", density, (batch, k))
    z = place("out_z", out_z, LATENT_TYPES, "BkD", stream=queue, written=True)
    chosen = place("out_primitive", out_primitive, "int32", "Bk", stream=queue, written=True)
    check_shape("out_z", z, (batch, k, dim))
    check_shape("out_primitive", chosen, (batch, k))
    launch(
        "sample_gmm_cuda",
        log_alpha=inputs[0].pointer,
        mu=inputs[1].pointer,
        log_sigma=inputs[2].pointer,
        seeds=inputs[3].pointer,
        out_z=z.pointer,
        out_primitive=chosen.pointer,
        out_log_prob=density.pointer if density else 0,
        batch=batch,
        primitives=primitives,
        dim=dim,
        k=k,
        first=first,
        mode=mode,
        primitive=primitive,
        temperature=temperature,
        dtype=z.dtype,
        stream=queue,
    )


def _sizes(weights: Placed, means: Placed, deviations: Placed, seeds: Placed) -> tuple[int, ...]:
    """B, P and D, if the mixture's arrays agree."""
    batch, primitives = weights.shape
    if primitives < 1:
        raise InputError(f"log_alpha must be (B, P) with P at least 1, got {weights.shape}")
    if means.shape[:2] != weights.shape or means.shape[2] < 1:
        raise InputError(
            f"mu must be (B, P, D) with D at least 1 and (B, P) = {weights.shape} "
            f"as log_alpha, got {means.shape}"
        )
    check_shape("log_sigma", deviations, means.shape)
    check_shape("seeds", seeds, (batch,))
    return batch, primitives, means.shape[2]
