"""Write the features before the classifier as .npz, of a data set's list or of single videos.

    python tools/extract_features.py CHECKPOINT features.npz --dataset jester             its validation list
    python tools/extract_features.py CHECKPOINT features.npz --dataset mine --list LIST --root_path FOLDER
    python tools/extract_features.py CHECKPOINT features.npz a.mp4 folder_of_frames --window 2

The file holds, a row for each clip (or segment, or window): `features` (R, D), pooled over height and width;
`names` (R,), paths of the videos; `labels` (R,), -1 where unknown; `times` (R, 2), first and last second.
A clip's features are the mean over its segments and views, which are those of evaluation (--test_crops and the like).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ops.checkpoint.file import load_checkpoint
from ops.common.distributed import init_from_env
from ops.common.errors import InputError, at_least, counted, run_command
from ops.common.files import atomic_path
from ops.data.loader import make_loader
from ops.data.sources import IO_KINDS, FrameFolder, VideoFile
from ops.dataset import TSNDataSet, load_clip
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.net import Net, Runtime, choose_views, load_net
from ops.opts import ShowDefaults
from pretrained.table import local_path
from tools.predict import FOLDER_FPS, frame_rate, make_windows, open_source, read_windows, window_frames


class Clip(NamedTuple):
    """What the network saw of a video or a window, and made of it.

    span: first frame, and the one after the last. frames: those of all test clips, (clips*T*L,). features: (views, T',
    D), crops outermost.
    """

    name: str
    label: int
    fps: float
    span: tuple[int, int]
    frames: np.ndarray
    features: Tensor


def segment_rows(net: Net, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Features (clips*T', D), the mean over the crops, and times (clips*T', 2) in seconds, of each segment."""
    num_clips = net.views.num_clips
    features = clip.features.unflatten(0, (-1, num_clips)).mean(dim=0)  # (clips, T', D)
    stacks = clip.frames.reshape(num_clips, net.options.num_segments, net.frame_length)
    stacks = stacks[:, :: -(-net.options.num_segments // features.shape[1])]  # a temporal pool keeps every second
    times = np.stack([stacks[..., 0], stacks[..., -1] + 1], axis=-1).reshape(-1, 2) / clip.fps
    return features.flatten(0, 1).numpy(), times


def clip_rows(net: Net, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Features (1, D), the mean over views and segments, and times (1, 2) in seconds."""
    return clip.features.mean(dim=(0, 1))[None].numpy(), np.array([clip.span]) / clip.fps


def clips_of_list(net: Net, dataset: TSNDataSet, fps: float, *, batch_size: int, workers: int) -> Iterator[Clip]:
    """Every video of a list, in its order; InputError for one that cannot be read."""
    for batch in make_loader(dataset, batch_size=batch_size, workers=workers, shuffle=False):
        if batch.failures:
            raise InputError(batch.failures[0])
        for index, features in zip(batch.indices.tolist(), net.features(batch.clips), strict=True):
            record = dataset.video_list[index]
            frames = dataset.sample_frames(record.num_frames, np.random.RandomState(0))  # test clips draw nothing
            yield Clip(record.path, record.label, fps, (0, record.num_frames), frames, features)


def clips_of_video(
    net: Net, name: str, source: VideoFile | FrameFolder, num_frames: int, fps: float, windows: Sequence[range]
) -> Iterator[Clip]:
    """The windows of one video, which is read once."""
    wanted = [window_frames(net, window) for window in windows]
    for window, frames, read in zip(windows, wanted, read_windows(source, wanted), strict=True):
        clip = load_clip(read, frames, net.transform, np.random.RandomState(0))
        yield Clip(name, -1, fps, (window.start, window.stop), frames, net.features(clip[None])[0])


def all_clips(net: Net, args: argparse.Namespace) -> Iterator[Clip]:
    """What the options ask for, video after video."""
    if args.dataset is not None:
        dataset = open_list(net, args)
        fps = args.fps or FOLDER_FPS
        clips = clips_of_list(net, dataset, fps, batch_size=args.batch_size, workers=args.workers)
        yield from tqdm(clips, total=len(dataset), desc="videos", disable=not sys.stderr.isatty())
        return
    for path in args.videos:
        source, num_frames = open_source(path, net, args.image_tmpl, args.image_backend)
        fps, windows = frame_rate(source, args.fps), [range(num_frames)]
        if args.window is not None:
            stride = args.stride or args.window / 2
            windows = make_windows(num_frames, max(1, round(args.window * fps)), max(1.0, stride * fps))
        yield from clips_of_video(net, path, source, num_frames, fps, windows)


def open_list(net: Net, args: argparse.Namespace) -> TSNDataSet:
    """The data set that the options name."""
    known = net.options.image_tmpl if net.options.dataset == args.dataset else None
    num_class = args.num_class or (None if args.dataset in DATASETS else net.num_class)
    options = DataOptions(
        root_dataset=args.root_dataset,
        root_path=args.root_path,
        val_list=args.list,
        num_class=num_class,
        image_tmpl=args.image_tmpl or known,
        split=args.split,
        io=args.io,
    )
    paths = resolve_dataset(args.dataset, net.options.modality, options)
    return net.dataset(paths, io=args.io, image_backend=args.image_backend, num_class=paths.num_classes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=lambda prog: ShowDefaults(prog, max_help_position=28)
    )
    parser.add_argument("checkpoint", help="checkpoint, or a published name")
    parser.add_argument("output", metavar="OUT.npz", help="file to write")
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="video files, or folders of frames")
    parser.add_argument("--per", choices=("clip", "segment"), default="clip", help="what a row is of")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut videos into windows, each its own clip")
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from one window to the next (default: half a window)"
    )
    parser.add_argument("--fps", type=float, help="frames a second (default: the video file's own; 25 for frames)")
    parser.add_argument("--num_segments", type=at_least(1), help="frames a clip (default: as trained)")
    parser.add_argument("--input_size", type=at_least(1), help="side of a crop in pixels (default: as trained)")
    parser.add_argument("--test_crops", type=int, choices=(1, 3, 5, 10), help="crops of each frame (default: 1)")
    parser.add_argument("--full_res", action="store_true", help="crops as high as the frame, 256 pixels instead of 224")
    parser.add_argument("--dense_sample", action="store_true", help="10 dense clips instead of 1")
    parser.add_argument("--twice_sample", action="store_true", help="2 uniform clips instead of 1")
    data = parser.add_argument_group("data set")
    data.add_argument("--dataset", metavar="NAME", help="name in ops/dataset_config.py, or your own")
    data.add_argument("--list", metavar="FILE", help="its list (default: the data set's validation list)")
    data.add_argument("--root_dataset", help="folder of all data sets (default: $TSM_DATA_ROOT, else data/)")
    data.add_argument("--root_path", help="folder that list paths are relative to (default: the data set's own)")
    data.add_argument("--num_class", type=at_least(1), help="labels in a list of your own (default: the net's)")
    data.add_argument("--image_tmpl", help="name of a frame (default: the checkpoint's, else the data set's own)")
    data.add_argument("--split", type=int, default=1, help="split of UCF101 / HMDB51")
    data.add_argument("--io", choices=IO_KINDS, default="frames", help="what to read")
    run = parser.add_argument_group("run")
    run.add_argument(
        "--image_backend", choices=("torchvision", "pillow"), default="torchvision", help="decode and resize with"
    )
    run.add_argument("--batch_size", type=at_least(1), default=8, help="videos at once")
    run.add_argument("-j", "--workers", type=at_least(0), default=2, help="processes that load")
    run.add_argument("--gpus", nargs="+", type=int, help="CUDA device to use (default: the first; else the CPU)")
    return parser


def _check(args: argparse.Namespace) -> None:
    if (args.dataset is not None) == bool(args.videos):
        raise InputError("give videos, or a data set with --dataset NAME, not both")
    for name in ("window", "stride", "fps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} must be more than 0, got {value:g}")
    if args.stride is not None and args.window is None:
        raise InputError("--stride goes with --window SECONDS")
    if args.window is not None and args.dataset is not None:
        raise InputError("--window is for videos, not for a data set's list")


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    _check(args)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    views = choose_views(
        None, num_crops=args.test_crops, dense=args.dense_sample, twice=args.twice_sample, full_res=args.full_res
    )
    net = load_net(
        load_checkpoint(local_path(args.checkpoint)),
        views=views,
        runtime=Runtime(init_from_env(args.gpus).device),
        num_segments=args.num_segments,
        input_size=args.input_size,
    )
    rows = segment_rows if args.per == "segment" else clip_rows
    with atomic_path(args.output) as temporary:  # first of all: it says at once if nothing can be written there
        features, times, names, labels = [], [], [], []
        for clip in all_clips(net, args):
            clip_features, clip_times = rows(net, clip)
            features.append(clip_features)
            times.append(clip_times)
            names += [clip.name] * len(clip_times)
            labels += [clip.label] * len(clip_times)
        arrays = {"features": np.concatenate(features), "times": np.concatenate(times)}
        with temporary.open("wb") as file:
            np.savez(file, **arrays, names=np.array(names), labels=np.array(labels, dtype=np.int64))
    num_rows, width = arrays["features"].shape
    print(f"wrote {args.output}: {counted(num_rows, 'row')} of {width} features, by {net}")


if __name__ == "__main__":
    run_command(main)
