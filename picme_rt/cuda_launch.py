"""The way to the compiled CUDA kernels, and what it says when there is none."""

from collections.abc import Callable

from picme_rt.errors import InputError, UnavailableError


def launch(kernel: str, **arguments: object) -> None:
    """Calls `picme_rt._kernels.KERNEL`, which queues its work on a stream.

    Raises:
        InputError: It refuses an argument, such as an address on no GPU.
        UnavailableError: It is not built, or there is no GPU to run it.
    """
    call = find(kernel)
    try:
        call(**arguments)
    except ValueError as exc:
        raise InputError(f"{kernel}: {exc}") from exc
    except RuntimeError as exc:
        raise UnavailableError(f"{kernel} needs a GPU that works, CUDA says: {exc}") from exc


def find(kernel: str) -> Callable[..., None]:
    """`picme_rt._kernels.KERNEL`.

    Raises:
        UnavailableError: It is not built.
    """
    try:
        import picme_rt._kernels as native
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"{kernel} needs the compiled module picme_rt._kernels, which is not built: "
            "run `PICME_CUDA=ON pip install .`"
        ) from exc
    if not hasattr(native, kernel):
        raise UnavailableError(
            f"{kernel} needs kernels built with nvcc, these are for {native.built_for}: "
            "run `PICME_CUDA=ON pip install .` where nvcc is"
        )
    found: Callable[..., None] = getattr(native, kernel)
    return found
