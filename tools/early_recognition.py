"""How early a streaming network knows: its accuracy against the share of the video that it has seen.

    python tools/early_recognition.py moving_digits --weights CKPT --png early.png

Every video of the test list is played to the network once, frame by frame with its state, as a camera would: from its
first frame, every k-th (--stride; by default as far apart as the frames of a training clip), without knowing where it
ends. After each frame the answer is the class with the best mean score so far; the last frame's scores alone are shown
beside it. The answer at 100 % is the streamed accuracy. For comparison, the same weights see each video as a clip, as
test_models.py does.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ops.common.distributed import init_from_env
from ops.common.errors import InputError, at_least, counted, run_command
from ops.dataset import TSNDataSet, load_clip
from ops.dataset_configs import DATASETS, resolve_dataset
from ops.evaluation.plots import lines_png
from ops.streaming import StreamingTSM
from ops.transforms import ClipNormalize, test_transform
from pretrained.table import local_path
from tools.shared.jobs import write_lines

SHARES = tuple(range(10, 101, 10))  # per cent of the video


@dataclass(frozen=True)
class Played:
    """A video after it was streamed: F frames long, n of them fed, K classes.

    `positions`: 0-based numbers of the frames that were fed, (n,). `scores`: the network's after each of them, (n, K).
    `clip_scores`: (K,).
    """

    label: int
    num_frames: int
    positions: np.ndarray
    scores: np.ndarray
    clip_scores: np.ndarray


def fed_frames(num_frames: int, stride: int) -> np.ndarray:
    """0-based frames that are fed: 10 frames, stride 3 -> [0, 3, 6, 9]."""
    return np.arange(0, num_frames, stride)


def training_stride(num_frames: Sequence[int], num_segments: int) -> int:
    """Frames from one of a training clip to the next, for the video of median length: 24 to 31 frames, 8 -> 3."""
    return max(1, int(np.median(num_frames)) // num_segments)


def num_answers(played: Played, percent: float) -> int:
    """Frames fed by the time that this share of the video has been seen; at least the first."""
    return max(1, int(np.sum(100 * (played.positions + 1) <= percent * played.num_frames + 1e-6)))


def accuracy_at(videos: Sequence[Played], percent: float, *, mean: bool) -> float:
    """Per cent of the videos whose answer is right at this share: by the mean score so far, or the last frame's."""
    right = 0
    for played in videos:
        scores = played.scores[: num_answers(played, percent)]
        right += int((scores.mean(axis=0) if mean else scores[-1]).argmax() == played.label)
    return 100 * right / len(videos)


class StreamedVideos(Dataset):
    """Item: index, and uint8 frames (n + T, 3, S, S): those to feed, then those of the clip; or why there are none."""

    def __init__(self, dataset: TSNDataSet, stride: int) -> None:
        self.dataset = dataset
        self.stride = stride

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        record = self.dataset.video_list[index]
        rng = np.random.RandomState(0)  # test sampling and transforms draw nothing from it
        try:
            if record.num_frames < 1:
                raise InputError("a video without frames cannot be streamed")
            fed = fed_frames(record.num_frames, self.stride)
            frames = np.concatenate([fed, self.dataset.sample_frames(record.num_frames, rng)])
            return index, load_clip(self.dataset.open(record), frames, self.dataset.transform, rng)
        except InputError as error:
            return index, f"{self.dataset.where(record)}: {error}"


def stream_scores(stream: StreamingTSM, clips: Sequence[Tensor], normalize: ClipNormalize) -> list[np.ndarray]:
    """Scores (n, K) after each frame of several videos, uint8 (n, 3, S, S), streamed side by side."""
    device = next(stream.parameters()).device
    longest = max(len(clip) for clip in clips)
    state, scores = stream.init_state(len(clips), *clips[0].shape[-2:]), []
    for t in range(longest):
        frame = torch.stack([clip[min(t, len(clip) - 1)] for clip in clips])  # a video that is over stands still
        frame_scores, state = stream.step(normalize(frame.to(device)), state)
        scores.append(frame_scores.float().cpu().numpy())
    return [np.stack([step[index] for step in scores[: len(clip)]]) for index, clip in enumerate(clips)]


def play(stream: StreamingTSM, dataset: TSNDataSet, *, stride: int, batch_size: int, workers: int) -> Iterator[Played]:
    """Stream every video of the list."""
    videos = StreamedVideos(dataset, stride)
    loader = DataLoader(videos, batch_size=batch_size, num_workers=workers, collate_fn=list)
    normalize = ClipNormalize(**stream.normalization)
    for batch in loader:
        for _, frames in batch:
            if isinstance(frames, str):
                raise InputError(frames)
        num_clip = dataset.num_segments
        fed = stream_scores(stream, [frames[:-num_clip] for _, frames in batch], normalize)
        clips = stream_scores(stream, [frames[-num_clip:] for _, frames in batch], normalize)
        for (index, _), scores, clip_scores in zip(batch, fed, clips, strict=True):
            record = dataset.video_list[index]
            positions = fed_frames(record.num_frames, stride)
            yield Played(record.label, record.num_frames, positions, scores, clip_scores.mean(axis=0))


def summary(videos: Sequence[Played], *, stride: int) -> dict[str, object]:
    """All figures, in per cent."""
    return {
        "videos": len(videos),
        "stride": stride,
        "share": list(SHARES),
        "mean_so_far": [accuracy_at(videos, share, mean=True) for share in SHARES],
        "last_frame": [accuracy_at(videos, share, mean=False) for share in SHARES],
        "clip": 100 * float(np.mean([played.clip_scores.argmax() == played.label for played in videos])),
    }


def report(figures: dict) -> str:
    """The figures as a table."""
    rows = zip(figures["share"], figures["mean_so_far"], figures["last_frame"], strict=True)
    lines = ["video seen   mean so far   last frame"]
    lines += [f"{share:>9} %   {mean:>9.2f} %   {last:>8.2f} %" for share, mean, last in rows]
    lines.append(f"Streamed, asked at the last frame: Prec@1 {figures['mean_so_far'][-1]:.2f}%")
    lines.append(f"As a clip: Prec@1 {figures['clip']:.2f}%")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name in ops/dataset_configs.py, or your own with --test_list and the like")
    parser.add_argument("--weights", required=True, help="online checkpoint, or a published name")
    parser.add_argument("--stride", type=at_least(1), metavar="FRAMES", help="feed every k-th frame (as in training)")
    parser.add_argument("--png", metavar="FILE", help="draw the curve")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--batch_size", type=at_least(1), default=16, help="videos streamed side by side (16)")
    parser.add_argument("-j", "--workers", type=at_least(0), default=2)
    parser.add_argument("--max_num", type=int, default=-1, help="the first N videos only")
    parser.add_argument("--root_dataset")
    parser.add_argument("--test_list")
    parser.add_argument("--root_path")
    parser.add_argument("--image_tmpl")
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--io", choices=("frames", "video"), default="frames")
    parser.add_argument("--image_backend", choices=("torchvision", "pillow"), default="torchvision")
    parser.add_argument("--gpus", nargs="+", type=int, help="CUDA device to use (default: the first; else the CPU)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stream = StreamingTSM.from_checkpoint(local_path(args.weights), fold_bn=True).to(init_from_env(args.gpus).device)
    paths = resolve_dataset(
        args.dataset,
        "RGB",
        root_dataset=args.root_dataset,
        split=args.split,
        num_class=None if args.dataset in DATASETS else stream.num_class,
        val_list=args.test_list,
        root_path=args.root_path,
        image_tmpl=args.image_tmpl or (stream.options.image_tmpl if stream.options.dataset == args.dataset else None),
        io=args.io,
    )
    if paths.num_classes != stream.num_class:
        raise InputError(f"{args.weights} knows {stream.num_class} classes, {args.dataset} has {paths.num_classes}")
    dataset = TSNDataSet(
        paths.root_path,
        paths.val_list,
        num_segments=stream.options.num_segments,
        image_tmpl=paths.image_tmpl,
        transform=test_transform(stream.input_size, stream.scale_size),
        test_mode=True,
        io=args.io,
        image_backend=args.image_backend,
        num_class=stream.num_class,
        max_num=args.max_num,
    )
    stride = args.stride or training_stride([r.num_frames for r in dataset.video_list], dataset.num_segments)
    rate = "every frame" if stride == 1 else f"one frame in {stride}"
    print(f"{args.weights}: {counted(len(dataset), 'video')}, frame by frame, {rate}, from the first on")
    progress = tqdm(
        play(stream, dataset, stride=stride, batch_size=args.batch_size, workers=args.workers),
        total=len(dataset),
        desc="videos",
        disable=not sys.stderr.isatty(),
    )
    figures = summary(list(progress), stride=stride)
    print(report(figures))
    if args.json:
        write_lines(args.json, [json.dumps(figures, indent=1)])
    if args.png:
        lines_png(
            {
                "mean of the scores so far": (figures["share"], figures["mean_so_far"]),
                "scores of the last frame alone": (figures["share"], figures["last_frame"]),
            },
            args.png,
            title=f"Early recognition on {args.dataset}, {counted(len(dataset), 'video')} frame by frame",
            xlabel="share of the video seen (%)",
            ylabel="top-1 accuracy (%)",
            ylim=(0, 101),
            levels={"as a clip": figures["clip"], "chance": 100 / stream.num_class},
        )
        print(f"wrote {args.png}")


if __name__ == "__main__":
    run_command(main)
