"""Search for fast loops with TVM's MetaSchedule, and keep the best of each (online_demo/compile.py --tune)."""

from __future__ import annotations

import lzma
import multiprocessing
import os
import shutil
import tempfile
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

    A task's measurements are written when the search returns to it, so that an interrupted run can leave few.
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
    """A builder that forks: TVM's own starts new workers, which import for half a minute."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder

    @derived_object
    class ForkingBuilder(PyBuilder):
        def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
            outcomes: list[BuilderResult] = []
            for start in range(0, len(build_inputs), BUILDS_AT_ONCE):
                running = [_start_build(build_input) for build_input in build_inputs[start : start + BUILDS_AT_ONCE]]
                outcomes += [BuilderResult(*_finish_build(*build)) for build in running]
            return outcomes

    return ForkingBuilder()


def _start_build(build_input: Any) -> tuple[multiprocessing.Process, str]:
    # Forked by the main thread, as builds forked by others fail. The runner deletes the whole folder after use.
    path = os.path.join(tempfile.mkdtemp(prefix="tsm-tuning-"), "candidate.so")
    process = multiprocessing.get_context("fork").Process(target=_write_library, args=(build_input, path), daemon=True)
    process.start()
    return process, path


def _finish_build(process: multiprocessing.Process, path: str) -> tuple[str | None, str | None]:
    """(path of the library, None) or (None, the reason why there is none)."""
    process.join(BUILD_TIMEOUT_S)
    if process.exitcode == 0:
        return path, None
    reason = f"ended with status {process.exitcode}"
    if process.exitcode is None:  # some depthwise candidates never end
        reason = "took too long"
        process.kill()
        process.join()
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    return None, reason


def _write_library(build_input: Any, path: str) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    tvm = import_tvm()
    mod = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(build_input.mod)
    tvm.build(mod, target=build_input.target).export_library(path)


def start_from(record: Path | None, work_dir: Path) -> None:
    """Let a search continue from the kept record where its own folder holds none yet."""
    work_dir.mkdir(parents=True, exist_ok=True)
    if record is not None and not any((work_dir / name).exists() for name in DATABASE_FILES):
        unpack_record(record, work_dir)


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
        folder.mkdir(parents=True, exist_ok=True)
        for name, packed in zip(DATABASE_FILES, RECORD_FILES, strict=True):
            atomic_write_bytes(folder / packed, lzma.compress((Path(temporary) / name).read_bytes()))
    return count
