"""picme_rt: a photograph with a hole becomes k different, plausible photographs.

import picme_rt
session = picme_rt.Session("engines/cats256")
done = session.complete(img, mask, k=6)      # done.images: (6, H, W, 3) uint8
"""

from picme_rt import kernels
from picme_rt.encoded import Completion, Completions, Encoded
from picme_rt.errors import (
    ClosedError,
    EngineError,
    InputError,
    MissingPackageError,
    PicmeError,
    UnavailableError,
)
from picme_rt.models import Info
from picme_rt.session import Session

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "Completion",
    "Completions",
    "Encoded",
    "EngineError",
    "Info",
    "InputError",
    "MissingPackageError",
    "PicmeError",
    "Session",
    "UnavailableError",
    "__version__",
    "kernels",
]
