"""The composite of the compiled module on a GPU: torch's arrays, streams, a graph, its time.

As in module.py, which builds it and calls what is here.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from gpu import composites, protocols, timing
from picme_rt.composite_cuda import composite_cuda
from picme_rt.packed_canvases import PackedCanvases, pack

Result = dict[str, Any]
SIZES = ((1, 6, 256, 256, 256), (64, 6, 256, 256, 256), (1, 6, 256, 2000, 3000))
"""B, k, S, H, W: a request without resizing, a full GPU, a photograph."""


class Loan(NamedTuple):
    """The arrays of a call, on the device."""

    pictures: torch.Tensor
    originals: torch.Tensor | None
    canvases: PackedCanvases
    packed: torch.Tensor
    scratch: torch.Tensor
    out: torch.Tensor

    def poison(self) -> None:
        """Fills what a call writes with what it does not."""
        self.scratch.fill_(float("nan"))
        self.out.fill_(composites.UNTOUCHED)


def borrowed(case: composites.Case, device: torch.device) -> Loan:
    """A case's arrays on the device, and poisoned room for what is written."""
    pictures = torch.from_numpy(np.ascontiguousarray(case.pictures))
    if case.pictures.dtype == np.uint16:
        pictures = pictures.view(torch.bfloat16)
    canvases = pack(case.canvases)
    loan = Loan(
        pictures.to(device),
        None if case.originals is None else torch.from_numpy(case.originals).to(device),
        canvases,
        torch.from_numpy(canvases.data).to(device),
        torch.empty(canvases.scratch_shape(case.pictures.shape[1]), device=device),
        torch.from_numpy(case.out()).to(device),
    )
    loan.poison()
    return loan


def paste(loan: Loan, *, through: protocols.Way = protocols.as_it_is) -> None:
    """One call on torch's current stream; `through` dresses the tensors up."""
    composite_cuda(
        through(loan.pictures),
        None if loan.originals is None else through(loan.originals),
        loan.canvases,
        through(loan.packed),
        out=through(loan.out),
        scratch=through(loan.scratch),
        stream=torch.cuda.current_stream().cuda_stream,
    )


def compared(name: str, case: composites.Case, loan: Loan) -> Result:
    """One check of what a call left, against the reference."""
    return composites.judged(case._replace(name=name), loan.out.cpu().numpy())


def by_protocol(device: torch.device) -> Iterator[Result]:
    """The golden case and every odd one by `__cuda_array_interface__` and by DLPack."""
    golden, hashes = composites.golden()
    for way, through in protocols.ways().items():
        for case in (golden, *composites.cases()):
            if way == "CuPy" and case.pictures.dtype == np.uint16:
                continue  # CuPy has no bfloat16
            loan = borrowed(case, device)
            paste(loan, through=through)
            checked = compared(f"the composite by {way}: {case.name}", case, loan)
            if case is golden:
                checked["pass"] &= composites.hashes_of(loan.out.cpu().numpy()) == hashes
            yield checked


def on_streams(device: torch.device) -> Iterator[Result]:
    """A stream of torch's, whose work before and after the call must stay in order."""
    case = composites.scene("a stream", (300, 400), 256, k=6)
    loan = borrowed(case, device)
    pictures = loan.pictures.clone()
    loan.pictures.zero_()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]  # torch's own
        loan.pictures.copy_(pictures)
        paste(loan)
        written = loan.out.clone()
    torch.cuda.synchronize()
    checked = compared("the composite on a stream of torch's", case, loan)
    yield {**checked, "pass": checked["pass"] and torch.equal(written, loan.out)}


def in_a_graph(device: torch.device) -> Iterator[Result]:
    """A captured call, replayed over poison for other pictures, originals and holes."""
    cases = [
        composites.scene(f"replay {i}", (150, 331), 64, k=3, seed=i, hole=_hole(i))
        for i in range(3)
    ]
    largest = max(cases, key=lambda case: pack(case.canvases).data.size)
    loan = borrowed(largest, device)
    graph = captured(loan)
    for case in cases:
        loan.poison()
        new = borrowed(case, device)
        loan.packed[: new.packed.numel()].copy_(new.packed)
        loan.pictures.copy_(new.pictures)
        assert loan.originals is not None  # every scene has some
        assert new.originals is not None
        loan.originals.copy_(new.originals)
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        yield compared(f"the composite in a graph, {case.name}", case, loan)


def _hole(i: int) -> composites.Hole:
    hole = np.zeros((150, 331), bool)
    hole[20 + 9 * i : 140 - 20 * i, 30 + 50 * i : 180 + 40 * i] = True
    return hole


CHECKS: tuple[Callable[[torch.device], Iterator[Result]], ...] = (
    by_protocol,
    on_streams,
    in_a_graph,
)


def captured(loan: Loan) -> torch.cuda.CUDAGraph:
    """One call as a CUDA graph, warmed up before."""
    paste(loan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paste(loan)
    return graph


def rows(device: torch.device, tiny: bool) -> Iterator[Result]:
    """Time of a call and of its replay, against a copy that moves as many bytes."""
    effort = timing.TINY if tiny else timing.FULL
    for size in SIZES[:1] if tiny else SIZES:
        for hole in ("quarter", "whole"):
            for dtype in ("float32", "float16"):
                row = {"size": list(size), "hole": hole, "type": dtype}
                yield {**row, **timed(size, hole, dtype, device, effort)}


def timed(
    size: tuple[int, ...], kind: str, dtype: str, device: torch.device, effort: timing.Effort
) -> Result:
    """One row of `rows`: the hole is the middle quarter of the picture, or all but its border.

    What must move: the known pixels and the pictures under the hole in, the results out.
    """
    batch, k, side, height, width = size
    hole = np.zeros((height, width), bool)
    top, left = (height // 4, width // 4) if kind == "quarter" else (height // 64, width // 64)
    hole[top : height - top, left : width - left] = True
    one = composites.scene("timed", (height, width), side, k=k, hole=hole)
    assert one.originals is not None  # every scene has some
    case = one._replace(
        pictures=one.pictures.astype(dtype).repeat(batch, 0),
        originals=one.originals.repeat(batch, 0),
        canvases=one.canvases * batch,
    )
    loan = borrowed(case, device)
    under = float((~one.canvases[0].known).mean()) * loan.pictures.nbytes
    moved = int(under) + loan.out.nbytes + batch * 3 * int((~hole).sum())
    source = torch.randint(256, (moved // 2,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    graph = captured(loan)
    ways: dict[str, Callable[[], object]] = {
        "launch": lambda: paste(loan),
        "graph": graph.replay,
        "copy": lambda: target.copy_(source),
    }
    taken = {way: timing.measure(call, device, effort) for way, call in ways.items()}
    return {
        "bytes": moved,
        **{way: found._asdict() for way, found in taken.items()},
        "of_copy": taken["copy"].median_ms / taken["graph"].median_ms,
    }


def table(found: list[Result]) -> str:
    """One row a size and type."""
    drawn = [
        (
            ", ".join(map(str, row["size"])),
            row["hole"],
            row["type"],
            f"{row['bytes'] / 1e6:.3g}",
            *(str(timing.Timing(**row[way])) for way in ("launch", "graph", "copy")),
            f"{row['of_copy']:.0%}",
        )
        for row in found
    ]
    head = (
        "B, k, S, H, W",
        "hole",
        "pictures",
        "MB read + written",
        "ms by Python",
        "ms in a graph",
    )
    return timing.markdown((*head, "ms to copy as much", "copy / graph"), drawn)
