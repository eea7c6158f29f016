"""What the data tools share: jobs over many processes, reports of what failed, text files in and out."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ops.common.errors import InputError, at_least, escaped
from ops.common.files import atomic_path
from ops.data.lists import VIDEO_EXTENSIONS

Item = TypeVar("Item")

VIDEO_SUFFIXES = frozenset(VIDEO_EXTENSIONS)
MAX_LISTED_FAILURES = 50


@dataclass(frozen=True)
class Failure:
    """One item that could not be done, and why."""

    reason: str


def shown(name: object) -> str:
    """A name as it may be printed on one line: odd bytes and control characters escaped."""
    return escaped(str(name))


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add `-j/--jobs`, the number of processes."""
    parser.add_argument(
        "-j", "--jobs", type=at_least(1), default=os.cpu_count() or 1, help="processes (default: all cores)"
    )


# --- many processes ---------------------------------------------------------------------------------------------------


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError after `seconds` (None: never; only in a main thread, where signals arrive)."""
    if not seconds or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _do(function: Callable[[Any], Any], item: Any, timeout_s: float | None) -> Any:
    """Call `function(item)`; an exception becomes a Failure, so that one bad file never ends a run of thousands."""
    try:
        with _time_limit(timeout_s):
            return function(item)
    except Exception as error:
        text = " ".join(str(error).split())
        known = isinstance(error, (InputError, TimeoutError)) and text
        return Failure(text if known else f"{type(error).__name__}: {text}".removesuffix(": "))


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the processes are the parallelism

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run_pool(do: Callable[[int], tuple], queue: deque[int], *, workers: int, take: Callable[[int, Any], None]) -> list:
    """Run the indices of `queue` in a pool, handing results to `take`.

    Returns the indices that were under way when a worker died (empty when all went well); the rest stay in `queue`.
    """
    method = "fork" if sys.platform == "linux" else "spawn"
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), initializer=_start_worker, initargs=(os.getpid(),)
    )
    running: dict[Future, int] = {}
    suspects: list[int] = []
    try:
        while (queue or running) and not suspects:
            while queue and len(running) < 2 * workers:
                index = queue.popleft()
                try:
                    running[pool.submit(*do(index))] = index
                except BrokenProcessPool:
                    suspects.append(index)
                    break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    suspects.append(index)
                else:
                    take(index, result)
        suspects += running.values()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return sorted(suspects)


def run_jobs(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    *,
    jobs: int,
    label: str,
    timeout_s: float | None = None,
) -> list[Any]:
    """Do `function(item)` for all items over `jobs` processes with a progress bar.

    Returns one result an item, in the order of the items; a Failure where it raised, ran past `timeout_s` seconds, or
    took its process down with it (a decoder that crashes costs that one video, nothing else). `function` must be
    importable (a module's own function, or functools.partial of one).
    """
    results: list[Any] = [None] * len(items)
    interval = 0.2 if sys.stderr.isatty() else 10  # a log file wants few lines
    with tqdm(total=len(items), desc=label, mininterval=interval, disable=not items) as bar:

        def take(index: int, result: Any) -> None:
            results[index] = result
            bar.update()

        def task(index: int) -> tuple:
            return _do, function, items[index], timeout_s

        queue = deque(range(len(items)))
        if jobs == 1 or len(items) < 2:
            for index in queue:
                take(index, _do(function, items[index], timeout_s))
            return results
        while queue:
            for index in _run_pool(task, queue, workers=min(jobs, len(queue)), take=take):
                # One of these killed its worker: each again on its own, to know which.
                if _run_pool(task, deque([index]), workers=1, take=take):
                    take(index, Failure("its process died (out of memory, or a crash in the decoder)"))
    return results


def report(done: str, items: Iterable[object], results: Iterable[Any]) -> int:
    """Print how many items were done and, on stderr, each that failed with its reason; returns the exit status."""
    pairs = list(zip(items, results, strict=True))
    failures = [(item, result) for item, result in pairs if isinstance(result, Failure)]
    print(f"{done}: {len(pairs) - len(failures)} of {len(pairs)}")
    for item, failure in failures[:MAX_LISTED_FAILURES]:
        print(f"failed: {shown(item)}: {shown(failure.reason)}", file=sys.stderr)
    if len(failures) > MAX_LISTED_FAILURES:
        print(f"failed: ... and {len(failures) - MAX_LISTED_FAILURES} more", file=sys.stderr)
    return 1 if failures else 0


# --- files ------------------------------------------------------------------------------------------------------------


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file (a byte-order mark is dropped); InputError if it cannot be read as that."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)}: not a UTF-8 text file (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{shown(path)}: {error.strerror}") from None


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of each line of a text file that is not blank."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if line.strip():
            yield number, line


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write a text file in one go: the old content or the new, never half of it."""
    path = Path(path)
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(data)
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be written: {error.strerror}") from None


def existing_folder(path: str | Path, what: str) -> Path:
    """`path` as a Path, if it is a folder; else InputError that says what the folder was to hold."""
    path = Path(path)
    if not path.is_dir():
        kind = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"{shown(path)} {kind}: give the folder of {what}")
    return path


def find_videos(root: Path) -> list[Path]:
    """All video files below `root` (by their suffix), sorted, as paths relative to it; hidden ones are left out."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        found += [
            relative / name
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
        ]
    return sorted(found, key=lambda path: path.as_posix())
