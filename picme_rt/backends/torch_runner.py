"""A graph in torch behind arrays of the host: `Runner` on the CPU and on a GPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from picme_rt.backends.host import narrowed
from picme_rt.backends.torch_network import Network
from picme_rt.backends.torch_recording import Recorder
from picme_rt.tensors import Graph


class TorchRunner:
    """See `Runner`: arrays of the host, tensors on the device, and one recorded call.

    Args:
        network: The graph.
        table: Its inputs and outputs.
        batch: Items a call.
        recorder: How calls get to the device.
        rows: The input `box` if it is the same always; else `inputs` has it.
    """

    def __init__(
        self,
        network: Network,
        table: Graph,
        batch: int,
        recorder: Recorder,
        rows: NDArray[np.int64] | None,
    ):
        self._network, self._recorder = network, recorder
        away = recorder.place.type != "cpu"
        with recorder.queueing():
            self._held = {
                t.name: torch.zeros((batch, *t.shape), pin_memory=away)
                for t in (*table.inputs, *table.outputs)
                if t.batched
            }
            moved = {name: held.to(recorder.place) for name, held in self._held.items()}
        self._there = moved if away else self._held
        self._taken = [t.name for t in table.inputs if t.batched]
        self.inputs: dict[str, NDArray[Any]] = {n: self._held[n].numpy() for n in self._taken}
        self.outputs: dict[str, NDArray[Any]] = {
            t.name: self._held[t.name].numpy() for t in table.outputs
        }
        self._largest = self.outputs.get("picture")
        self._rows = rows
        for tensor in table.inputs:
            if not tensor.batched and rows is None:
                self._rows = self.inputs["box"] = np.zeros(tensor.shape, np.int64)
        self._replay = recorder.record(self._call, network.precision)

    def narrow(self, height: int, width: int) -> None:
        """See `Runner`; on the CPU alone, where nothing was recorded."""
        assert self._largest is not None  # a decoder's
        self.outputs["picture"] = narrowed(self._largest, height, width)
        self._there["picture"] = torch.from_numpy(self.outputs["picture"])

    def run(self) -> None:
        """See `Runner`."""
        with self._recorder.queueing():
            if self._there is self._held:
                self._replay()
                return
            for name in self._taken:
                self._there[name].copy_(self._held[name], non_blocking=True)
            self._replay()
            for name in self.outputs:
                self._held[name].copy_(self._there[name], non_blocking=True)
        self._recorder.wait()

    def _call(self) -> None:
        inputs: dict[str, Any] = {name: self._there[name] for name in self._taken}
        for name, made in self._network({**inputs, "box": self._rows}).items():
            self._there[name].copy_(made)
