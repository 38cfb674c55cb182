"""A graph for the tests of what is compiled twice: it says what ran on how many threads."""

import weakref

from picme_rt.backends.host import narrowed
from picme_rt.tensors import Graph, Tensor

CORES = 2
TWICE = ("onnxruntime", "openvino")
"""Backends that compile a graph a second time."""
TABLE = Graph((Tensor("z", (1,)),), (Tensor("picture", (3, 8, 8)),))


class Twice:
    """A graph that gives 2 z, and in runs of one thread so much more; counts what is asked."""

    def __init__(self, error=0.0):
        self.error, self.compiled, self.runs = error, [], []
        self.gate = self.met = None  # called before compiling, and in each run, of one thread
        self.weak = []

    def __call__(self, threads):
        self.compiled.append(threads)
        if threads == 1 and self.gate is not None:
            self.gate()

        def make(given):
            return Run(self, threads, given)

        self.weak.append(weakref.ref(make))
        return make


class Run:
    """See `Runner`."""

    def __init__(self, graph, threads, given):
        self.graph, self.threads = graph, threads
        self.inputs, self.outputs = given
        self.largest = self.outputs["picture"]

    def narrow(self, height, width):
        self.outputs["picture"] = narrowed(self.largest, height, width)

    def run(self):
        self.graph.runs.append(self.threads)
        if self.threads == 1 and self.graph.met is not None:
            self.graph.met()
        error = self.graph.error if self.threads == 1 else 0
        self.outputs["picture"][:] = 2 * self.inputs["z"].reshape(-1, 1, 1, 1) + error
