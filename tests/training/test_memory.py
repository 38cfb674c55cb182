"""What a training asks of glibc and torch so that memory that was freed is kept."""

import ctypes
import os
import platform

from picme_training import memory


def test_glibc_is_told_to_keep_blocks_and_torch_to_take_large_pages(monkeypatch):
    told = []

    class Libc:
        def mallopt(self, name, value):
            told.append((name, value))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc())
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    memory.keep()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    assert told == [(-3, 32 << 20), (-1, 2**31 - 1)]
