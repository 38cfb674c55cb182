"""Memory that the allocator keeps: a map of an iteration takes the pages of the one before."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
_KEPT, _AT_A_TIME = 1 << 30, 64 << 20  # bytes


def keep() -> bool:
    """Sets glibc's allocator so that freed maps stay the process's, for as long as it runs.

    By default each map of some hundred kilobytes is mapped afresh, and the system clears its pages.

    Returns:
        Whether it is done; a C library without `mallopt` is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    given = (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _AT_A_TIME), (_MMAP_THRESHOLD, _KEPT)
    done = [mallopt(name, value) == 1 for name, value in given]
    return all(done)
