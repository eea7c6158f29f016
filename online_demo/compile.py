"""Export the streaming network as one .onnx file for ONNX Runtime, which boards run without PyTorch; or compile it with
TVM: for this machine, for 64-bit ARM boards, for Jetson GPUs.

    python -m online_demo.compile --jester -o jester.onnx                ONNX Runtime, any machine
    python -m online_demo.compile                                        this machine's CPU
    python -m online_demo.compile --target raspberrypi4 -o pi4.so        a board's CPU, by cross compiler
    python -m online_demo.compile --target jetson-orin -o orin.tar       a Jetson's GPU: objects and CUDA source
    python -m online_demo.compile --tune 2000                            search for faster loops first (half an hour)

Beside a library comes a check file: `python tvm_runtime.py LIBRARY` compares, on the board, with PyTorch's scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from online_demo.onnx_file import check_torch
from ops.common.errors import InputError, at_least, positive, run_command

if importlib.util.find_spec("torch") is None:
    run_command(check_torch)  # a line, in place of the traceback of the next imports

import numpy as np

from online_demo.backends.torch_backend import TorchBackend
from online_demo.backends.tvm_build import (
    RECORD_FILES,
    TUNING_FOLDER,
    check_host_compiler,
    compile_module,
    find_cross_compiler,
    find_record,
    import_step,
    import_tvm,
    is_record,
    lower,
    make_target,
    tvm_errors,
)
from online_demo.backends.tvm_runtime import run_check, write_check
from online_demo.backends.tvm_targets import TARGETS, TargetSpec, find_target
from online_demo.model import DemoModel, load_model
from online_demo.network import THRESHOLD
from online_demo.torch_network import write_onnx
from ops.common.files import atomic_path, atomic_write_text

NUM_CHECK_FRAMES = 10


def export_options(spec: TargetSpec, path: Path) -> dict[str, Any]:
    """TVM's options to write a shared library (.so), or its objects (.tar); InputError without a compiler to link."""
    if path.suffix == ".tar":
        return {"fcompile": import_tvm().support.tar.tar}
    if spec.is_host:
        check_host_compiler()
        return {}
    return {"cc": find_cross_compiler()}


def cuda_source(module: Any) -> str:
    """The CUDA source of every kernel in a compiled module and in those that it imports."""
    own = module.inspect_source() if module.kind == "cuda" else ""
    return own + "".join(cuda_source(imported) for imported in module.imports)


def make_check(model: DemoModel, path: Path) -> None:
    """Write frames of random noise and PyTorch's scores of them, with the state fed back."""
    backend = TorchBackend(model)
    frames = np.random.default_rng(0).standard_normal((NUM_CHECK_FRAMES, *model.info.frame_shape[1:]))
    frames = frames.astype(np.float16)
    state, scores = backend.init_state(), []
    for frame in frames:
        frame_scores, state = backend.step(frame[None].astype(np.float32), state)
        scores.append(frame_scores)
    with atomic_path(path) as temporary:
        write_check(temporary, frames, np.stack(scores), model.info.buffer_shapes)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m online_demo.compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="targets: " + "; ".join(f"{spec.name} ({spec.text})" for spec in TARGETS.values())
        + "; aarch64:CPU (any other 64-bit ARM board)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE", help="an online checkpoint, or an .onnx file of it (default: the repository's)"
    )
    parser.add_argument("--jester", action="store_true", help="the published gesture network")
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line (default: the checkpoint's)")
    parser.add_argument("--target", default="host", metavar="NAME", help="see below (default: host)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write: .onnx; .so, or .tar for objects"
    )
    onnx = parser.add_argument_group("an .onnx file")
    onnx.add_argument("--half", action="store_true", help="store weights in half precision: half the size")
    onnx.add_argument("--rate", type=positive, metavar="HZ", help="frames a second for the network (default: its own)")
    onnx.add_argument("--threshold", type=float, metavar="P", help="certainty below which an answer is unsure "
                      f"(default: {THRESHOLD:g}; tools/early_recognition.py measures it)")  # fmt: skip
    tuning = parser.add_argument_group("tuning (for the machine that it runs on)")
    tuning.add_argument("--tune", type=at_least(1), metavar="TRIALS", help="measure this many candidates first")
    tuning.add_argument("--trials-per-task", type=at_least(1), default=64, metavar="N", help="of these (%(default)s)")
    tuning.add_argument("--work-dir", type=Path, help="keep the search's files there (default: a temporary folder)")
    tuning.add_argument("--record", type=Path, metavar="FOLDER", help="record to use and to update "
                        "(default: online_demo/tuning/...)")  # fmt: skip
    tuning.add_argument("--untuned", action="store_true", help="use no record")
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> None:
    """Write the .onnx file that the options ask for."""
    model = load_model(args.weights, jester=args.jester, labels=args.labels, with_torch=True)
    changes = {"frame_rate": args.rate, "threshold": args.threshold}
    info = dataclasses.replace(model.info, **{name: value for name, value in changes.items() if value is not None})
    write_onnx(model.stream, info, args.output, half=args.half)
    print(
        f"wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB): {len(info.class_names)} classes, "
        f"{info.frame_rate:.3g} frames/s, unsure below {info.threshold:g}\n"
        f"anywhere, without PyTorch: python -m online_demo.main --weights {args.output}"
    )


def run_tuning(mod: Any, target: Any, args: argparse.Namespace, *, old_record: Path | None, new_record: Path) -> None:
    """Search, and keep the best loops of each task in the record."""
    from online_demo.backends.tvm_tuning import keep_best, start_from, tune

    with tempfile.TemporaryDirectory() as temporary:
        work_dir = args.work_dir or Path(temporary)
        start_from(old_record, work_dir)
        tune(mod, target, work_dir, num_trials=args.tune, trials_per_task=args.trials_per_task)
        count = keep_best(work_dir, new_record)
    print(f"{new_record}: the best loops of {count} tasks")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.output is not None and args.output.suffix == ".onnx":
        return export(args)
    spec = find_target(args.target)
    if args.tune and not spec.is_host:
        raise InputError(f"--tune measures on this machine, not on a {spec.name}: run it on the board, for host")
    if args.untuned and (args.tune or args.record):
        raise InputError("--untuned excludes --tune and --record")
    output = args.output or Path(f"tsm_{spec.name.replace(':', '_')}{'.tar' if spec.gpu else '.so'}")
    if output.suffix not in (".so", ".tar"):
        raise InputError(
            f"--output {output}: give a name that ends with .onnx, .so, or .tar for objects without linking"
        )
    options = export_options(spec, output)
    model = load_model(args.weights, jester=args.jester, with_torch=True)
    record = None if args.untuned else find_record(spec)
    if args.record is not None:
        record = args.record if is_record(args.record) else None
        if record is None and not args.tune:
            raise InputError(f"{args.record}: no folder with a tuning record ({', '.join(RECORD_FILES)})")

    target = make_target(spec)
    began = time.perf_counter()
    with tvm_errors(model, spec):
        mod = lower(import_step(model), target)
    if args.tune:
        new_record = args.record or TUNING_FOLDER / spec.tuning_name
        run_tuning(mod, target, args, old_record=record, new_record=new_record)
        record = new_record
    with tvm_errors(model, spec):
        executable = compile_module(mod, target, record)
    with atomic_path(output) as temporary:
        executable.export_library(str(temporary), **options)
    check = output.with_suffix(".npz")
    make_check(model, check)
    seconds = time.perf_counter() - began
    tuned = "untuned: many times slower than tuned" if record is None else f"with the tuning record {record}"
    print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB) and {check} in {seconds:.0f} s, {tuned}")
    if spec.gpu:
        source = output.with_suffix(".cu")
        text = cuda_source(executable.mod)
        atomic_write_text(source, text)
        print(
            f"wrote {source}: {text.count('__global__')} kernels for {target.attrs['arch']}. The library holds this "
            "source; only a TVM that was built with CUDA, on the board, can run it. It was never run on a Jetson."
        )
    elif spec.is_host and output.suffix == ".so":
        worst, num_frames, _ = run_check(output, check)
        print(f"checked on {num_frames} frames: differs from torch by {worst:.1e} of the largest score")
    else:
        print(f"on the board: python3 tvm_runtime.py {output.name} (copy it with {output.name} and {check.name})")


if __name__ == "__main__":
    run_command(main)
