"""Do all backends compute the same, over a long stream with the state fed back? python -m online_demo.compare_backends

Each backend takes the frames of a video, repeated until there are enough of them, and is compared with PyTorch frame by
frame. Exit status 1 if scores differ by more than rounding, or the best class of any frame differs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from online_demo.backends.base import compare
from online_demo.backends.choose import BACKENDS, MAX_DIFFERENCE, make_backend
from online_demo.backends.torch_backend import TorchBackend
from online_demo.camera.sources import Source, open_source, used_frames
from online_demo.model import DemoModel, load_model
from ops.common.errors import InputError, at_least, run_command


def endless_inputs(model: DemoModel, source: Source) -> Iterator[np.ndarray]:
    """Network inputs of a video that repeats for ever."""
    while True:
        yield from map(model.preprocess, used_frames(source))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m online_demo.compare_backends",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", default="sample", help="a video file or a folder of frames (%(default)s)")
    parser.add_argument("--frames", type=at_least(1), default=300, metavar="N", help="%(default)s")
    parser.add_argument("--weights", metavar="FILE", help="an online checkpoint (default: the repository's)")
    parser.add_argument("--jester", action="store_true", help="the published gesture network")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    parser.add_argument("--library", type=Path, metavar="FILE", help="for tvm: made by online_demo/compile.py")
    parser.add_argument("--threads", type=at_least(1), help="to compute with (default: the backend's choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    model = load_model(args.weights, jester=args.jester)
    source = open_source(args.source)
    if source.live:
        raise InputError(f"--source {args.source}: give a video file or a folder of frames, the same for all backends")
    exact = TorchBackend(model, threads=args.threads)
    good = True
    for name in args.backends or BACKENDS:
        if name == "torch":
            continue  # what the others are compared with
        try:
            backend = make_backend(name, model, threads=args.threads, library=args.library if name == "tvm" else None)
        except InputError as error:
            if args.backends:
                raise
            print(f"{name} is left out: {error}")
            continue
        found = compare(exact, backend, [itertools.islice(endless_inputs(model, source), args.frames)])
        good &= found.worst <= MAX_DIFFERENCE and found.num_same == found.num_frames
        print(
            f"{name}: differs from torch by {found.worst:.1e} of the largest score at most, same best class on "
            f"{found.num_same} of {found.num_frames} frames",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    run_command(main)
