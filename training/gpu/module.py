"""The compiled module on a GPU: built there by pip, called with torch's arrays, in a graph, timed.

A GPU's machine may have no network: pip takes scikit-build-core, pybind11 and CMake from the
python3 that runs this.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gpu import composite_module, launches, own_process, protocols, timing
from gpu.attempts import attempt, failed
from gpu.own_process import MOST_SECONDS, Found
from picme_rt.kernels import GmmSample
from picme_rt.sampling_cuda import sample_gmm_cuda

Result = dict[str, Any]
KINDS = ("rows", "composite_rows", "checks")
SIZES = ((1, 6, 256, 6), (1, 1, 8192, 6), (64, 6, 256, 50), (64, 1, 8192, 50))
"""B, P, D, k: PICME's latent and PIC's, as one request and as a full GPU."""


class Loan(NamedTuple):
    """The arrays of a launch, on the device."""

    inputs: tuple[torch.Tensor, ...]
    z: torch.Tensor
    primitive: torch.Tensor
    log_prob: torch.Tensor

    def poison(self) -> None:
        """Fills the outputs with what no launch writes."""
        self.z.fill_(float("nan"))
        self.primitive.fill_(-1)
        self.log_prob.fill_(float("nan"))


def measure(device: torch.device, compiler: str, tiny: bool) -> Result:
    """Builds the module with this nvcc, then checks and times it; a build that fails is told."""
    major, minor = torch.cuda.get_device_capability(device)
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder), compiler, f"{major}{minor}-real")
        if not built["pass"]:
            return {"rows": [], "composite_rows": [], "checks": [built]}
        ran, found = own_process.run("module", device, tiny, Path(folder), check="the module runs")
    used = own_process.sorted_out(found, KINDS)
    return {**used, "checks": [built, ran, *used["checks"]]}


def use(device: torch.device, tiny: bool) -> Iterator[Found]:
    """Checks and times the picme_rt that is imported."""
    for run in (*CHECKS, *composite_module.CHECKS):
        for check in attempted(run, device):
            yield "checks", check
    for kind, time_all in (("rows", rows), ("composite_rows", composite_module.rows)):
        broke: list[Result] = []
        with attempt(f"{kind} are timed", broke):
            for row in time_all(device, tiny):
                yield kind, row
        for check in broke:
            yield "checks", check


def attempted(
    run: Callable[[torch.device], Iterator[Result]], device: torch.device
) -> Iterator[Result]:
    """The checks of `run`; an exception is a failed one, for the others are still worth having."""
    try:
        yield from run(device)
    except Exception as exc:
        yield failed(run.__name__, exc)


def build(folder: Path, compiler: str, architectures: str) -> Result:
    """`pip install` of this repository into a folder, without network or other packages."""
    settings = {"PICME_CUDA": "ON", "PICME_CUDA_ARCHITECTURES": architectures}
    checked: Result = {"name": "pip builds the module with CUDA", "pass": False}
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-index", "--no-build-isolation", "--no-deps", "--target", str(folder)),
                *(f"--config-settings=cmake.define.{n}={value}" for n, value in settings.items()),
                str(launches.ROOT),
            ],
            env={**os.environ, "CUDACXX": compiler},
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {**checked, "said": f"it was ended after {MOST_SECONDS} s"}
    checked["pass"] = done.returncode == 0
    return checked if checked["pass"] else {**checked, "said": (done.stdout + done.stderr)[-1500:]}


def borrowed(case: launches.Case, device: torch.device) -> Loan:
    """A case's arrays on the device, and poisoned room for what is drawn."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in case.arrays)
    (batch, _, dim), k = inputs[1].shape, case.options["k"]
    dtype = getattr(torch, case.options.get("dtype", "float32"))
    loan = Loan(
        inputs,
        torch.empty(batch, k, dim, dtype=dtype, device=device),
        torch.empty(batch, k, dtype=torch.int32, device=device),
        torch.empty(batch, k, device=device),
    )
    loan.poison()
    return loan


def draw(
    case: launches.Case,
    loan: Loan,
    *,
    through: protocols.Way = protocols.as_it_is,
) -> None:
    """One launch on torch's current stream; `through` dresses the tensors up."""
    sample_gmm_cuda(
        *(through(array) for array in loan.inputs),
        out_z=through(loan.z),
        out_primitive=through(loan.primitive),
        out_log_prob=through(loan.log_prob) if case.density else None,
        stream=torch.cuda.current_stream().cuda_stream,
        **{name: value for name, value in case.options.items() if name != "dtype"},  # z has it
    )


def compared(name: str, case: launches.Case, loan: Loan) -> Result:
    """One check of what a launch left, against the reference on the arrays as they are now."""
    arrays = tuple(array.cpu().numpy() for array in loan.inputs)
    drawn = GmmSample(in_numpy(loan.z), loan.primitive.cpu().numpy(), loan.log_prob.cpu().numpy())
    return launches.judged(case._replace(name=name, arrays=arrays), drawn)


def in_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """On the host; bfloat16 as its bits."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    found: npt.NDArray[Any] = tensor.cpu().numpy()
    return found


def by_protocol(device: torch.device) -> Iterator[Result]:
    """The golden cases through each way that an array can come in."""
    for way, through in protocols.ways().items():
        for name, (case, golden) in launches.golden().items():
            if way == "CuPy" and "bfloat16" in name:
                continue  # which CuPy does not have
            loan = borrowed(case, device)
            draw(case, loan, through=through)
            checked = compared(f"golden hash, {name}, arrays by {way}", case, loan)
            same = launches.hash_of(in_numpy(loan.z)) == golden
            yield {**checked, "pass": checked["pass"] and same}


def on_streams(device: torch.device) -> Iterator[Result]:
    """A stream of torch's, whose work before and after the launch must stay in order."""
    case = launches.Case("a stream", launches.mixture(8, 6, 4096), {"k": 50})
    loan = borrowed(case, device)
    seeds = torch.from_numpy(case.arrays[3][::-1].copy()).to(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]  # torch's own
        loan.inputs[3].copy_(seeds)
        draw(case, loan)
        drawn = loan.z.clone()
    torch.cuda.synchronize()
    checked = compared("a stream of torch's", case, loan)
    yield {**checked, "pass": checked["pass"] and torch.equal(drawn, loan.z)}


def in_a_graph(device: torch.device) -> Iterator[Result]:
    """A captured launch, replayed over poison with other seeds and another mixture."""
    case = launches.Case("a graph", launches.mixture(2, 6, 257), {"k": 6, "first": 6})
    loan = borrowed(case, device)
    graph = captured(case, loan)
    for replay in range(3):
        loan.poison()
        loan.inputs[3].copy_(torch.from_numpy(np.array([replay, 2**64 - 1 - replay], np.uint64)))
        loan.inputs[1].mul_(0.5)
        graph.replay()
        torch.cuda.synchronize()
        yield compared(f"a graph, replay {replay}", case, loan)


def twice(device: torch.device) -> Iterator[Result]:
    """log_prob has the same bits in every run and for every batch."""
    case = launches.Case("twice", launches.mixture(5, 6, 8192), {"k": 6})
    loan = borrowed(case, device)
    draw(case, loan)
    first = loan.log_prob.clone()
    loan.poison()
    draw(case, loan)
    alone = case._replace(arrays=tuple(array[3:4] for array in case.arrays))
    lone = borrowed(alone, device)
    draw(alone, lone)
    same = torch.equal(first, loan.log_prob) and torch.equal(first[3:4], lone.log_prob)
    yield {"name": "log_prob, twice and alone, to the bit", "pass": same}


CHECKS: tuple[Callable[[torch.device], Iterator[Result]], ...] = (
    by_protocol,
    on_streams,
    in_a_graph,
    twice,
)


def captured(case: launches.Case, loan: Loan) -> torch.cuda.CUDAGraph:
    """One launch as a CUDA graph, warmed up before."""
    draw(case, loan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draw(case, loan)
    return graph


def rows(device: torch.device, tiny: bool) -> Iterator[Result]:
    """Time of a launch and of its replay, against a copy that moves as many bytes."""
    effort = timing.TINY if tiny else timing.FULL
    for batch, primitives, dim, k in SIZES[:2] if tiny else SIZES:
        arrays = launches.mixture(batch, primitives, dim)
        for density in (True, False):
            case = launches.Case("timed", arrays, {"k": k}, density)
            row = {"size": [batch, primitives, dim, k], "log_prob": density}
            yield {**row, **timed(case, device, effort)}


def timed(case: launches.Case, device: torch.device, effort: timing.Effort) -> Result:
    """One row of `rows`."""
    loan = borrowed(case, device)
    touched = [*loan.inputs, loan.z, loan.primitive, *([loan.log_prob] if case.density else [])]
    moved = sum(array.nbytes for array in touched)
    source = torch.randint(256, (moved // 2,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    graph = captured(case, loan)

    def launch() -> None:
        draw(case, loan)

    def copy() -> None:
        target.copy_(source)

    ways: dict[str, Callable[[], object]] = {"launch": launch, "graph": graph.replay, "copy": copy}
    taken = {way: timing.measure(call, device, effort) for way, call in ways.items()}
    return {
        "bytes": moved,
        **{way: found._asdict() for way, found in taken.items()},
        "of_copy": taken["copy"].median_ms / taken["graph"].median_ms,
    }


def table(found: list[Result]) -> str:
    """One row a size, with and without log_prob."""
    drawn = [
        (
            ", ".join(map(str, row["size"])),
            "yes" if row["log_prob"] else "no",
            f"{row['bytes'] / 1e6:.3g}",
            *(str(timing.Timing(**row[way])) for way in ("launch", "graph", "copy")),
            f"{row['of_copy']:.0%}",
        )
        for row in found
    ]
    head = ("B, P, D, k", "log_prob", "MB read + written", "ms by Python", "ms in a graph")
    return timing.markdown((*head, "ms to copy as much", "copy / graph"), drawn)
