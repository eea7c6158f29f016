"""Evaluation with 3 crops of 10 dense clips, from JPEG files to scores: this program against the textbook.

python -m benchmarks.evaluate [--arch resnet50] [--videos 2] [--rounds 3] [--compile] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.loader import HEIGHT, IMAGE_TMPL, MEAN, STD, WIDTH, write_folder
from benchmarks.step import ARCHS, TextbookShift
from benchmarks.timing import interleave, median_ms, print_table, ratio
from ops.checkpoint.options import ModelOptions
from ops.common.errors import InputError, run_command
from ops.data.loader import make_loader
from ops.dataset import TSNDataSet
from ops.dataset_configs import DatasetPaths
from ops.evaluation.net import PROTOCOLS, Net, Runtime
from ops.models import TSN, build_model
from ops.temporal_shift import TemporalShift

NUM_CLASSES = 400
NUM_FRAMES = 300  # a Kinetics video: 10 s at 30 a second
VIEWS = PROTOCOLS["dense"]
TEXTBOOK, OURS, COMPILED = "textbook", "this program", "this program, --compile"


def textbook_net(model: TSN) -> TSN:
    """The same weights with the copying shift, NCHW, BN as it is."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, TemporalShift):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, TextbookShift(module.net, module.n_segment))
    return model


class TextbookDataSet(Dataset):
    """Every view as usually written: Pillow opens, scales and crops the frames of each clip one by one, then floats."""

    def __init__(self, dataset: TSNDataSet, crop_size: int) -> None:
        self.dataset = dataset
        self.crop_size = crop_size

    def __len__(self) -> int:
        return len(self.dataset)

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


def build_cases(args: argparse.Namespace, root: Path) -> dict[str, Callable[[], list[Tensor]]]:
    """A pass over the videos for every row, each returning the scores of every video."""
    write_folder(root / "clip", args.frames)
    (root / "list.txt").write_text(f"clip {args.frames} 0\n" * args.videos)
    paths = DatasetPaths("kinetics", NUM_CLASSES, root, None, root / "list.txt", IMAGE_TMPL, True)
    options = ModelOptions(
        dataset="kinetics",
        arch=args.arch,
        num_segments=args.segments,
        num_class=NUM_CLASSES,
        is_shift=True,
        input_size=args.size,
    )
    torch.manual_seed(0)
    model = build_model(options)
    nn.init.normal_(model.classifier.weight, 0, 0.1)  # scores that differ

    def ours(**how: bool) -> Callable[[], list[Tensor]]:
        net = Net("random weights", copy.deepcopy(model), options, VIEWS, Runtime(torch.device(args.device), **how))
        loader = make_loader(net.dataset(paths), batch_size=1, workers=args.workers, shuffle=False)
        return lambda: [net.scores(batch.clips) for batch in loader]

    textbook = textbook_net(model).to(args.device)
    dataset = Net("", copy.deepcopy(model), options, VIEWS, Runtime()).dataset(paths)
    loader = DataLoader(
        TextbookDataSet(dataset, model.scale_size),
        batch_size=1,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    cases = {
        TEXTBOOK: lambda: [textbook_scores(textbook, views.to(args.device)).cpu() for views in loader],
        OURS: ours(),
    }
    if args.compile:
        cases[COMPILED] = ours(compile=True)
    return cases


def check_same(cases: dict[str, Callable[[], list[Tensor]]]) -> None:
    """Raise RuntimeError unless all rows give nearly the same scores (resizing differs by 1 of 255 at most)."""
    expected = cases[TEXTBOOK]()[0]
    for name, case in cases.items():
        difference = (case()[0] - expected).abs().max() / expected.std()
        if difference > 0.05:
            raise RuntimeError(f"{name}: scores differ from the textbook's by {difference:.2f} of their spread")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHS, default="resnet50")
    parser.add_argument("--segments", type=int, default=8, help="frames a clip (default 8)")
    parser.add_argument("--size", type=int, default=224, help="input size; full resolution is 8/7 of it (default 224)")
    parser.add_argument("--frames", type=int, default=NUM_FRAMES, help=f"frames a video (default {NUM_FRAMES})")
    parser.add_argument("--videos", type=int, default=2, help="videos a round (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--workers", type=int, default=1, help="processes that load (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="another row through torch.compile, timed when warm")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, 2 frames of 64 px: to see that it runs")
    args = parser.parse_args(argv)
    if args.quick:
        args.arch, args.segments, args.size, args.frames, args.videos, args.rounds = "resnet18", 2, 64, 20, 1, 1
    for name in ("segments", "frames", "videos", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is 1 or more, got {getattr(args, name)}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: no CUDA device here; --device cpu works")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        cases = build_cases(args, Path(folder))
        check_same(cases)  # and the warm-up
        times = interleave(cases, rounds=args.rounds, warmup=0, device=args.device)
    rows = [
        [
            name,
            f"{median_ms(times, name) / args.videos:.0f}",
            f"{1e3 * args.videos / median_ms(times, name):.3f}",
            f"{ratio(times, TEXTBOOK, name):.2f}x",
        ]
        for name in cases
    ]
    print_table(
        f"Evaluation, {args.arch}, {VIEWS}, {args.segments} frames of {args.size * 256 // 224} px,"
        f" videos of {args.frames} JPEG frames of {WIDTH}x{HEIGHT}",
        ("program", "ms a video", "videos a second", "faster than textbook"),
        rows,
        device=args.device,
        note=f"Medians of {args.rounds} interleaved rounds of {args.videos} videos, loading included"
        f" ({args.workers} worker).",
    )


if __name__ == "__main__":
    run_command(main)
