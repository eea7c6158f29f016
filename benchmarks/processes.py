"""Cases in processes of their own, each set up for the CPU as its user would run it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

from ops.common.cpu import keep_freed_memory, share_cores


class OwnProcess:
    """A case built and called in a new process, so that no memory or setting of one case helps another.

    Args:
        build: called there, a function of a module; returns the case, a callable.
        tuned: with what our commands tell the C library and OpenMP; without, as Python starts.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], *args: object, threads: int, tuned: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, build, args, threads, tuned))
        with _environment(tuned):
            self._process.start()
        there.close()

    def __call__(self) -> Any:
        """Call the case; returns what it returns."""
        return self.ask("__call__")

    def ask(self, method: str) -> Any:
        """Call a method of the case; raises EOFError if the process has ended, its traceback printed."""
        self._pipe.send(method)
        return self._pipe.recv()

    def close(self) -> tuple[float, float]:
        """End the process; returns the seconds of user and of system time of all calls, its workers' included."""
        self._pipe.send(None)
        times = self._pipe.recv()
        self._process.join()
        return times


def _serve(pipe: Connection, build: Callable[..., Any], args: tuple, threads: int, tuned: bool) -> None:
    torch.set_num_threads(threads)
    if tuned:
        keep_freed_memory()
    case = build(*args)
    case()  # warm-up
    before = _cpu_seconds(resource.RUSAGE_SELF)
    with contextlib.suppress(EOFError):  # the benchmark has ended early
        while (method := pipe.recv()) is not None:
            pipe.send(getattr(case, method)())
    after = _cpu_seconds(resource.RUSAGE_SELF)
    del case  # its loader joins the workers, whose times are then known
    workers = _cpu_seconds(resource.RUSAGE_CHILDREN)
    with contextlib.suppress(BrokenPipeError):
        pipe.send(tuple(b - a + w for a, b, w in zip(before, after, workers, strict=True)))


def _cpu_seconds(who: int) -> tuple[float, float]:
    usage = resource.getrusage(who)
    return usage.ru_utime, usage.ru_stime


@contextlib.contextmanager
def _environment(tuned: bool) -> Iterator[None]:
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ.pop("GOMP_SPINCOUNT", None)
    if tuned:
        share_cores()
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
        if before is not None:
            os.environ["GOMP_SPINCOUNT"] = before
