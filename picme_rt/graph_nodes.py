"""A node of a graph and what is known of its inputs, as the rules of operators.py see it."""

import math
from typing import NamedTuple

from picme_rt.errors import EngineError
from picme_rt.onnx_file import Attribute, Kind, Node

Shape = tuple[int, ...]


class Value(NamedTuple):
    """What is known of a value before the graph runs, at batch 1.

    Attributes:
        kind: float32, int64 for shapes, int8 between quantising and restoring, or float16 as
            weights are stored.
        shape: All axes, the batch's too.
        content: Its numbers in a row, where they are few and known.
        fixed: Whether it lies in the file.
        free: Whether its numbers come with each call, as those of a box do: then `content` is one
            case of many, and nothing but what a crop leaves may depend on it.
    """

    kind: Kind
    shape: Shape
    content: tuple[float, ...] | None = None
    fixed: bool = False
    free: bool = False

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class Results(NamedTuple):
    """Results of a node, its multiplications, and floats that it needs while it runs."""

    values: list[Value]
    macs: int = 0
    scratch: int = 0


class Call:
    """One node and its inputs, as its rule asks for them; what it never asked for is refused."""

    def __init__(self, node: Node, inputs: list[Value | None]):
        self._inputs, self._attributes, self.results = inputs, dict(node.attributes), node.outputs

    def inputs(self, *kinds: Kind | None) -> list[Value]:
        """All inputs, of these kinds; None is an input that is left out."""
        if [one and one.kind for one in self._inputs] != list(kinds):
            got = [one and one.kind for one in self._inputs]
            raise EngineError(f"inputs must be {list(kinds)}, got {got}")
        return [one for one in self._inputs if one is not None]

    def mixed(self, *each: tuple[Kind, ...]) -> list[Value]:
        """All inputs, of one of these rows of kinds."""
        got = tuple(one and one.kind for one in self._inputs)
        if got not in each:
            raise EngineError(f"inputs must be {' or '.join(map(str, each))}, got {got}")
        return [one for one in self._inputs if one is not None]

    def some(self, kind: Kind | None, least: int, most: int) -> list[Value]:
        """All inputs, none left out, all of one kind: this one if it is given."""
        found = [one for one in self._inputs if one is not None]
        kinds = {one.kind for one in found} | ({kind} if kind else set())
        if len(found) != len(self._inputs) or len(kinds) != 1 or not least <= len(found) <= most:
            raise EngineError(f"it must have {least} to {most} inputs of one kind")
        return found

    def kind(self) -> Kind:
        """The kind of its first input."""
        first = self._inputs[0] if self._inputs else None
        return "float32" if first is None else first.kind

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """An attribute in low..high."""
        got = self._attributes.pop(name, default)
        if not isinstance(got, int) or not low <= got <= high:
            raise EngineError(f"{name} must be in {low}..{high}, got {got!r}")
        return got

    def integers(self, name: str, default: Shape | None, low: int, high: int, *, row: int) -> Shape:
        """An attribute of `row` numbers in low..high."""
        got = self._attributes.pop(name, default)
        if not isinstance(got, tuple) or len(got) != row or not all(low <= n <= high for n in got):
            raise EngineError(f"{name} must have {row} numbers in {low}..{high}, got {got!r}")
        return got

    def real(self, name: str, default: float, low: float, high: float) -> float:
        """An attribute in low..high that is not an integer."""
        got = self._attributes.pop(name, default)
        if not isinstance(got, float) or not low <= got <= high:
            raise EngineError(f"{name} must be a number in {low:g}..{high:g}, got {got!r}")
        return got

    def word(self, name: str, default: str, known: tuple[str, ...]) -> str:
        """An attribute that is one of some words."""
        got = self._attributes.pop(name, default)
        if not isinstance(got, str) or got not in known:
            raise EngineError(f"{name} must be of {', '.join(known)}, got {got!r}")
        return got

    def default(self, **values: Attribute) -> None:
        """Attributes that have this one value; it is ONNX's default, so they may be absent."""
        self.only(**{name: value for name, value in values.items() if name in self._attributes})

    def only(self, **values: Attribute) -> None:
        """Attributes that are there and have this one value."""
        for name, value in values.items():
            got = self._attributes.pop(name, None)
            if type(got) is not type(value) or got != value:
                raise EngineError(f"{name} must be {value!r}, got {got!r}")

    def finish(self, results: int) -> None:
        """Refuses attributes that no rule asked for, and another number of results."""
        for name in self._attributes:
            raise EngineError(f"it has the attribute {name!r}, which no engine has")
        if len(self.results) != results:
            raise EngineError(f"it must have {results} results, got {len(self.results)}")
