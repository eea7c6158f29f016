"""What a machine can do to loader workers - kill them, leave them without memory - told in one line, between steps."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from ops.common.errors import InputError, counted

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None

_LESS = "fewer workers (-j) or a smaller batch need less"
_SHARED_FULL = f"the memory that workers share, /dev/shm, is full: {_LESS}, -j 0 needs none, docker run has --shm-size"
_REASONS = {  # what torch or the system says -> what that means here
    r"unable to (allocate shared memory|write to file|resize file)|No space left on device": _SHARED_FULL,
    r"Too many open files|items of ancdata": f"too many open files: {_LESS}, and ulimit -n allows more",
    r"an't allocate memory|annot allocate memory|MemoryError": f"out of memory: {_LESS}",
    r"Resource temporarily unavailable|an't start new thread": "no more processes are allowed: fewer workers (-j)",
}
_DEAD = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]+)|exited unexpectedly)"
)

_deaths: list[RuntimeError] = []


class LoaderError(InputError):
    """The workers cannot go on, through no fault of the data. The network is as it was behind the last whole step."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what a machine without memory or a dead worker raises into LoaderError; anything else passes as it is."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        said = _deaths.pop() if _deaths else error  # which tells the signal
        reason = _reason(f"{type(said).__name__}: {said}")
        if reason is None:
            raise
        raise LoaderError(reason) from error


def _reason(text: str) -> str | None:
    dead = _DEAD.search(text)
    if dead is not None:
        pid, how = dead.groups()
        if how is not None and how.startswith("Bus error"):
            return f"loader worker {pid} was killed: {_SHARED_FULL}"
        how = f"was killed ({how})" if how else "ended unexpectedly"
        return f"loader worker {pid} {how}; if memory was short (see dmesg), {_LESS}"
    return next((f"cannot load: {meaning}" for said, meaning in _REASONS.items() if re.search(said, text)), None)


def allow_open_files(workers: int) -> None:
    """Raise this process's limit of open files as far as it may, for workers who each hold some for their batches.

    A worker that runs out of them loses a batch without a word, and the main process would wait for it for ever.

    Raises:
        InputError: the limit stays too low for so many workers.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [limit if limit != resource.RLIM_INFINITY else sys.maxsize for limit in (soft, hard)]
    plenty, enough = 1024 + 64 * workers, 64 + 16 * workers
    if limits[0] < plenty:
        limits[0] = min(plenty, limits[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], hard))
    if limits[0] < enough:
        raise InputError(
            f"{counted(workers, 'loader worker')} may need {enough} open files, but ulimit -n allows {limits[0]}: "
            "raise it, or take fewer workers (-j)"
        )


def raise_if_a_worker_died() -> None:
    """Raise what `defer_deaths` kept, if anything."""
    if _deaths:
        raise _deaths.pop()


def defer_deaths() -> None:
    """Keep the news of a dead worker until `raise_if_a_worker_died`.

    torch raises it in its handler of SIGCHLD, wherever the main process happens to be: with half of the weights
    updated, or half of a checkpoint written. Call this when the workers have started; without effect outside of the
    main thread, where Python allows no handlers.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if callable(handler) and not isinstance(handler, _Deferring):
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGCHLD, _Deferring(handler))


class _Deferring:
    """A signal handler that keeps what another one raises."""

    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handler(number, frame)
        except RuntimeError as error:
            _deaths.append(error)
