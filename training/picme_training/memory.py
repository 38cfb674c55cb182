"""Memory of a training on a CPU: in large pages, and kept once it was asked for.

A step makes and frees gigabytes, in blocks of megabytes. By itself glibc gives each back to the
system, which hands out the next one page by page, in zeros: a twentieth of a step and more.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h of glibc numbers them
_MOST_MMAP = 1 << 25  # glibc takes no larger one
_MOST = 2**31 - 1


def keep() -> None:
    """From now on glibc keeps what is freed in blocks of up to 32 MiB, for what comes next.

    torch asks for large pages too, where this comes before its first tensor.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _MOST_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, _MOST)
