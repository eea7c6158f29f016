"""Classify a video: python tools/predict.py VIDEO --weights CKPT

VIDEO is a video file, or a folder of frames. It goes through the same pipeline as in evaluation. With --window a long
video is classified in windows, a line each.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from ops.checkpoint.file import load_checkpoint
from ops.common.class_names import read_class_names
from ops.common.distributed import init_from_env
from ops.common.errors import InputError, counted, run_command
from ops.data.ffmpeg import naming, open_video
from ops.data.sampling import stack_indices, test_indices
from ops.data.sources import DEFAULT_TMPL, Frame, FrameFolder, VideoFile
from ops.dataset import load_clip
from ops.dataset_configs import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.net import Net, Runtime, choose_views, load_net
from ops.evaluation.plots import class_names_or_numbers
from ops.opts import ShowDefaults
from pretrained.table import local_path

FOLDER_FPS = 25.0


class _Frames:
    """Frames that are decoded already."""

    def __init__(self, frames: dict[int, Frame]) -> None:
        self.frames = frames

    def read(self, indices: Sequence[int]) -> list[Frame]:
        return [self.frames[int(index)] for index in indices]


def make_windows(num_frames: int, window_frames: int, stride_frames: float) -> list[range]:
    """Frames of windows every `stride_frames`; the last one ends with the video, so that no frame is left out.

    Example: 10 frames, windows of 4 every 4 -> [0, 4), [4, 8), [6, 10).
    """
    last = max(0, num_frames - window_frames)
    starts = [round(stride_frames * number) for number in range(int(last / stride_frames + 1e-6) + 1)]
    if starts[-1] < last and starts[-1] + window_frames < num_frames:
        starts.append(last)
    return [range(start, min(start + window_frames, num_frames)) for start in starts]


def window_frames(net: Net, window: range) -> np.ndarray:
    """0-based frames of all clips of a window, stacks written out, sampled as in evaluation."""
    views, num_frames = net.views, len(window)
    starts = test_indices(num_frames, net.options.num_segments, net.frame_length, dense=views.dense, twice=views.twice)
    return window.start + stack_indices(starts, net.frame_length, num_frames)


def read_windows(source: VideoFile | FrameFolder, wanted: Sequence[np.ndarray]) -> Iterator[_Frames | FrameFolder]:
    """A source for each window's frames. A video file is decoded once, keeping only what later windows need."""
    if isinstance(source, FrameFolder) or len(wanted) == 1:
        yield from (source for _ in wanted)
        return
    needed = np.unique(np.concatenate(wanted)).tolist()
    stream = source.read_through(needed)
    kept: dict[int, Frame] = {}
    for frames in wanted:
        kept = {index: frame for index, frame in kept.items() if index >= frames.min()}
        while not kept or max(kept) < frames.max():
            index, frame = next(stream)
            kept[index] = frame
        yield _Frames(kept)


def open_source(path: str, net: Net, image_tmpl: str | None, backend: str) -> tuple[VideoFile | FrameFolder, int]:
    """The frames of a video file or folder, and how many there are; InputError for neither, or without a frame."""
    modality = net.options.modality
    if not Path(path).is_dir():
        source = VideoFile(path, modality, backend, threads=0)
        problem = "a video without frames"
    else:
        known = DATASETS.get(net.options.dataset)
        known_tmpl = None if known is None else known.flow_tmpl if modality == "Flow" else known.image_tmpl
        image_tmpl = image_tmpl or net.options.image_tmpl or known_tmpl or DEFAULT_TMPL
        source = FrameFolder(path, image_tmpl, modality, backend)
        problem = f"no frames called {Path(source.paths(0)[0]).name} and so on; give their names with --image_tmpl"
    num_frames = source.count_frames()
    if num_frames == 0:
        raise InputError(f"{path}: {problem}")
    return source, num_frames


def frame_rate(source: VideoFile | FrameFolder, fps: float | None) -> float:
    """Frames a second: as given, else as the file says, else 25."""
    if fps is not None or isinstance(source, FrameFolder):
        return fps or FOLDER_FPS
    with open_video(source.path) as container, naming(source.path):
        return float(container.streams.video[0].average_rate or FOLDER_FPS)


def find_class_names(labels: str | None, net: Net) -> list[str]:
    """Names from a file, else the checkpoint's, else the data set's, else numbers."""
    if labels is not None:
        names = read_class_names(labels)
        if len(names) != net.num_class:
            raise InputError(
                f"{labels} has {counted(len(names), 'name')}, the net {counted(net.num_class, 'class', 'classes')}: "
                "give a line for each class"
            )
        return names
    names = net.options.class_names
    if names is None and net.options.dataset in DATASETS:
        names = resolve_dataset(
            net.options.dataset, net.options.modality, DataOptions(num_class=net.num_class)
        ).class_names
    return class_names_or_numbers(names, net.num_class)


def best_classes(net: Net, clip: torch.Tensor, names: Sequence[str], topk: int) -> list[dict[str, object]]:
    """The most likely classes of a clip (crops*clips*T*C, H, W), best first."""
    probabilities = net.scores(clip.unsqueeze(0))[0].softmax(dim=0)
    values, classes = probabilities.topk(min(topk, net.num_class))
    return [
        {"class": index, "name": names[index], "probability": value}
        for value, index in zip(values.tolist(), classes.tolist(), strict=True)
    ]


def time_stamp(seconds: float) -> str:
    """63.5 -> '00:01:03.50'."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("video", help="video file, or folder of frames")
    parser.add_argument("--weights", required=True, help="checkpoint, or a published name")
    parser.add_argument("--topk", type=int, default=5, help="classes to print, best first")
    parser.add_argument("--num_segments", type=int, help="frames a clip (default: as trained)")
    parser.add_argument("--labels", help="class names, a line each (default: the checkpoint's)")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="classify windows of this length")
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from one window to the next (default: half a window)"
    )
    parser.add_argument("--fps", type=float, help="frames a second (default: the file's own; 25 for a folder)")
    parser.add_argument("--image_tmpl", help="name of a frame (default: the checkpoint's, else the data set's)")
    parser.add_argument("--test_crops", type=int, choices=(1, 3, 5, 10), help="crops of each frame (default: 1)")
    parser.add_argument("--full_res", action="store_true", help="crops as high as the frame, 256 pixels instead of 224")
    parser.add_argument("--dense_sample", action="store_true", help="10 dense clips instead of 1")
    parser.add_argument("--twice_sample", action="store_true", help="2 uniform clips instead of 1")
    parser.add_argument("--input_size", type=int, help="side of a crop in pixels (default: the checkpoint's, else 224)")
    parser.add_argument(
        "--image_backend", choices=("torchvision", "pillow"), default="torchvision", help="decode and resize with"
    )
    parser.add_argument("--gpus", nargs="+", type=int, help="CUDA device to use (default: the first; else the CPU)")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    return parser


def _check(args: argparse.Namespace) -> None:
    for name in ("topk", "num_segments", "window", "stride", "fps", "input_size"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} must be more than 0, got {value:g}")
    if args.stride is not None and args.window is None:
        raise InputError("--stride goes with --window SECONDS")


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    _check(args)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    views = choose_views(
        None, num_crops=args.test_crops, dense=args.dense_sample, twice=args.twice_sample, full_res=args.full_res
    )
    net = load_net(
        load_checkpoint(local_path(args.weights)),
        views=views,
        runtime=Runtime(init_from_env(args.gpus).device),
        num_segments=args.num_segments,
        input_size=args.input_size,
    )
    names = find_class_names(args.labels, net)
    source, num_frames = open_source(args.video, net, args.image_tmpl, args.image_backend)
    fps = frame_rate(source, args.fps)
    windows = [range(num_frames)]
    if args.window is not None:
        stride = args.stride if args.stride is not None else args.window / 2
        windows = make_windows(num_frames, max(1, round(args.window * fps)), max(1.0, stride * fps))
    if not args.json:
        print(f"{args.video}: {counted(num_frames, 'frame')} at {fps:g} a second, {net}")
    wanted = [window_frames(net, window) for window in windows]
    rng = np.random.RandomState(0)  # the test transforms draw nothing from it
    for window, frames, window_source in zip(windows, wanted, read_windows(source, wanted), strict=True):
        best = best_classes(net, load_clip(window_source, frames, net.transform, rng), names, args.topk)
        start, end = window.start / fps, window.stop / fps
        if args.json:
            print(json.dumps({"video": args.video, "start": start, "end": end, "predictions": best}), flush=True)
        elif args.window is None:
            for rank, row in enumerate(best, 1):
                print(f"{rank:>3}  {100 * row['probability']:>6.2f}%  {row['name']}")
        else:
            answer = ", ".join(f"{100 * row['probability']:.1f}% {row['name']}" for row in best)
            print(f"{time_stamp(start)} - {time_stamp(end)}  {answer}", flush=True)


if __name__ == "__main__":
    run_command(main)
