"""A graph for the tests of what is compiled twice: it says what ran on how many threads."""

import weakref

from picme_rt.backends.host import narrowed
from picme_rt.tensors import Graph, Tensor

CORES = 2
TWICE = ("onnxruntime", "openvino")
"""Backends that compile a graph a second time."""
TABLE = Graph((Tensor("z", (1,)),), (Tensor("picture", (3, 8, 8)),))


class Twice:
    """A graph that gives 2 z, and in runs of one thread a last pixel of so much more."""

    def __init__(self, error=0.0):
        self.error, self.compiled, self.runs = error, [], []
        self.gate = self.met = None  # called before compiling, and in each run, of one thread
        self.weak = []

    def __call__(self, threads):
        self.compiled.append(threads)
        if threads == 1 and self.gate is not None:
            self.gate()

        compiled = Compiled()
        self.weak.append(weakref.ref(compiled))
        return lambda given: Run(self, threads, given, compiled)


class Compiled:
    """What the library keeps as long as there is a runner of it."""


class Run:
    """See `Runner`."""

    def __init__(self, graph, threads, given, compiled):
        self.graph, self.threads, self.compiled, self.inside = graph, threads, compiled, 0
        self.inputs, self.outputs = given
        self.largest = self.outputs["picture"]

    def narrow(self, height, width):
        self.outputs["picture"] = narrowed(self.largest, height, width)

    def run(self):
        self.inside += 1
        assert self.inside == 1, "two runs at once over the same buffers"
        self.graph.runs.append(self.threads)
        if self.threads == 1 and self.graph.met is not None:
            self.graph.met()
        self.outputs["picture"][:] = 2 * self.inputs["z"].reshape(-1, 1, 1, 1)
        if self.threads == 1:
            self.outputs["picture"][..., -1, -1] += self.graph.error  # a small box does not see it
        self.inside -= 1
