"""Classify videos: python tools/predict.py VIDEO [VIDEO ...] --weights CKPT

A VIDEO is a video file, or a folder of frames. It goes through the same pipeline as in evaluation. With --window a long
video is classified in windows, a line each. Of several, one that cannot be read is reported, and the others follow; the
exit status is 1 then.
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
from ops.common.errors import InputError, counted, escaped, run_command
from ops.data.sampling import stack_indices, test_indices
from ops.data.sources import DEFAULT_FPS, DEFAULT_TMPL, Frame, FrameFolder, VideoFile
from ops.dataset import load_clip
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.net import Net, Runtime, choose_views, load_net
from ops.evaluation.tables import class_names_or_numbers
from ops.opts import ShowDefaults
from pretrained.table import local_path


class _Frames:
    """Frames that are decoded already."""

    def __init__(self, frames: dict[int, Frame]) -> None:
        self.frames = frames

    def read(self, indices: Sequence[int]) -> list[Frame]:
        return [self.frames[int(index)] for index in indices]


def make_windows(times: np.ndarray, window_s: float, stride_s: float) -> list[range]:
    """Frames of windows every `stride_s`; the last one ends with the video, so that no frame is left out.

    times: see `frame_times`; windows start and end at the nearest of them, and hold one frame at least.
    Example: 10 frames, one a second, windows of 4 s every 4 s -> [0, 4), [4, 8), [6, 10).
    """
    num_frames, end = len(times) - 1, times[-1]
    stride_s = max(stride_s, end / num_frames)
    last = max(0.0, end - window_s)
    starts = [stride_s * number for number in range(int(last / stride_s + 1e-6) + 1)]
    if starts[-1] < last and starts[-1] + window_s < end:
        starts.append(last)
    firsts = [min(_nearest(times, start), num_frames - 1) for start in starts]
    stops = [max(first + 1, _nearest(times, times[first] + window_s)) for first in firsts[:-1]]
    if stride_s <= window_s:  # leave no frame out at a pause either
        stops = [max(stop, following) for stop, following in zip(stops, firsts[1:], strict=True)]
    windows = (range(first, stop) for first, stop in zip(firsts, [*stops, num_frames], strict=True))
    return list(dict.fromkeys(windows))  # each once, in order


def _nearest(times: np.ndarray, time: float) -> int:
    return int(np.abs(times - time).argmin())


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


def open_source(path: str, net: Net, image_tmpl: str | None, backend: str) -> VideoFile | FrameFolder:
    """The frames of a video file or folder; InputError for a folder without any."""
    modality = net.options.modality
    if not Path(path).is_dir():
        return VideoFile(path, modality, backend, threads=0)
    known = DATASETS.get(net.options.dataset)
    known_tmpl = None if known is None else known.flow_tmpl if modality == "Flow" else known.image_tmpl
    image_tmpl = image_tmpl or net.options.image_tmpl or known_tmpl or DEFAULT_TMPL
    source = FrameFolder(path, image_tmpl, modality, backend)
    if not source.count_frames():
        name = Path(source.paths(0)[0]).name
        raise InputError(f"{path}: no frames called {name} and so on; give their names with --image_tmpl")
    return source


def frame_times(source: VideoFile | FrameFolder, fps: float | None) -> np.ndarray:
    """Seconds from the first frame to each frame and to the last one's end, (N + 1,): the file's own, or by a rate.

    The rate is `fps`; without it, that of a folder is 25 frames a second.
    """
    if fps is None and isinstance(source, VideoFile):
        return np.array(source.frame_times())
    return np.arange(source.count_frames() + 1) / (fps or DEFAULT_FPS)


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
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video file, or folder of frames")
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
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line: a video, or a window of it")
    return parser


def _check(args: argparse.Namespace) -> None:
    for name in ("topk", "num_segments", "window", "stride", "fps", "input_size"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} must be more than 0, got {value:g}")
    if args.stride is not None and args.window is None:
        raise InputError("--stride goes with --window SECONDS")


def main(argv: Sequence[str] | None = None) -> int:
    """Classify each video; returns 1 if one of several could not be read."""
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
    failed = 0
    for path in args.videos:
        try:
            predict(path, net, names, args)
        except InputError as error:
            if len(args.videos) == 1:
                raise
            failed += 1
            print(f"predict.py: error: {escaped(' '.join(str(error).split()))}", file=sys.stderr, flush=True)
    if failed:
        print(f"{failed} of {counted(len(args.videos), 'video')} could not be read", file=sys.stderr)
    return int(failed > 0)


def predict(path: str, net: Net, names: Sequence[str], args: argparse.Namespace) -> None:
    """Classify a video and print the answer; InputError if it cannot be read."""
    source = open_source(path, net, args.image_tmpl, args.image_backend)
    times = frame_times(source, args.fps)
    num_frames = len(times) - 1
    windows = [range(num_frames)]
    if args.window is not None:
        windows = make_windows(times, args.window, args.stride if args.stride is not None else args.window / 2)
    if not args.json:
        print(f"{path}: {counted(num_frames, 'frame')} at {num_frames / times[-1]:g} a second, {net}")
    wanted = [window_frames(net, window) for window in windows]
    rng = np.random.RandomState(0)  # the test transforms draw nothing from it
    for window, frames, window_source in zip(windows, wanted, read_windows(source, wanted), strict=True):
        best = best_classes(net, load_clip(window_source, frames, net.transform, rng), names, args.topk)
        start, end = float(times[window.start]), float(times[window.stop])
        if args.json:
            print(json.dumps({"video": path, "start": start, "end": end, "predictions": best}), flush=True)
        elif args.window is None:
            for rank, row in enumerate(best, 1):
                print(f"{rank:>3}  {100 * row['probability']:>6.2f}%  {row['name']}")
        else:
            answer = ", ".join(f"{100 * row['probability']:.1f}% {row['name']}" for row in best)
            print(f"{time_stamp(start)} - {time_stamp(end)}  {answer}", flush=True)


if __name__ == "__main__":
    run_command(main)
