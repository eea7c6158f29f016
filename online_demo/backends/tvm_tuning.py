"""Search for fast loops with TVM's MetaSchedule, and keep the best of each (online_demo/compile.py --tune)."""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from online_demo.backends.tvm_build import DATABASE_FILES, RECORD_FILES, import_tvm, quiet, unpack_record
from ops.common.errors import InputError
from ops.common.files import atomic_write_bytes

BUILD_TIMEOUT_S = 10.0
RUN_TIMEOUT_S = 12.0
BUILDS_AT_ONCE = 2
_OPERATORS = ["conv2d", "matmul", "mean"]


def tune(mod: Any, target: Any, work_dir: Path, *, num_trials: int, trials_per_task: int, seed: int = 0) -> None:
    """Tune the loops of a lowered module; measurements are added to the database in `work_dir`.

    A task's measurements are written when the search comes back to it, so that a run cut short can leave little.
    """
    tvm = import_tvm()
    try:
        import xgboost  # noqa: F401
    except ImportError as error:
        raise InputError(f"tuning needs xgboost ({error}): pip install -r requirements-tvm.txt") from None
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.meta_schedule.relax_integration import tune_relax

    runner = ms.runner.LocalRunner(
        timeout_sec=RUN_TIMEOUT_S,
        evaluator_config=ms.runner.EvaluatorConfig(number=1, repeat=1, min_repeat_ms=20),
    )
    strategy = ms.search_strategy.EvolutionarySearch(population_size=128, genetic_num_iters=3, init_min_unmeasured=30)
    with quiet(), target, tvm.ir.transform.PassContext(opt_level=3):
        tune_relax(
            mod,
            params={},
            target=target,
            work_dir=str(work_dir),
            max_trials_global=num_trials,
            max_trials_per_task=trials_per_task,
            num_trials_per_iter=min(16, trials_per_task),
            op_names=_OPERATORS,
            builder=_forking_builder(),
            runner=runner,
            strategy=strategy,
            seed=seed,
        )


def _forking_builder() -> Any:
    """A builder that forks: TVM's own starts workers anew, which do nothing but import for half a minute."""
    import_tvm()
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder

    @derived_object
    class ForkingBuilder(PyBuilder):
        def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
            return [BuilderResult(*outcome) for outcome in _build_all(build_inputs)]

    return ForkingBuilder()


def _build_all(build_inputs: Sequence[Any]) -> list[tuple[str | None, str | None]]:
    """(path of the library, None) or (None, what went wrong) of each candidate."""
    outcomes: list[tuple[str | None, str | None]] = [(None, "not built")] * len(build_inputs)
    waiting = list(enumerate(build_inputs))
    running: dict[int, tuple[int, str, float]] = {}  # process -> (candidate, path, deadline)
    while waiting or running:
        while waiting and len(running) < BUILDS_AT_ONCE:
            index, build_input = waiting.pop(0)
            # The runner deletes the whole folder of a library behind it.
            path = os.path.join(tempfile.mkdtemp(prefix="tsm-tuning-"), "candidate.so")
            process = os.fork()
            if process == 0:
                _build_and_exit(build_input, path)
            running[process] = (index, path, time.monotonic() + BUILD_TIMEOUT_S)
        time.sleep(0.01)
        for process, (index, path, deadline) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            late = not ended and time.monotonic() > deadline
            if late:  # some depthwise candidates never come to an end
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if ended or late:
                del running[process]
                good = ended and status == 0
                reason = "took too long" if late else f"ended with status {status}"
                outcomes[index] = (path, None) if good else (None, reason)
                if not good:
                    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    return outcomes


def _build_and_exit(build_input: Any, path: str) -> None:
    """In the forked process: build one candidate, and leave without the parent's exit handlers."""
    status = 1
    try:
        os.setsid()  # so that the linker goes with us when time is up
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        tvm = import_tvm()
        mod = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(build_input.mod)
        tvm.build(mod, target=build_input.target).export_library(path)
        status = 0
    finally:
        os._exit(status)


def start_from(record: Path | None, work_dir: Path) -> None:
    """Let a search go on from the kept record where its own folder holds none yet."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        if record is not None and not any((work_dir / name).exists() for name in DATABASE_FILES):
            unpack_record(record, work_dir)
    except OSError as error:
        raise InputError(f"{work_dir}: cannot be used as a folder for tuning: {error.strerror}") from None


def keep_best(work_dir: Path, folder: Path) -> int:
    """Write each task's best measurement from `work_dir` to `folder`; returns how many there are.

    Raises:
        InputError: nothing was measured.
    """
    import_tvm()
    from tvm.s_tir.meta_schedule.database import JSONDatabase

    with tempfile.TemporaryDirectory() as temporary:
        pruned = JSONDatabase(work_dir=temporary)
        JSONDatabase(work_dir=str(work_dir)).dump_pruned(pruned)
        count = len(pruned)
        if count == 0:
            raise InputError(f"{work_dir} holds no measurement: give the search more trials (--tune)")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
        for name, packed in zip(DATABASE_FILES, RECORD_FILES, strict=True):
            atomic_write_bytes(folder / packed, lzma.compress((Path(temporary) / name).read_bytes()))
    return count
