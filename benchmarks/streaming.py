"""Latency of a streaming frame: every backend against eager PyTorch, and against running the clip again for each frame.

python -m benchmarks.streaming [--weights CKPT] [--threads 1 2] [--backends torch onnxruntime tvm] [--quick]

Each number of threads has a process of its own. There, the cases take turns: in every round each runs a few frames, its
state fed back, and the first frames of its turn, which warm caches and threads, are not counted. All get the same
frames, and the scores of the backends are compared with eager PyTorch's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import check_device, print_table
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.streaming_layout import streaming_options
from ops.checkpoint.weights import load_into, published_state_dict
from ops.common.errors import InputError, at_least, counted, run_command
from ops.models import TSN, build_model
from ops.opts import ShowDefaults
from ops.streaming import StreamingTSM
from pretrained.table import local_path

EAGER = "torch eager"
UNCOUNTED = 3  # frames at the start of a turn

# Normalised (1, 3, H, W) float32 -> scores (K,); keeps its own state.
Step = Callable[[np.ndarray], np.ndarray]


@dataclass
class Case:
    """A way to get the scores of the newest frame. `exact`: it computes the same scores as eager PyTorch."""

    name: str
    step: Step
    exact: bool = True
    seconds: list[float] = field(default_factory=list)
    worst: float = 0.0  # difference from eager PyTorch, relative to the largest score
    same_best: int = 0

    def milliseconds(self, percent: float) -> float:
        return 1e3 * float(np.percentile(self.seconds, percent))


def random_checkpoint(path: Path) -> None:
    """The streaming model of the published demo with random weights, its BatchNorms as after training."""
    options = ModelOptions("jester", arch="mobilenetv2", num_class=27, is_shift=True, online=True)
    torch.manual_seed(0)
    model = build_model(options, partial_bn=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(1, 8, 3, 224, 224))  # statistics that fit, so that activations are neither 0 nor huge
    torch.nn.init.normal_(model.classifier.weight, 0, 0.05)
    save_checkpoint({"state_dict": published_state_dict(model), "options": options.to_dict()}, path)


def load_clip_network(path: Path) -> TSN:
    """The same weights as the network that takes clips."""
    checkpoint = load_checkpoint(path)
    model = build_model(streaming_options(checkpoint), num_class=checkpoint.num_class, partial_bn=False)
    load_into(model, checkpoint)
    return model.eval().requires_grad_(False)


def with_state(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, convert: Callable = np.asarray) -> Step:
    """A step that keeps its state. `convert`: what it takes from a frame."""

    def run(frame: np.ndarray) -> np.ndarray:
        nonlocal state
        scores, state = step(convert(frame), state)
        return np.asarray(scores.cpu() if isinstance(scores, Tensor) else scores).reshape(-1)

    return run


def clip_step(model: TSN) -> Step:
    """Eager PyTorch on the newest frames as a clip, all of it again for each new one."""
    newest: deque[Tensor] = deque(maxlen=model.num_segments)
    device = next(model.parameters()).device

    @torch.no_grad()
    def step(frame: np.ndarray) -> np.ndarray:
        newest.append(torch.from_numpy(frame).to(device))
        while len(newest) < model.num_segments:
            newest.append(newest[-1])
        return model.frame_scores(torch.cat(tuple(newest)).unsqueeze(0))[0, -1].cpu().numpy()

    return step


def demo_cases(path: Path, wanted: Sequence[str] | None, threads: int) -> tuple[list[Case], list[str]]:
    """The online demo's backends, and a line on each that cannot run here."""
    try:
        backends = importlib.import_module("online_demo.backends.choose")
        model = importlib.import_module("online_demo.model").load_model(path, with_torch=True)
    except ImportError as error:
        return [], [f"the demo's backends are left out: {error}"]
    cases, left_out = [], []
    for name in wanted or backends.BACKENDS:
        try:
            backend = backends.make_backend(name, model, threads=threads, report=lambda line: None)
        except InputError as error:
            if wanted:
                raise
            left_out.append(f"{name} is left out: {error}")
            continue
        label = "torch, BatchNorm folded" if name == "torch" else name
        cases.append(Case(label, with_state(backend.step, backend.init_state())))
    return cases, left_out


def run_rounds(cases: Sequence[Case], frames: np.ndarray, *, turn: int) -> None:
    """Every case takes all frames (F, 1, 3, H, W), `turn` of them at a time, in turns; the first case is the reference.

    Fills `seconds`, `worst` and `same_best`.
    """
    for start in range(0, len(frames), turn):
        # The order rotates, so that no case always runs after the same other.
        first = start // turn % len(cases)
        scores: dict[int, list[np.ndarray]] = {}
        for number in [*range(first, len(cases)), *range(first)]:
            case, scores[number] = cases[number], []
            for index, frame in enumerate(frames[start : start + turn]):
                began = perf_counter()
                result = case.step(frame)
                elapsed = perf_counter() - began
                scores[number].append(result)
                if index >= UNCOUNTED:
                    case.seconds.append(elapsed)
        for number, case in enumerate(cases):
            for given, wanted in zip(scores[number], scores[0], strict=True):
                case.worst = max(case.worst, float(np.abs(given - wanted).max() / np.abs(wanted).max()))
                case.same_best += int(given.argmax() == wanted.argmax())


def make_rows(cases: Sequence[Case], num_frames: int) -> list[list[str]]:
    """A row a case: name, milliseconds, speed against the two references, agreement."""
    eager, clip = cases[0], cases[1]
    rows = []
    for case in cases:
        median = statistics.median(case.seconds)
        rows.append(
            [
                case.name,
                f"{case.milliseconds(50):.2f}",
                f"{case.milliseconds(95):.2f}",
                f"{statistics.median(eager.seconds) / median:.2f}x",
                f"{statistics.median(clip.seconds) / median:.1f}x",
                f"{case.worst:.0e}" if case.exact else "-",
                f"{case.same_best}/{num_frames}" if case.exact else "-",
            ]
        )
    return rows


def measure(args: argparse.Namespace, path: Path, threads: int) -> None:
    """Measure with this many threads in this process, and print the table."""
    torch.set_num_threads(threads)
    model = load_clip_network(path).to(args.device)
    stream = StreamingTSM(model, streaming_options(load_checkpoint(path)))
    size = stream.input_size

    def on_device(frame: np.ndarray) -> Tensor:
        return torch.from_numpy(frame).to(args.device)

    cases = [
        Case(EAGER, with_state(stream.step, stream.init_state(1, size, size), on_device)),
        # Its first frame has nothing of those before the clip: close to the stream's scores, but not the same.
        Case(f"torch eager, the {model.num_segments}-frame clip again", clip_step(model), exact=False),
    ]
    backends, left_out = demo_cases(path, args.backends, threads)
    cases += backends
    rng = np.random.default_rng(0)
    start, drift = rng.standard_normal((2, 1, 3, size, size), dtype=np.float32)
    frames = np.stack([start + 0.1 * index * drift for index in range(args.turn)])
    frames = np.tile(frames, (args.rounds, 1, 1, 1, 1))
    run_rounds(cases, frames, turn=args.turn)
    print_table(
        f"A frame of {size}x{size}, {counted(threads, 'thread')}",
        ("backend", "median ms", "p95 ms", "vs eager", "vs clip again", "differs by", "same arg max"),
        make_rows(cases, len(frames)),
        note="\n".join([f"{args.rounds} rounds of {args.turn} frames, interleaved.", *left_out]),
        device=args.device,
    )


def run_for_threads(argv: Sequence[str], threads: int) -> None:
    """This benchmark in a process of its own: some libraries read their number of threads when they are imported."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks.streaming", *argv, "--threads", str(threads), "--here"]
    project = Path(__file__).resolve().parents[1]
    status = subprocess.run(command, env={**os.environ, **variables}, cwd=project).returncode
    if status:
        sys.exit(status)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("--weights", help="online checkpoint (default: a random MobileNetV2 of 27 classes, 224 px)")
    parser.add_argument("--threads", type=at_least(1), nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--backends", nargs="+", help="of online_demo (default: all that run here)")
    parser.add_argument("--rounds", type=at_least(1), default=20, help="turns of each case")
    parser.add_argument(
        "--turn", type=at_least(UNCOUNTED + 1), default=15, help=f"frames a turn, {UNCOUNTED} of them uncounted"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the rows in eager PyTorch")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 5 frames: to see that it runs")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    check_device(args.device)
    if args.quick:
        args.rounds, args.turn = 2, 5
    return args


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if not args.here:
        for threads in args.threads:
            run_for_threads(argv, threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = local_path(args.weights) if args.weights else Path(folder) / "random_online.pth.tar"
        if not args.weights:
            random_checkpoint(path)
        measure(args, path, args.threads[0])


if __name__ == "__main__":
    run_command(main)
