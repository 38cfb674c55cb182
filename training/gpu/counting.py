"""What a pipeline asks of a device, counted on any machine: launches, bytes, multiply-adds.

    PYTHONPATH=.:training python training/gpu/counting.py      # W1, the table of docs/gpu.md

A launch is a call of an operator of torch's that makes something (a view makes nothing); a bias
beside a convolution is one more. Bytes are those of what an operator takes and gives: what is
read twice from a cache counts twice, so they are an upper bound on the memory's part.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpu import timing, w1
from picme_rt import engine as engines
from picme_rt import graph_shapes
from picme_rt.backends import graphs
from picme_rt.backends import torch as torch_backend
from picme_rt.backends.torch_network import Network
from picme_rt.choices import Settings
from picme_rt.engine import Engine
from picme_rt.framing import Box
from picme_rt.tensors import Graph


class Counts(NamedTuple):
    """Of one run.

    Attributes:
        launches: Operators that make something.
        bytes: Taken and given by them.
        macs: Multiply-adds.
    """

    launches: int
    bytes: int
    macs: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts every operator below autograd."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.launches = self.bytes = 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]  # torch's own signature has no types
        self, func, types, args=(), kwargs=None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        writes = [one.alias_info is None or one.alias_info.is_write for one in func._schema.returns]
        name = func._schema.name
        if all(writes) and not name.startswith(("aten::empty", "aten::_local_scalar")):
            biased = name == "aten::convolution" and args[2] is not None
            self.launches += 1 + biased
            self.bytes += sum(one.nbytes for one in (*_tensors(args), *_tensors((made,))))
        return made


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def count(engine: Engine, precision: str, latents: int) -> dict[str, Counts]:
    """The encoder for one picture, and the decoder for so many latents of the whole picture."""
    checked = graphs.read(engine, "fp32")
    settings = Settings("torch", precision, threads=1)
    encoder, decoder = torch_backend.networks(checked, settings)
    rows, each = torch_backend.whole(checked), macs(engine)
    tables = engine.tables
    return {
        "encoder": _counted(encoder, tables.encoder, 1, None, each[0]),
        "decoder": _counted(decoder, tables.decoder, latents, rows, latents * each[1]),
    }


def macs(engine: Engine) -> tuple[int, int]:
    """Multiply-adds of an encode, and of a decode of the whole picture."""
    whole = Box(0, 0, engine.size, engine.size)
    checked, tables = graphs.read(engine, "fp32"), engine.tables
    encoder = graph_shapes.cost(checked.encoder.content, tables.encoder, (), whole)
    decoder = graph_shapes.cost(checked.decoder.content, tables.decoder, engine.crops, whole)
    return encoder.macs, decoder.macs


def _counted(network: Network, table: Graph, batch: int, rows: Any, macs: int) -> Counts:
    inputs = {t.name: torch.zeros(batch, *t.shape) for t in table.inputs if t.batched}
    with torch.no_grad(), _Counter() as counter:
        network({**inputs, "box": rows})
    return Counts(counter.launches, counter.bytes, macs)


def table(engine: Engine, precisions: Iterable[str], latents: Iterable[int]) -> str:
    """One row a graph, precision and number of latents."""
    rows = []
    for precision in precisions:
        for k in latents:
            for role, found in count(engine, precision, k).items():
                size, macs = f"{found.bytes / 1e6:.0f}", f"{found.macs / 1e9:.2f}"
                items = k if role == "decoder" else 1
                rows.append((role, precision, items, found.launches, size, macs))
    head = ("graph", "precision", "items", "launches", "MB taken + given", "GMAC")
    return timing.markdown(head, list(dict.fromkeys(rows)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for decoder in get_args(w1.Decoder):
            found = engines.load(w1.write(Path(folder) / decoder, decoder))
            print(f"{decoder} decoder\n\n{table(found, ('fp32', 'fp16'), (1, 6))}\n")
