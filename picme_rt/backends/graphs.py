"""The two graphs of a variant: verified bytes, which every backend is handed and none reads itself.

So no library sees a graph that was not checked, nor a file that changed after it was.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from picme_rt import graph_shapes, tensors, windows
from picme_rt.engine import Engine
from picme_rt.errors import EngineError, one_line
from picme_rt.framing import Box
from picme_rt.graph_shapes import Shapes
from picme_rt.windows import Crop, Windows


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
    """Both graphs of the variant `variant`.

    Attributes:
        variant: The variant's name.
        encoder: Its encoder.
        decoder: Its decoder.
        crops: Of the decoder.
        windows: Those that the decoder makes a box from, once its shapes were found to follow for
            this box; EngineError where they do not. None where it takes no box.
    """

    variant: str
    encoder: Checked
    decoder: Checked
    crops: tuple[Crop, ...]
    windows: Callable[[Box], Windows] | None


def read(engine: Engine, variant: str, batch: int = 1) -> Graphs:
    """Reads and checks both graphs of a variant.

    Args:
        engine: The engine.
        variant: One of its variants.
        batch: Latents a run of the decoder, with which each box is looked at that comes.

    Raises:
        EngineError: A file is missing or changed, or its graph is none of an engine.
    """
    tables, files, crops = engine.tables, engine.variants[variant], engine.crops
    encoder, _ = _check(engine, files["encoder"], tables.encoder, (), 1)
    decoder, shapes = _check(engine, files["decoder"], tables.decoder, crops, batch)
    asked = _windows(engine, shapes, decoder.path) if crops else None
    return Graphs(variant, encoder, decoder, crops, asked)


def _check(
    engine: Engine, name: str, table: tensors.Graph, crops: tuple[Crop, ...], batch: int
) -> tuple[Checked, Shapes]:
    path, content = engine.path / name, engine.read(name)
    try:
        shapes, _ = graph_shapes.checked(content, table, crops, batch)
    except EngineError as exc:
        raise EngineError(
            f"{path} is no graph of an engine: {one_line(exc)}; export it again"
        ) from exc
    return Checked(path, content, table), shapes


def _windows(engine: Engine, shapes: Shapes, path: Path) -> Callable[[Box], Windows]:
    @functools.lru_cache(maxsize=256)  # a check takes a millisecond
    def asked(box: Box) -> Windows:
        found = windows.windows(engine.size, engine.crops, box)
        try:
            shapes.follow(found)
        except EngineError as exc:
            raise EngineError(
                f"{path} is no graph of an engine, as the box {tuple(box)} shows: {one_line(exc)}; "
                "export it again"
            ) from exc
        return found

    return asked
