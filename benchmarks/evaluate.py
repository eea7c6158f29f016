"""Evaluation with 3 crops of 10 dense clips, from JPEG files to scores: this program against the textbook.

python -m benchmarks.evaluate [--arch resnet50] [--videos 2] [--rounds 3] [--compile] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.loader import HEIGHT, IMAGE_TMPL, MEAN, STD, WIDTH, TextbookDataSet, write_folder
from benchmarks.processes import OwnProcess
from benchmarks.step import TextbookShift
from benchmarks.timing import benchmark_parser, interleave, median_ms, prepare, print_table, ratio
from ops.checkpoint.options import ModelOptions
from ops.common.errors import at_least, run_command
from ops.data.loader import make_loader
from ops.dataset import TSNDataSet
from ops.dataset_config import DatasetPaths
from ops.evaluation.net import PROTOCOLS, Net, Runtime
from ops.models import TSN, build_model
from ops.temporal_shift import TemporalShift
from ops.transforms import scale_size

NUM_CLASSES = 400
NUM_FRAMES = 300  # a Kinetics video: 10 s at 30 a second
VIEWS = PROTOCOLS["dense"]
TEXTBOOK, OURS, COMPILED = "textbook", "this program", "this program, --compile"


def kinetics_like(root: Path, *, num_frames: int, num_videos: int) -> DatasetPaths:
    """A data set whose test list names one video of `num_frames` frames, written here, `num_videos` times."""
    write_folder(root / "clip", num_frames)
    (root / "list.txt").write_text(f"clip {num_frames} 0\n" * num_videos)
    return DatasetPaths("kinetics", NUM_CLASSES, root, None, root / "list.txt", IMAGE_TMPL, True)


def shift_options(arch: str, num_segments: int, input_size: int) -> ModelOptions:
    """Options of a TSM on it."""
    shape = {"num_segments": num_segments, "num_class": NUM_CLASSES, "input_size": input_size}
    return ModelOptions(dataset="kinetics", arch=arch, is_shift=True, **shape)


def textbook_net(model: TSN) -> TSN:
    """The same weights with the copying shift, NCHW, BN as it is."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, TemporalShift):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, TextbookShift(module.net, module.n_segment))
    return model


class TextbookViews(TextbookDataSet):
    """Every view as usually written: Pillow opens, scales and crops the frames of each clip one by one, then floats."""

    def __init__(self, dataset: TSNDataSet, crop_size: int) -> None:
        super().__init__(dataset)
        self.crop_size = crop_size

    def __getitem__(self, index: int) -> Tensor:
        record = self.dataset.video_list[index]
        source = self.dataset.open(record)
        frames = self.dataset.sample_frames(record.num_frames, np.random.RandomState(0))
        images = [Image.open(source.paths(int(frame))[0]).convert("RGB") for frame in frames]
        width, height = images[0].size
        scaled = int(self.crop_size * width / height), self.crop_size
        images = [image.resize(scaled, Image.Resampling.BILINEAR) for image in images]
        step = (scaled[0] - self.crop_size) // 4
        crops = []
        for left in (0, 4 * step, 2 * step):
            box = (left, 0, left + self.crop_size, self.crop_size)
            stacked = np.concatenate([np.array(image.crop(box)) for image in images], axis=2)  # (H, W, clips*T*C)
            crops.append(torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255))
        views = torch.cat(crops)  # (crops*clips*T*C, H, W)
        for channel, mean, std in zip(views, MEAN * (len(views) // 3), STD * (len(views) // 3), strict=True):
            channel.sub_(mean).div_(std)
        return views


@torch.no_grad()
def textbook_scores(model: TSN, views: Tensor) -> Tensor:
    """All views of a video in one pass, (1, crops*clips*T*C, H, W) -> (1, K)."""
    clips = views.view(VIEWS.count, -1, *views.shape[-2:])
    return model(clips).mean(dim=0, keepdim=True)


class Pass:
    """A pass over the videos, as a callable that returns the scores of each.

    Args:
        name: TEXTBOOK, OURS or COMPILED.
        root: folder of `kinetics_like`'s data set.
    """

    def __init__(self, name: str, args: argparse.Namespace, paths: DatasetPaths) -> None:
        options = shift_options(args.arch, args.segments, args.size)
        torch.manual_seed(0)
        model = build_model(options)
        nn.init.normal_(model.classifier.weight, 0, 0.1)  # scores that differ
        if name == TEXTBOOK:
            dataset = Net("", model, options, VIEWS, Runtime()).dataset(paths)
            views = TextbookViews(dataset, model.scale_size)
            self.loader = DataLoader(views, num_workers=args.workers, persistent_workers=args.workers > 0)
            self.net = textbook_net(model).to(args.device)
            self.scores = lambda views: textbook_scores(self.net, views.to(args.device)).cpu()
        else:
            runtime = Runtime(torch.device(args.device), compile=name == COMPILED)
            net = Net("random weights", model, options, VIEWS, runtime)
            self.loader = make_loader(net.dataset(paths), batch_size=1, workers=args.workers, shuffle=False)
            self.scores = lambda batch: net.scores(batch.clips)

    def __call__(self) -> list[np.ndarray]:
        return [self.scores(batch).numpy() for batch in self.loader]


def check_same(cases: Mapping[str, Callable[[], list[np.ndarray]]]) -> None:
    """Raise RuntimeError unless all rows give nearly the same scores (resizing differs by 1 of 255 at most)."""
    expected = cases[TEXTBOOK]()[0]
    for name, case in cases.items():
        difference = np.abs(case()[0] - expected).max() / expected.std()
        if difference > 0.05:
            raise RuntimeError(f"{name}: scores differ from the textbook's by {difference:.2f} of their spread")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__, rounds=5, network=True)
    parser.add_argument("--segments", type=at_least(1), default=8, help="frames a clip")
    parser.add_argument("--frames", type=at_least(1), default=NUM_FRAMES, help="frames a video")
    parser.add_argument("--videos", type=at_least(1), default=2, help="videos a round")
    parser.add_argument("--workers", type=at_least(0), default=1, help="processes that load")
    parser.add_argument("--compile", action="store_true", help="another row through torch.compile, timed when warm")
    quick = {"arch": "resnet18", "segments": 2, "size": 64, "frames": 20, "videos": 1, "rounds": 1}
    return prepare(parser.parse_args(argv), **quick)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    names = [TEXTBOOK, OURS, *([COMPILED] if args.compile else [])]
    with tempfile.TemporaryDirectory() as folder:
        paths = kinetics_like(Path(folder), num_frames=args.frames, num_videos=args.videos)
        cases = {
            name: OwnProcess(Pass, name, args, paths, threads=args.threads, tuned=name != TEXTBOOK) for name in names
        }
        check_same(cases)  # and the warm-up
        times = interleave(cases, rounds=args.rounds, warmup=0)
        cpu = {name: case.close() for name, case in cases.items()}
    rows = [
        [
            name,
            f"{median_ms(times, name) / args.videos:.0f}",
            f"{1e3 * args.videos / median_ms(times, name):.3f}",
            f"{ratio(times, TEXTBOOK, name):.2f}x",
            f"{100 * system / (user + system):.0f} %",
        ]
        for name, (user, system) in cpu.items()
    ]
    print_table(
        f"Evaluation, {args.arch}, {VIEWS}, {args.segments} frames of {scale_size(args.size)} px,"
        f" videos of {args.frames} JPEG frames of {WIDTH}x{HEIGHT}",
        ("program", "ms a video", "videos a second", "faster than textbook", "system time"),
        rows,
        device=args.device,
        note=f"Medians of {args.rounds} rounds of {args.videos} videos, each program in a process of its own, in turns,"
        f" loading included ({args.workers} worker). System time: the kernel's part of the CPU time.",
    )


if __name__ == "__main__":
    run_command(main)
