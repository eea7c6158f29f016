"""Accuracy of a streaming network against the share of the video that it has seen.

    python tools/early_recognition.py moving_digits --weights CKPT --png early.png

The network gets every video of the test list once, frame by frame with its state, as from a camera: from the first
frame on, every k-th (--stride; by default as far apart as the frames of a training clip). After each frame the answer
is the class with the best mean score so far; the table also has the answer by the last frame's scores alone. The answer
at 100 % is the streamed accuracy. For comparison, the same weights see each video as a clip, as in test_models.py.
"""

from __future__ import annotations

import argparse
import itertools
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
from tqdm import tqdm

from ops.common.distributed import init_from_env
from ops.common.errors import InputError, at_least, counted, run_command
from ops.common.files import write_lines
from ops.data.loader import make_loader
from ops.data.sources import IO_KINDS
from ops.dataset import TSNDataSet
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.evaluation.plots import lines_png
from ops.opts import ShowDefaults
from ops.streaming import StreamingTSM
from ops.transforms import ClipNormalize, test_transform
from pretrained.table import local_path

SHARES = tuple(range(10, 101, 10))  # per cent of the video
RIGHT_SHARE = 0.99  # of the answers that the threshold lets through


@dataclass(frozen=True)
class Streamed:
    """The scores of a streamed video.

    `positions`: 0-based numbers of the frames that were fed, (n,). `scores`: after each of them, (n, K).
    `clip_scores`: of the video as a clip, (K,).
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


def num_answers(video: Streamed, percent: float) -> int:
    """Frames fed by the time that this share of the video has been seen; at least the first."""
    return max(1, int(np.sum(100 * (video.positions + 1) <= percent * video.num_frames + 1e-6)))


def accuracy_at(videos: Sequence[Streamed], percent: float, *, mean: bool) -> float:
    """Per cent of the videos whose answer is right at this share: by the mean score so far, or the last frame's."""
    right = 0
    for video in videos:
        scores = video.scores[: num_answers(video, percent)]
        right += int((scores.mean(axis=0) if mean else scores[-1]).argmax() == video.label)
    return 100 * right / len(videos)


def sure_threshold(videos: Sequence[Streamed]) -> float:
    """The lowest probability, in steps of 0.01, from which on RIGHT_SHARE of the answers by the mean so far are right.

    The answers in the second half of each video count: before, there may be nothing to see yet. 1 if there is none.
    """
    certainties, right = [], []
    for video in videos:
        means = torch.from_numpy(video.scores).double().cumsum(dim=0) / torch.arange(1, len(video.scores) + 1)[:, None]
        late = torch.from_numpy(2 * (video.positions + 1) >= video.num_frames)
        certainty, label = means[late].softmax(dim=1).max(dim=1)
        certainties.append(certainty)
        right.append(label == video.label)
    certainty, is_right = torch.cat(certainties), torch.cat(right)
    for hundredths in range(100):
        kept = is_right[certainty >= hundredths / 100]
        if len(kept) and kept.double().mean() >= RIGHT_SHARE:
            return hundredths / 100
    return 1.0


class StreamedVideos(TSNDataSet):
    """The clip of a video, uint8 (n + T, 3, S, S), is the frames to feed and then those of its test clip."""

    stride = 1

    def sample_frames(self, num_frames: int, rng: np.random.RandomState) -> np.ndarray:
        if num_frames < 1:
            raise InputError("a video without frames cannot be streamed")
        return np.concatenate([fed_frames(num_frames, self.stride), super().sample_frames(num_frames, rng)])


def stream_scores(stream: StreamingTSM, clips: Sequence[Tensor], normalize: ClipNormalize) -> list[np.ndarray]:
    """Scores (n, K) after each frame of several videos, uint8 (n, 3, S, S), streamed side by side."""
    device = next(stream.parameters()).device
    longest = max(len(clip) for clip in clips)
    state, scores = stream.init_state(len(clips), *clips[0].shape[-2:]), []
    for t in range(longest):
        frame = torch.stack([clip[min(t, len(clip) - 1)] for clip in clips])  # the last frame again after the end
        frame_scores, state = stream.step(normalize(frame.to(device)), state)
        scores.append(frame_scores.float().cpu().numpy())
    return [np.stack([step[index] for step in scores[: len(clip)]]) for index, clip in enumerate(clips)]


def stream_videos(
    stream: StreamingTSM, dataset: StreamedVideos, *, batch_size: int, workers: int
) -> Iterator[Streamed]:
    """Stream every video of the list, `batch_size` side by side."""
    loaded = iter(make_loader(dataset, batch_size=1, workers=workers, shuffle=False))
    normalize, num_clip = ClipNormalize(**stream.normalization), dataset.num_segments
    while group := list(itertools.islice(loaded, batch_size)):
        failures = [failure for batch in group for failure in batch.failures]
        if failures:
            raise InputError(failures[0])
        fed = stream_scores(stream, [batch.clips[0, :-num_clip] for batch in group], normalize)
        clips = stream_scores(stream, [batch.clips[0, -num_clip:] for batch in group], normalize)
        for batch, scores, clip_scores in zip(group, fed, clips, strict=True):
            record = dataset.video_list[batch.indices.item()]
            positions = fed_frames(record.num_frames, dataset.stride)
            yield Streamed(record.label, record.num_frames, positions, scores, clip_scores.mean(axis=0))


def summary(videos: Sequence[Streamed], *, stride: int) -> dict[str, object]:
    """All figures, in per cent."""
    return {
        "videos": len(videos),
        "stride": stride,
        "share": list(SHARES),
        "mean_so_far": [accuracy_at(videos, share, mean=True) for share in SHARES],
        "last_frame": [accuracy_at(videos, share, mean=False) for share in SHARES],
        "threshold": sure_threshold(videos),
        "clip": 100 * float(np.mean([video.clip_scores.argmax() == video.label for video in videos])),
    }


def report(figures: dict) -> str:
    """The figures as a table."""
    rows = zip(figures["share"], figures["mean_so_far"], figures["last_frame"], strict=True)
    lines = ["video seen   mean so far   last frame"]
    lines += [f"{share:>9} %   {mean:>9.2f} %   {last:>8.2f} %" for share, mean, last in rows]
    lines.append(f"Streamed, asked at the last frame: Prec@1 {figures['mean_so_far'][-1]:.2f}%")
    lines.append(f"As a clip: Prec@1 {figures['clip']:.2f}%")
    lines.append(
        f"Of the second half's answers with a probability of {figures['threshold']:g} or more, {100 * RIGHT_SHARE:g} % "
        "are right (for the demo: online_demo.compile --threshold)"
    )
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("dataset", help="name in ops/dataset_config.py, or your own with --test_list and the like")
    parser.add_argument("--weights", required=True, help="online checkpoint, or a published name")
    parser.add_argument(
        "--stride", type=at_least(1), metavar="FRAMES", help="feed every k-th frame (default: as far apart as trained)"
    )
    parser.add_argument("--png", metavar="FILE", help="draw the curve")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--batch_size", type=at_least(1), default=16, help="videos streamed side by side")
    parser.add_argument("-j", "--workers", type=at_least(0), default=2, help="processes that load")
    parser.add_argument("--max_num", type=int, default=-1, help="use the first N videos only (default: all)")
    parser.add_argument("--root_dataset", help="folder of all data sets (default: $TSM_DATA_ROOT, else data/)")
    parser.add_argument("--test_list", help="list of the videos (default: the data set's validation list)")
    parser.add_argument("--root_path", help="folder that list paths are relative to (default: the data set's own)")
    parser.add_argument("--image_tmpl", help="name of a frame (default: the checkpoint's, else the data set's own)")
    parser.add_argument("--split", type=int, default=1, help="split of UCF101 / HMDB51")
    parser.add_argument("--io", choices=IO_KINDS, default="frames", help="what to read")
    parser.add_argument(
        "--image_backend", choices=("torchvision", "pillow"), default="torchvision", help="decode and resize with"
    )
    parser.add_argument("--gpus", nargs="+", type=int, help="CUDA device to use (default: the first; else the CPU)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stream = StreamingTSM.from_checkpoint(local_path(args.weights), fold_bn=True).to(init_from_env(args.gpus).device)
    options = DataOptions(
        root_dataset=args.root_dataset,
        root_path=args.root_path,
        val_list=args.test_list,
        num_class=None if args.dataset in DATASETS else stream.num_class,
        image_tmpl=args.image_tmpl or (stream.options.image_tmpl if stream.options.dataset == args.dataset else None),
        split=args.split,
        io=args.io,
    )
    paths = resolve_dataset(args.dataset, "RGB", options)
    if paths.num_classes != stream.num_class:
        raise InputError(f"{args.weights} knows {stream.num_class} classes, {args.dataset} has {paths.num_classes}")
    dataset = StreamedVideos(
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
    num_frames = [record.num_frames for record in dataset.video_list]
    dataset.stride = stride = args.stride or training_stride(num_frames, dataset.num_segments)
    rate = "every frame" if stride == 1 else f"one frame in {stride}"
    print(f"{args.weights}: {counted(len(dataset), 'video')}, frame by frame, {rate}, from the first on")
    progress = tqdm(
        stream_videos(stream, dataset, batch_size=args.batch_size, workers=args.workers),
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
