"""One encode and k decodes of the paper's network: a loop, a batch, and one CUDA graph.

The weights are random: the time does not depend on them.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gpu import precision, timing
from picme_training.blocks import Attention
from picme_training.config import NetworkConfig
from picme_training.networks import Picme, fold

Result = dict[str, Any]
TOLERANCE = {"fp32": 1e-3, "tf32": 3e-2, "bf16": 1e-1}
"""Largest relative error, ||out - reference|| / ||reference||, against the loop in strict fp32."""
GRAPH_TOLERANCE = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}
"""The same between a graph and the eager run that it captured: other kernels may be chosen."""
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Request(NamedTuple):
    """What is asked of the network, the random numbers included, so that a run repeats.

    Attributes:
        image: (1, 3, S, S) in [-1, 1].
        hole: (1, 1, S, S), 1 in the hole.
        choice: (k,) int64, the primitives drawn.
        eps: (k, D) normal numbers.
    """

    image: Tensor
    hole: Tensor
    choice: Tensor
    eps: Tensor


class Suite:
    """The measurements so far, and what every one of them needs."""

    def __init__(self, device: torch.device, effort: timing.Effort):
        self.device, self.effort = device, effort
        self.rows: list[Result] = []
        self.checks: list[Result] = []

    def check(self, label: Result, found: Tensor, truth: Tensor, tolerance: float) -> float:
        """Notes whether `found` is near `truth`, and gives the relative error."""
        error = float((found.double() - truth.double()).norm() / truth.double().norm())
        good = found.shape == truth.shape and error <= tolerance  # NaN is no number to pass with
        name = " ".join(str(value) for value in label.values())
        self.checks.append({"name": name, "pass": good, "error": error, "tolerance": tolerance})
        return error

    def time(self, label: Result, call: Callable[[], object], **more: float) -> timing.Timing:
        """Times `call` and adds its row."""
        taken = timing.measure(call, self.device, self.effort)
        each = {"ms_per_image": taken.median_ms / label["k"]}
        self.rows.append({**label, **taken._asdict(), **each, **more})
        return taken


def measure(device: torch.device, tiny: bool) -> Result:
    """Every way, k, precision and layout; each result is checked before it is timed."""
    suite = Suite(device, timing.TINY if tiny else timing.FULL)
    size, ks = (64, (1, 2)) if tiny else (256, (1, 6, 50))
    live = _network(size, device)
    folded = _network(size, device)
    folded.load_state_dict(live.state_dict())
    fold(folded)
    chosen = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # for the loop too
    try:
        with torch.no_grad():
            for k in ks:
                _measure_k(suite, k, live, folded)
    finally:
        torch.backends.cudnn.benchmark = chosen
    for row in suite.rows:
        base = next(r for r in suite.rows if _case(r) == _case(row) and r["way"] == "loop")
        row["speedup"] = base["median_ms"] / row["median_ms"]
    return {"preset": "picme", "size": size, "rows": suite.rows, "checks": suite.checks}


def loop(model: Picme, request: Request) -> Tensor:
    """The reference: encode, then k decodes one after the other; (k, 3, S, S)."""
    encoding, mixture = model.encode(request.image, request.hole)
    assert encoding.z_m is not None  # the preset's latent is a vector
    pictures = []
    for index, eps in zip(request.choice[:, None], request.eps[:, None], strict=True):
        z_c = mixture.primitive(index).sample(eps)
        pictures.append(model.decode(z_c, encoding.z_m.mu, encoding.features, request.hole)[-1])
    return torch.cat(pictures)


def batch(model: Picme, request: Request) -> Tensor:
    """The same pictures by one decode of a batch of k."""
    encoding, mixture = model.encode(request.image, request.hole)
    assert encoding.z_m is not None  # the preset's latent is a vector
    k = len(request.choice)
    sigma = mixture.log_sigma[0, request.choice].exp()
    return model.decode(
        mixture.mu[0, request.choice] + sigma * request.eps,
        encoding.z_m.mu.expand(k, -1),
        tuple(feature.expand(k, -1, -1, -1) for feature in encoding.features),
        request.hole.expand(k, -1, -1, -1),
    )[-1]


def _measure_k(suite: Suite, k: int, live: Picme, folded: Picme) -> None:
    device = suite.device
    request, other = (_request(k, live, seed, device) for seed in (k, k + 1))
    gmac = _macs(folded, request) / 1e9
    with precision.network("fp32", device):
        truth = loop(live, request)
    for name in precision.names(device):
        reference = functools.partial(_run, loop, live, request, name)
        label = {"k": k, "way": "loop", "precision": name, "layout": "nchw"}
        error = suite.check(label, reference(), truth, TOLERANCE[name])
        suite.time(label, reference, gmac=gmac, error=error)
        for layout in LAYOUTS:
            model = _placed(copy.deepcopy(folded), layout)
            held = Request(*(part.clone() for part in request))  # a graph reads its inputs here
            held = held._replace(image=_placed(held.image, layout))
            eager = functools.partial(_run, batch, model, held, name)
            label = {"k": k, "way": "batch", "precision": name, "layout": layout}
            error = suite.check(label, eager(), truth, TOLERANCE[name])
            suite.time(label, eager, gmac=gmac, error=error)
            if device.type == "cuda":
                label = {**label, "way": "graph"}
                graph, output = capture(eager)
                check_graph(suite, label, graph, output, eager, held, other)
                suite.time(label, graph.replay, gmac=gmac, error=error)


def _run(
    way: Callable[[Picme, Request], Tensor], model: Picme, request: Request, name: str
) -> Tensor:
    with precision.network(name, request.image.device):
        return way(model, request)


def _case(row: Result) -> tuple[int, str]:
    return row["k"], row["precision"]


_Placeable = TypeVar("_Placeable", Picme, Tensor)


def _placed(what: _Placeable, layout: str) -> _Placeable:
    return what.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload, no-any-return]  # in no stub of torch's


def capture(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """One CUDA graph of `call`, and the place where a replay leaves its result."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are chosen outside of the capture
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()
    return graph, output


def check_graph(
    suite: Suite,
    label: Result,
    graph: torch.cuda.CUDAGraph,
    output: Tensor,
    eager: Callable[[], Tensor],
    held: Request,
    other: Request,
) -> None:
    """A replay after the inputs changed gives what the eager run gives, and fills its output."""
    for place, content in zip(held, other, strict=True):
        place.copy_(content)
    expected = eager()
    output.fill_(float("nan"))
    graph.replay()
    suite.check(label, output, expected, GRAPH_TOLERANCE[label["precision"]])


def _network(size: int, device: torch.device) -> Picme:
    torch.manual_seed(0)
    model = Picme(NetworkConfig(preset="picme", size=size)).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Attention):  # 0 at first, which would hide an error in there
            module.gamma.fill_(0.5)
            module.alpha.fill_(0.5)
    return model.to(device)


def _request(k: int, model: Picme, seed: int, device: torch.device) -> Request:
    size, random = model.config.size, torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, size, size, generator=random) * 2 - 1
    hole = torch.zeros(1, 1, size, size)
    hole[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    choice = torch.randint(model.config.primitives, (k,), generator=random)
    eps = torch.randn(k, model.latent_dim, generator=random)
    return Request(*(part.to(device) for part in (image, hole, choice, eps)))


def _macs(model: Picme, request: Request) -> int:
    with FlopCounterMode(display=False) as counter:
        batch(model, request)
    return int(counter.get_total_flops()) // 2


def add_shares(result: Result, tflops: dict[str, dict[str, float]]) -> None:
    """Puts the share of the measured matmul peak of its precision into each row."""
    for row in result["rows"]:
        reached = 2 * row["gmac"] / row["median_ms"]  # GFLOP a millisecond are TFLOP/s
        row["share_of_peak"] = reached / tflops[row["precision"]]["median"]


def table(result: Result) -> str:
    """One row a way, in the order in which they were measured."""
    rows = []
    for row in result["rows"]:
        taken = timing.Timing(*(row[name] for name in timing.Timing._fields))
        share = row.get("share_of_peak")
        rows.append(
            (
                *(row[name] for name in ("k", "way", "precision", "layout")),
                taken,
                f"{row['ms_per_image']:.3g}",
                f"{row['speedup']:.2f}",
                None if share is None else f"{100 * share:.1f} %",
                f"{row['error']:.1e}",
            )
        )
    head = ("k", "way", "precision", "layout", "ms (10th to 90th percentile)", "ms an image")
    return timing.markdown((*head, "speed-up over the loop", "share of peak", "error"), rows)
