"""The allocator's pools are shared where the C library is GNU's, and nothing breaks elsewhere."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from streamderain.system import allocator
from tests.support.requirements import require

MANY_THREADS = """
import ctypes, sys, threading
from streamderain.system.allocator import share_arenas
if sys.argv[1] == "shared":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
here = threading.Barrier(9)
def hold():
    libc.malloc(4096)
    here.wait()
    here.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
here.wait()
libc.malloc_stats()
here.wait()
"""


def arenas(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MANY_THREADS, how], capture_output=True, text=True, check=True
    )
    return done.stderr.count("Arena ")


def test_threads_share_two_pools() -> None:
    require(platform.libc_ver()[0] == "glibc", "GNU's C library")
    assert arenas("own") > 2
    assert arenas("shared") == 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.share_arenas()
