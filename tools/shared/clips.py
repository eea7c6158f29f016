"""Single videos as test clips, whole or in windows: what predict and extract_features share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ops.checkpoint.file import load_checkpoint
from ops.common.distributed import init_from_env
from ops.common.errors import InputError, at_least, positive
from ops.data.sampling import stack_indices, test_indices
from ops.data.sources import DEFAULT_FPS, DEFAULT_TMPL, Frame, FrameFolder, VideoFile
from ops.dataset_config import DATASETS
from ops.evaluation.net import Net, Runtime, choose_views, load_net
from pretrained.table import local_path


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


def frame_times(source: VideoFile | FrameFolder, fps: float | None, num_frames: int | None = None) -> np.ndarray:
    """Seconds from the first frame to each frame and to the last one's end, (N + 1,): the file's own, or by a rate.

    fps: the rate; None is a file's own, and 25 of a folder. num_frames: N at most, as a list has it.
    """
    if fps is None and isinstance(source, VideoFile):
        return np.array(source.frame_times())[: None if num_frames is None else num_frames + 1]
    return np.arange((num_frames or source.count_frames()) + 1) / (fps or DEFAULT_FPS)


def make_windows(times: np.ndarray, window_s: float | None, stride_s: float | None) -> list[range]:
    """Frames of windows every `stride_s`; the last one ends with the video, so that no frame is left out.

    times: see `frame_times`; windows start and end at the nearest of them, and hold one frame at least. window_s: None
    is the whole video. stride_s: None is half a window.
    Example: 10 frames, one a second, windows of 4 s every 4 s -> [0, 4), [4, 8), [6, 10).
    """
    num_frames, end = len(times) - 1, times[-1]
    if window_s is None:
        return [range(num_frames)]
    stride_s = max(window_s / 2 if stride_s is None else stride_s, end / num_frames)
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


class _Frames:
    """Frames that are decoded already."""

    def __init__(self, frames: dict[int, Frame]) -> None:
        self.frames = frames

    def read(self, indices: Sequence[int]) -> list[Frame]:
        return [self.frames[int(index)] for index in indices]


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


# --- options ----------------------------------------------------------------------------------------------------------


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """The options of a network, its views, and windows; `load_net_for` and `make_windows` take them."""
    parser.add_argument("--num_segments", type=at_least(1), help="frames a clip (default: as trained)")
    parser.add_argument("--window", type=positive, metavar="SECONDS", help="cut videos into windows, each its own clip")
    parser.add_argument(
        "--stride", type=positive, metavar="SECONDS", help="from one window to the next (default: half a window)"
    )
    parser.add_argument("--fps", type=positive, help="frames a second (default: the video file's own; 25 for a folder)")
    parser.add_argument("--image_tmpl", help="name of a frame (default: the checkpoint's, else the data set's)")
    parser.add_argument("--test_crops", type=int, choices=(1, 3, 5, 10), help="crops of each frame (default: 1)")
    parser.add_argument("--full_res", action="store_true", help="crops as high as the frame, 256 pixels instead of 224")
    parser.add_argument("--dense_sample", action="store_true", help="10 dense clips instead of 1")
    parser.add_argument("--twice_sample", action="store_true", help="2 uniform clips instead of 1")
    parser.add_argument(
        "--input_size", type=at_least(1), help="side of a crop in pixels (default: the checkpoint's, else 224)"
    )
    parser.add_argument(
        "--image_backend", choices=("torchvision", "pillow"), default="torchvision", help="decode and resize with"
    )
    parser.add_argument("--gpus", nargs="+", type=int, help="CUDA device to use (default: the first; else the CPU)")


def load_net_for(args: argparse.Namespace, weights: str) -> Net:
    """The network of a checkpoint, or a published name, with the views that the options ask for."""
    if args.stride is not None and args.window is None:
        raise InputError("--stride goes with --window SECONDS")
    return load_net(
        load_checkpoint(local_path(weights)),
        views=choose_views(
            None, num_crops=args.test_crops, dense=args.dense_sample, twice=args.twice_sample, full_res=args.full_res
        ),
        runtime=Runtime(init_from_env(args.gpus).device),
        num_segments=args.num_segments,
        input_size=args.input_size,
    )
