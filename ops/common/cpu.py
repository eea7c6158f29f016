"""What the C library and OpenMP are told on a CPU; imports no torch, as it can matter before torch is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def share_cores() -> None:
    """Let the threads of OpenMP sleep soon when they wait for one another, unless the user has decided; before torch.

    By default they spin for milliseconds, in which a second training on the same cores, or this one's own loader
    workers, could work: two trainings on two cores slow each other six times. After 1,000 turns, as GNU OpenMP itself
    waits where it sees more threads than cores, it is twice, and one alone takes 3 % longer.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_freed_memory() -> None:
    """Ask glibc to keep the memory that is freed, in place of giving it back to the kernel.

    The kernel zeroes memory anew, a page at a time, for every activation of every layer, which takes half the time of
    an evaluation. The process stays as large as it was at its peak; TSM_KEEP_MEMORY=0 in the environment switches it
    off.
    """
    if os.environ.get("TSM_KEEP_MEMORY") == "0":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
