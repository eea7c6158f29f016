"""The same work on many videos over several processes: one bad video costs that video, not the run."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool
from tqdm import tqdm

from ops.common.errors import InputError, at_least

Item = TypeVar("Item")


@dataclass(frozen=True)
class Failure:
    """An item that failed, and why."""

    reason: str


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add `-j/--jobs`, the number of processes."""
    parser.add_argument(
        "-j", "--jobs", type=at_least(1), default=os.cpu_count() or 1, help="number of processes (default: all cores)"
    )


def run_jobs(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    *,
    jobs: int,
    label: str,
    timeout_s: float | None = None,
) -> list[Any]:
    """Run `function(item)` for all items over `jobs` processes, with a progress bar.

    `function` must be importable (a module's own function, or functools.partial of one). Without a time limit, a single
    job runs in this process.

    Returns:
        One result an item, in the order of the items; a Failure where the function raised, took more than `timeout_s`
        seconds, or crashed its process.
    """
    work = functools.partial(_run, function)
    interval = 0.2 if sys.stderr.isatty() else 10  # few lines in a log file
    with tqdm(total=len(items), desc=label, mininterval=interval, disable=not items) as bar:
        if not timeout_s and min(jobs, len(items)) <= 1:
            results = []
            for item in items:
                results.append(work(item))
                bar.update()
            return results
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPool(min(jobs, len(items)), initializer=_start_worker, initargs=(os.getpid(),), context=context)
        try:
            futures = [pool.schedule(work, args=(item,), timeout=timeout_s) for item in items]
            for future in futures:
                future.add_done_callback(lambda _: bar.update())
            return [_result(future, timeout_s) for future in futures]
        finally:
            pool.stop()
            pool.join()


def _run(function: Callable[[Item], Any], item: Item) -> Any:
    try:
        return function(item)
    except Exception as error:
        text = " ".join(str(error).split())
        return Failure(text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".removesuffix(": "))


def _result(future: ProcessFuture, timeout_s: float | None) -> Any:
    try:
        return future.result()
    except FutureTimeoutError:
        return Failure(f"took more than {timeout_s:g} s")
    except ProcessExpired:
        return Failure("its process died (out of memory, or a crash in the decoder)")


def _start_worker(parent: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the processes are the parallelism
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when `parent`, killed, can no longer do it: a second run would find its files being written."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
