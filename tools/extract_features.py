"""Write the features before the classifier as .npz, of a data set's list or of single videos.

    python tools/extract_features.py CHECKPOINT features.npz --dataset jester             its validation list
    python tools/extract_features.py CHECKPOINT features.npz --dataset mine --list LIST --root_path FOLDER
    python tools/extract_features.py CHECKPOINT features.npz a.mp4 folder_of_frames --window 2

The file holds, a row for each clip (or segment, or window): `features` (R, D), pooled over height and width;
`names` (R,), paths of the videos; `labels` (R,), -1 where unknown; `times` (R, 2), first and last second (of a
list's frame folders by the data set's rate, or --fps).
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

from ops.common.errors import InputError, at_least, counted, run_command
from ops.common.files import atomic_path
from ops.data.loader import make_loader
from ops.data.sources import IO_KINDS
from ops.dataset import TSNDataSet, load_clip
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.net import Net
from ops.opts import ShowDefaults
from tools.shared.clips import (
    add_clip_options,
    frame_times,
    load_net_for,
    make_windows,
    open_source,
    read_windows,
    window_frames,
)


class Clip(NamedTuple):
    """What the network saw of a video or a window, and made of it.

    times: see `frame_times`. window: frames of the clip. frames: those of all test clips, (clips*T*L,). features:
    (views, T', D), crops outermost.
    """

    name: str
    label: int
    times: np.ndarray
    window: range
    frames: np.ndarray
    features: Tensor


def segment_rows(net: Net, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Features (clips*T', D), the mean over the crops, and times (clips*T', 2) in seconds, of each segment."""
    num_clips = net.views.num_clips
    features = clip.features.unflatten(0, (-1, num_clips)).mean(dim=0)  # (clips, T', D)
    stacks = clip.frames.reshape(num_clips, net.options.num_segments, net.frame_length)
    stacks = stacks[:, :: -(-net.options.num_segments // features.shape[1])]  # a temporal pool keeps every second
    spans = np.stack([stacks[..., 0], stacks[..., -1] + 1], axis=-1).reshape(-1, 2)
    return features.flatten(0, 1).numpy(), clip.times[spans]


def clip_rows(net: Net, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Features (1, D), the mean over views and segments, and times (1, 2) in seconds."""
    return clip.features.mean(dim=(0, 1))[None].numpy(), clip.times[[[clip.window.start, clip.window.stop]]]


def clips_of_list(net: Net, args: argparse.Namespace) -> Iterator[Clip]:
    """Every video of a list, in its order; InputError for one that cannot be read."""
    dataset, fps = open_list(net, args)
    loader = make_loader(dataset, batch_size=args.batch_size, workers=args.workers, shuffle=False)
    with tqdm(total=len(dataset), desc="videos", disable=not sys.stderr.isatty()) as bar:
        for batch in loader:
            if batch.failures:
                raise InputError(batch.failures[0])
            for index, features in zip(batch.indices.tolist(), net.features(batch.clips), strict=True):
                record = dataset.video_list[index]
                frames = dataset.sample_frames(record.num_frames, np.random.RandomState(0))  # test clips draw nothing
                times = frame_times(dataset.open(record), fps, record.num_frames)
                yield Clip(record.path, record.label, times, range(len(times) - 1), frames, features)
                bar.update()


def clips_of_video(net: Net, path: str, args: argparse.Namespace) -> Iterator[Clip]:
    """The windows of one video, which is read once."""
    source = open_source(path, net, args.image_tmpl, args.image_backend)
    times = frame_times(source, args.fps)
    windows = make_windows(times, args.window, args.stride)
    wanted = [window_frames(net, window) for window in windows]
    for window, frames, read in zip(windows, wanted, read_windows(source, wanted), strict=True):
        clip = load_clip(read, frames, net.transform, np.random.RandomState(0))
        yield Clip(path, -1, times, window, frames, net.features(clip[None])[0])


def all_clips(net: Net, args: argparse.Namespace) -> Iterator[Clip]:
    """What the options ask for, video after video."""
    if args.dataset is not None:
        yield from clips_of_list(net, args)
    for path in args.videos:
        yield from clips_of_video(net, path, args)


def open_list(net: Net, args: argparse.Namespace) -> tuple[TSNDataSet, float | None]:
    """The data set that the options name, and its frames a second where the files do not say them."""
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
    dataset = net.dataset(paths, io=args.io, image_backend=args.image_backend, num_class=paths.num_classes)
    return dataset, args.fps or (paths.fps if args.io == "frames" else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=lambda prog: ShowDefaults(prog, max_help_position=28)
    )
    parser.add_argument("checkpoint", help="checkpoint, or a published name")
    parser.add_argument("output", metavar="OUT.npz", help="file to write")
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="video files, or folders of frames")
    parser.add_argument("--per", choices=("clip", "segment"), default="clip", help="what a row is of")
    add_clip_options(parser)
    data = parser.add_argument_group("data set")
    data.add_argument("--dataset", metavar="NAME", help="name in ops/dataset_config.py, or your own")
    data.add_argument("--list", metavar="FILE", help="its list (default: the data set's validation list)")
    data.add_argument("--root_dataset", help="folder of all data sets (default: $TSM_DATA_ROOT, else data/)")
    data.add_argument("--root_path", help="folder that list paths are relative to (default: the data set's own)")
    data.add_argument("--num_class", type=at_least(1), help="labels in a list of your own (default: the net's)")
    data.add_argument("--split", type=int, default=1, help="split of UCF101 / HMDB51")
    data.add_argument("--io", choices=IO_KINDS, default="frames", help="what to read")
    run = parser.add_argument_group("run")
    run.add_argument("--batch_size", type=at_least(1), default=8, help="videos at once")
    run.add_argument("-j", "--workers", type=at_least(0), default=2, help="processes that load")
    return parser


def _check(args: argparse.Namespace) -> None:
    if (args.dataset is not None) == bool(args.videos):
        raise InputError("give videos, or a data set with --dataset NAME, not both")
    if args.window is not None and args.dataset is not None:
        raise InputError("--window is for videos, not for a data set's list")


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    _check(args)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    net = load_net_for(args, args.checkpoint)
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
