"""The two graphs of a variant: verified bytes, which every backend is handed and none reads itself.

So no library sees a graph that was not checked, nor a file that changed after it was.
"""

from pathlib import Path
from typing import NamedTuple

from picme_rt import graph_shapes, tensors
from picme_rt.engine import Engine
from picme_rt.errors import EngineError, one_line
from picme_rt.windows import Crop


class Checked(NamedTuple):
    """One graph whose digest, operators and shapes were checked.

    Attributes:
        path: Where its bytes came from, for messages alone.
        content: The bytes of an ONNX file.
        table: Its inputs and outputs.
    """

    path: Path
    content: bytes
    table: tensors.Graph


class Graphs(NamedTuple):
    """Both graphs of the variant `variant`, and the decoder's crops."""

    variant: str
    encoder: Checked
    decoder: Checked
    crops: tuple[Crop, ...]


def read(engine: Engine, variant: str) -> Graphs:
    """Reads and checks both graphs of a variant.

    Raises:
        EngineError: A file is missing or changed, or its graph is none of an engine.
    """
    tables, files = engine.tables, engine.variants[variant]
    return Graphs(
        variant,
        _check(engine, files["encoder"], tables.encoder, ()),
        _check(engine, files["decoder"], tables.decoder, engine.crops),
        engine.crops,
    )


def _check(engine: Engine, name: str, table: tensors.Graph, crops: tuple[Crop, ...]) -> Checked:
    path, content = engine.path / name, engine.read(name)
    try:
        graph_shapes.check(content, table, crops)
    except EngineError as exc:
        raise EngineError(
            f"{path} is no graph of an engine: {one_line(exc)}; export it again"
        ) from exc
    return Checked(path, content, table)
