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
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from ops.common.class_names import read_class_names
from ops.common.errors import InputError, at_least, counted, escaped, run_command
from ops.dataset import load_clip
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.net import Net
from ops.evaluation.tables import class_names_or_numbers
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


def find_class_names(labels: str | None, net: Net) -> list[str]:
    """Names from a file, else the checkpoint's, else the data set's, else numbers."""
    if labels is not None:
        return read_class_names(labels, net.num_class)
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
    parser.add_argument("--topk", type=at_least(1), default=5, help="classes to print, best first")
    parser.add_argument("--labels", help="class names, a line each (default: the checkpoint's)")
    add_clip_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line: a video, or a window of it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Classify each video; returns 1 if one of several could not be read."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    net = load_net_for(args, args.weights)
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
    windows = make_windows(times, args.window, args.stride)
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
