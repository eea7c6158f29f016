"""From the streaming network to a library: import, lower, apply a tuning record, compile (TVM 0.27's Relax)."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from online_demo.backends.cache import cached_file, versions
from online_demo.backends.tvm_targets import CROSS_COMPILER, TARGETS, TargetSpec
from online_demo.model import FOLDER, DemoModel
from online_demo.torch_network import example_inputs
from ops.common.errors import InputError

TUNING_FOLDER = FOLDER / "tuning"
DATABASE_FILES = ("database_workload.json", "database_tuning_record.json")  # TVM's names
RECORD_FILES = tuple(f"{name}.xz" for name in DATABASE_FILES)  # 60 times smaller, as all tasks look alike


def import_tvm() -> Any:
    """Import the package, or raise InputError that says how to install it."""
    try:
        with quiet():
            import tvm
            import tvm.relax.frontend.torch
            import tvm.s_tir
    except ImportError as error:
        raise InputError(f"TVM is not installed ({error}): pip install -r requirements-tvm.txt") from None
    return tvm


def make_target(spec: TargetSpec) -> Any:
    """TVM's target object."""
    tvm = import_tvm()
    cpu = spec.describe_cpu(tvm.target.codegen.llvm_get_system_cpu())
    return tvm.target.Target(spec.gpu, host=cpu) if spec.gpu else tvm.target.Target(cpu)


def import_step(model: DemoModel) -> Any:
    """The step as a Relax module: `main(frame, *buffers) -> (scores, *buffers)`, weights inside."""
    tvm = import_tvm()
    relax = tvm.relax

    def relu6(node: Any, importer: Any) -> Any:
        # clip has no layout rule: each ReLU6 would be wrapped in two transposes. Minimum and maximum have.
        emit = importer.block_builder.emit
        x = importer.env[node.args[0]]
        return emit(relax.op.minimum(emit(relax.op.maximum(x, relax.const(0.0))), relax.const(6.0)))

    with torch.no_grad():
        program = torch.export.export(model.stream, example_inputs(model.info))
    return relax.frontend.torch.from_exported_program(program, custom_convert_map={"hardtanh.default": relu6})


def lower(mod: Any, target: Any) -> Any:
    """Relax -> loops, convolutions in NHWC, weights free to be packed: the input of tuning."""
    tvm = import_tvm()
    transform = tvm.relax.transform
    passes = [transform.DecomposeOpsForInference(), transform.CanonicalizeBindings()]
    if target.kind.name == "llvm":
        passes.append(transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}))
    passes += [transform.CanonicalizeBindings(), transform.FoldConstant(), tvm.relax.get_pipeline("zero")]
    if target.kind.name == "llvm":
        passes.append(transform.AttachAttrLayoutFreeBuffers())
    with target:
        return tvm.ir.transform.Sequential(passes)(mod)


def compile_module(mod: Any, target: Any, record: Path | None) -> Any:
    """A lowered module -> Relax executable, tuned where the record has its loops."""
    tvm = import_tvm()
    transform = tvm.relax.transform
    with target, tempfile.TemporaryDirectory() as folder:
        if record is not None:
            unpack_record(record, Path(folder))
            passes = [
                transform.MetaScheduleApplyDatabase(folder),
                transform.SplitLayoutRewritePreproc(),
                transform.LiftTransformParams(),
                transform.FoldConstant(),
            ]
            mod = tvm.ir.transform.Sequential(passes)(mod)
        if target.kind.name == "cuda":
            # Loops without a tuned schedule still have to be spread over threads.
            gpu = tvm.s_tir.dlight.gpu
            mod = tvm.s_tir.dlight.ApplyDefaultSchedule(gpu.Matmul(), gpu.Reduction(), gpu.Fallback())(mod)
        return tvm.compile(mod, target)


def find_record(spec: TargetSpec) -> Path | None:
    """The tuning record in the repository for a target, None without one."""
    folder = TUNING_FOLDER / spec.tuning_name
    return folder if is_record(folder) else None


def is_record(folder: Path) -> bool:
    """Whether a folder holds a tuning record."""
    return all((folder / name).is_file() for name in RECORD_FILES)


def unpack_record(record: Path, folder: Path) -> None:
    """Write a tuning record's database into a folder, as TVM reads it."""
    for name, packed in zip(DATABASE_FILES, RECORD_FILES, strict=True):
        (folder / name).write_bytes(lzma.decompress((record / packed).read_bytes()))


def record_digest(record: Path | None) -> str:
    """sha256 of a record's files; `-` for none."""
    if record is None:
        return "-"
    return hashlib.sha256(b"".join((record / name).read_bytes() for name in RECORD_FILES)).hexdigest()


@contextmanager
def tvm_errors(model: DemoModel, spec: TargetSpec) -> Iterator[None]:
    """Silence TVM's warnings, and turn what its importer and passes raise into one line."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except (AssertionError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"TVM cannot compile {model.path} for {spec.name}: {lines[-1]}") from error


def cached_library(model: DemoModel) -> Path:
    """The library for this machine's CPU, built once and then taken from the cache."""
    tvm = import_tvm()
    spec = TARGETS["host"]
    record = find_record(spec)
    depends_on = {
        "kind": "tvm",
        **model.identity,
        "target": spec.describe_cpu(tvm.target.codegen.llvm_get_system_cpu()),
        "record": record_digest(record),
        "versions": versions("torch", "apache-tvm", "apache-tvm-ffi"),
    }

    def build(path: Path) -> None:
        check_host_compiler()
        target = make_target(spec)
        with tvm_errors(model, spec):
            compile_module(lower(import_step(model), target), target, record).export_library(str(path))

    return cached_file(model.stem, ".so", depends_on, build)


def find_cross_compiler() -> str:
    """The compiler that links for 64-bit ARM: $CROSS_CXX, else Debian's."""
    compiler = os.environ.get("CROSS_CXX") or CROSS_COMPILER
    if shutil.which(compiler) is None:
        raise InputError(
            f"{compiler} is not installed: on Debian and Ubuntu apt-get install g++-aarch64-linux-gnu, or set "
            "CROSS_CXX, or give an --output that ends with .tar and link its objects on the board"
        )
    return compiler


def check_host_compiler() -> None:
    """Raise InputError where no compiler can link a library for this machine."""
    import_tvm()
    from tvm.support import cc

    if cc.get_cc() is None:
        raise InputError("TVM needs a C++ compiler to link with: on Debian and Ubuntu apt-get install g++")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of TVM and torch.export, which are about their own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
