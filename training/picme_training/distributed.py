"""Several processes of one run, as torchrun starts them: joining, sharing a batch, ending together.

Each process computes its own rows of the joint batch. Without torchrun there is one process, to
which all rows belong, and nothing here does anything.
"""

import atexit
import contextlib
import datetime
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from picme_rt.errors import InputError, PicmeError, UnavailableError
from picme_training import checkpoint
from picme_training.device import named

TIMEOUT = datetime.timedelta(hours=1)
"""Of a wait for the others: the first process evaluates for minutes; a dead one is seen at once."""

_T = TypeVar("_T")


class EndedError(PicmeError, RuntimeError):
    """Another process of the run died or was stopped, so this one ends too."""


class _Stopped(Exception):  # noqa: N818  # no error: torchrun's request to end
    pass


def rank() -> int:
    """Which process this is, from 0; the first one alone writes and evaluates."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes compute this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


# Joining and ending


@contextlib.contextmanager
def joined(device: str, run: Path) -> Iterator[str]:
    """Joins the processes that torchrun started, and gives this one's device.

    When another process dies or torchrun is stopped, the block ends with one line within seconds:
    its connections close, and torchrun sends SIGTERM.

    Args:
        device: A torch device; of several processes `cpu`, or `cuda` for a GPU each.
        run: The run's folder, whose newest checkpoint the line names.

    Raises:
        InputError: `device` is none that is here, or not one that several processes can share.
        UnavailableError: There are fewer GPUs than processes.
        EndedError: Another process ended inside of the block.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        named(device)  # refused before anything is read
        yield device
        return
    place = _place(device, int(os.environ["LOCAL_RANK"]))
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        # gloo carries what the processes agree on, so that a wait for the first one costs no GPU
        dist.init_process_group("gloo" if place == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT)
        # at the very end: the connections close when this process's last line has been printed
        atexit.register(dist.destroy_process_group)
        yield place
    except BaseException as exc:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the line that says why is still to come
        if isinstance(exc, KeyboardInterrupt) and rank() > 0:
            raise SystemExit(130) from None  # one line is enough
        if isinstance(exc, _Stopped) or _lost(exc):
            raise EndedError(
                "this run has ended, because another process of it died or was stopped; "
                + _newest(run)
            ) from exc
        raise
    signal.signal(signal.SIGTERM, before)


def _place(device: str, local_rank: int) -> str:
    if device == "cpu":
        return device
    if device != "cuda":
        raise InputError(f"device must be cpu or cuda where torchrun starts several, got {device}")
    if local_rank >= (gpus := torch.cuda.device_count()):
        raise UnavailableError(
            f"process {local_rank} needs a GPU of its own, this machine has {gpus}; "
            f"pass --nproc-per-node {max(gpus, 1)} to torchrun, or --device cpu to picme"
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _lost(error: BaseException) -> bool:
    # gloo has no class of errors, but each names the file of gloo in which it arose
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and "gloo" in str(error)
    )


def _newest(run: Path) -> str:
    try:
        return f"its newest checkpoint is {checkpoint.find(run)}; go on with --resume"
    except InputError:
        return "it has no checkpoint yet"


# Agreeing


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A block that all processes leave together; where it fails on any, all end and one says why.

    Raises:
        PicmeError: Or OSError; what failed in this process, the first of those in which it did.
        SystemExit: It failed in another process, which says why.
    """
    error: PicmeError | OSError | None = None
    try:
        yield
    except (PicmeError, OSError) as exc:
        error = exc
    failed = torch.zeros(count())
    failed[rank()] = error is not None
    total(failed)
    if not failed.any():
        return
    if error is not None and rank() == int(failed.argmax()):
        raise error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from here on nothing is to be said
    with contextlib.suppress(RuntimeError):
        total(failed)  # waits until the line is printed, and the connection closes
    raise SystemExit(1)


def first(action: Callable[[], _T]) -> _T:
    """What `action` gives in the first process, which alone calls it, told to all.

    Raises:
        PicmeError: Or OSError; what `action` raises, in the first process; the others exit.
    """
    found: list[Any] = [None]
    with agreed():
        if rank() == 0:
            found[0] = action()
    if count() > 1:
        dist.broadcast_object_list(found, device=torch.device("cpu"))
    return found[0]


# Sharing


def check(batch: int) -> None:
    """Refuses a joint batch of which the processes cannot have equal shares.

    Raises:
        InputError: `batch` is not a multiple of the number of processes.
    """
    if batch % count():
        raise InputError(
            f"schedule.batch must be a multiple of the number of processes, got {batch} for "
            f"{count()}; set batch = {batch + -batch % count()}, or start another number of them"
        )


def own(rows: Tensor) -> Tensor:
    """This process's rows of the joint batch's."""
    size = len(rows) // count()
    return rows[rank() * size : (rank() + 1) * size]


def total(values: Tensor) -> Tensor:
    """The sum over the processes, in place; no gradient flows through it."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def mean(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars by name as the joint batch has them: the means over the processes."""
    joint = total(torch.stack(list(terms.values()))) / count()
    return dict(zip(terms, joint, strict=True))


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        joint = rows.new_zeros(count() * len(rows), *rows.shape[1:])
        own(joint).copy_(rows)
        return total(joint)  # each row is a number and zeros: exact in any order

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return own(total(gradient.clone()))


def gathered(rows: Tensor) -> Tensor:
    """The joint batch's rows from each process's own; gradients come back from all processes."""
    if count() == 1:
        return rows
    return _Gathered.apply(rows)  # type: ignore[no-untyped-call]  # torch's own


class _Pass(nn.Module):
    def __init__(self, network: nn.Module, forward: Callable[..., Any]):
        super().__init__()
        self.network, self.calculate = network, forward

    def forward(self, *arguments: Any) -> Any:
        return self.calculate(self.network, *arguments)


def shared(network: nn.Module, forward: Callable[..., _T]) -> Callable[..., _T]:
    """`forward(network, ...)` without its first argument; `backward` averages over the processes.

    A loss that is a mean over the joint batch has to be, in each process, the one whose mean over
    the processes is the joint loss: means over equal shares are, a quotient of sums is not
    (losses.known_reconstruction), and neither are statistics of the batch (networks.Whitening).
    """
    if count() == 1:
        return lambda *arguments: forward(network, *arguments)
    return DistributedDataParallel(_Pass(network, forward))
