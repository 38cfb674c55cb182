"""Curves and pictures for TensorBoard: one event file, written by whoever adds to it."""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from picme_rt import atomic
from picme_rt.images import Image


class Board:
    """An event file of a run.

    torch's SummaryWriter hands its events to a thread, which answers a full disk with a traceback
    of its own while the run goes on; here the caller gets an OSError with the file's name.
    """

    def __init__(self, folder: Path, first: int):
        """Begins a file in which the steps from `first` on replace those of older files."""
        # TensorBoard reads the files of a folder in the order of their names
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        made = summary.scalar(name, value)  # type: ignore[no-untyped-call]  # torch's own
        self._write(Event(step=step, summary=made))

    def add_image(self, name: str, picture: Image, step: int) -> None:
        """Adds a picture, (H, W, 3) uint8."""
        made = summary.image(name, picture, dataformats="HWC")  # type: ignore[no-untyped-call]
        self._write(Event(step=step, summary=made))

    def close(self) -> None:
        """Ends the file."""
        with atomic.named(self._path):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with atomic.named(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()
