"""Loading clips: the textbook Pillow pipeline, ours with both image backends, JPEG decoding alone, and video files.

Video files are read by TorchCodec and Decord as well, where they are installed (pip install torchcodec decord).

python -m benchmarks.loader [--rounds 60] [--videos 24] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import check_device, interleave, median_ms, print_table, ratio
from ops.common.cpu import keep_freed_memory
from ops.common.errors import InputError, at_least, counted, run_command
from ops.data.loader import Batch, make_loader
from ops.data.sampling import seeded_rng
from ops.data.sources import FrameFolder, VideoFile
from ops.dataset import TSNDataSet
from ops.opts import ShowDefaults
from ops.transforms import ClipNormalize, GroupMultiScaleCrop, fixed_offsets, train_transform

SEGMENTS = 8
WIDTH, HEIGHT = 340, 256
INPUT_SIZE = 224
SCALES = (1, 0.875, 0.75, 0.66)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_SIZE = 8
FPS = 25
JPEG_QUALITY = 90  # 30 kB a frame
IMAGE_TMPL = "img_{:05d}.jpg"
VIDEO_KINDS = (  # (width, height), frames, a key frame every so many
    ((340, 256), 250, 12),
    ((340, 256), 250, 250),
    ((640, 360), 71, 250),
    ((320, 240), 1892, 250),
)
OURS = "ours"
TEXTBOOK, DECODING = "textbook (Pillow, float, normalised)", "decoding the JPEGs alone"


def make_frames(num_frames: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[Image.Image]:
    """A slow pan and zoom over a real photograph (scikit-learn's), as frames of this (width, height)."""
    photo = Image.fromarray(load_sample_images().images[0])
    for number in range(num_frames):
        progress = number / max(1, num_frames - 1)
        width = 360 + 160 * progress
        left, top = progress * (photo.width - width), progress * (photo.height - width * size[1] / size[0])
        box = (left, top, left + width, top + width * size[1] / size[0])
        yield photo.resize(size, Image.Resampling.BICUBIC, box=box)


def write_folder(folder: Path, num_frames: int) -> list[str]:
    """Write the frames as JPEG files; returns their paths."""
    folder.mkdir(parents=True)
    paths = [str(folder / IMAGE_TMPL.format(number)) for number in range(1, num_frames + 1)]
    for path, frame in zip(paths, make_frames(num_frames), strict=True):
        frame.save(path, quality=JPEG_QUALITY)
    return paths


def write_video(path: Path, num_frames: int, key_every: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write the frames as H.264 (MPEG-4 where this PyAV cannot), a key frame every `key_every` frames."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options={"g": str(key_every)})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in make_frames(num_frames, size):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def textbook_clip(paths: Sequence[str], rng: np.random.RandomState) -> Tensor:
    """Training augmentation as usually written: image by image in Pillow, then float arithmetic a channel at a time."""
    images = [Image.open(path).convert("RGB") for path in paths]
    sizes = GroupMultiScaleCrop(INPUT_SIZE, SCALES).crop_sizes(*images[0].size)
    width, height = sizes[rng.randint(len(sizes))]
    offsets = fixed_offsets(*images[0].size, width, height)
    left, top = offsets[rng.randint(len(offsets))]
    images = [image.crop((left, top, left + width, top + height)) for image in images]
    images = [image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR) for image in images]
    if rng.random_sample() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    stacked = np.concatenate([np.array(image) for image in images], axis=2)  # (H, W, T*C)
    clip = torch.from_numpy(stacked).permute(2, 0, 1).float().div(255)
    for channel, mean, std in zip(clip, MEAN * len(images), STD * len(images), strict=True):
        channel.sub_(mean).div_(std)
    return clip


class TextbookDataSet(Dataset):
    """`textbook_clip` on the frames that TSNDataSet would draw."""

    def __init__(self, dataset: TSNDataSet) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        record = self.dataset.video_list[index]
        rng = seeded_rng(self.dataset.seed, 0, index)
        source = self.dataset.open(record)
        paths = [source.paths(frame)[0] for frame in self.dataset.sample_frames(record.num_frames, rng)]
        return textbook_clip(paths, rng), record.label


def clips_table(folder: Path, *, rounds: int) -> None:
    """Time one clip in this thread; in each round every pipeline makes the same random choices."""
    paths = write_folder(folder, SEGMENTS)
    keep_freed_memory()  # as in a worker, here for all alike
    compressed = [torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths]
    transform = train_transform(INPUT_SIZE)
    normalize = ClipNormalize(MEAN, STD, channels_last=True)

    def ours(backend: str, rng: np.random.RandomState) -> Tensor:
        return transform(FrameFolder(folder, IMAGE_TMPL, backend=backend).read(range(SEGMENTS)), rng)

    def seeded(pipeline: Callable[[np.random.RandomState], object]) -> Callable[[], object]:
        seeds = itertools.count()
        return lambda: pipeline(seeded_rng(next(seeds)))

    expected = textbook_clip(paths, np.random.RandomState(0)).view(SEGMENTS, 3, INPUT_SIZE, INPUT_SIZE)
    for backend, levels in (("pillow", 0), ("torchvision", 1)):
        clip = normalize(ours(backend, np.random.RandomState(0))[None])[0]
        if (clip - expected).abs().max() > levels / 255 / min(STD) + 1e-5:
            raise RuntimeError(f"the {backend} pipeline and the textbook's differ")
    times = interleave(
        {
            TEXTBOOK: seeded(lambda rng: textbook_clip(paths, rng)),
            "ours, --image_backend pillow": seeded(lambda rng: ours("pillow", rng)),
            "ours, --image_backend torchvision (default)": seeded(lambda rng: ours("torchvision", rng)),
            DECODING: lambda: [torch.ops.image.decode_jpeg(data, 3, False) for data in compressed],
        },
        rounds=rounds,
        warmup=3,
    )
    rows = [
        [
            name,
            f"{median_ms(times, name):.2f}",
            f"{ratio(times, TEXTBOOK, name):.2f}x",
            f"{100 * (ratio(times, name, DECODING) - 1):.0f} %",
        ]
        for name in times
    ]
    print_table(
        f"One training clip: {SEGMENTS} JPEG frames of {WIDTH}x{HEIGHT} -> {INPUT_SIZE} px, one thread",
        ("pipeline", "ms", "textbook / this", "beyond decoding"),
        rows,
        note=f"Medians of {rounds} interleaved rounds, the same random choices in each; JPEG quality {JPEG_QUALITY}. "
        "Ours leaves uint8 clips, normalised on the device; 'beyond decoding' is relative to decoding alone.",
    )


def to_device(batch: Any, device: torch.device) -> None:
    """Bring a batch to a CUDA device as training would: ours is copied without waiting, then normalised there."""
    clips = batch.clips if isinstance(batch, Batch) else batch[0]
    clips = clips.to(device, non_blocking=True)
    if isinstance(batch, Batch):
        ClipNormalize(MEAN, STD, channels_last=True)(clips)


def loaders_table(root: Path, *, num_frames: int, num_videos: int, rounds: int, workers: int, device: str) -> None:
    """Time an epoch through worker processes, whole videos on disk."""
    images = write_folder(root / "frames", num_frames)
    sizes = {"frames": sum(Path(path).stat().st_size for path in images)}
    for name, key_every in (("short.mp4", 12), ("long.mp4", 250)):
        write_video(root / name, num_frames, key_every)
        sizes[name] = (root / name).stat().st_size

    def dataset(video: str, **options: str) -> TSNDataSet:
        list_file = root / f"{video}.txt"
        list_file.write_text(f"{video} {num_frames} 0\n" * num_videos)
        return TSNDataSet(root, list_file, SEGMENTS, transform=train_transform(INPUT_SIZE), **options)

    def epoch(loader: DataLoader) -> None:
        for batch in loader:
            if getattr(batch, "failures", None):
                raise InputError(batch.failures[0])
            if device != "cpu":
                to_device(batch, torch.device(device))

    sources = {
        "ours, frames, pillow": ("frames", {"image_backend": "pillow"}),
        "ours, frames, torchvision (default)": ("frames", {}),
        "ours, --io video, a key frame every 12": ("short.mp4", {"io": "video"}),
        "ours, --io video, a key frame every 250": ("long.mp4", {"io": "video"}),
    }
    textbook = TextbookDataSet(dataset("frames"))
    loaders = {TEXTBOOK: DataLoader(textbook, batch_size=BATCH_SIZE, num_workers=workers, persistent_workers=True)}
    for name, (video, options) in sources.items():
        loaders[name] = make_loader(dataset(video, **options), batch_size=BATCH_SIZE, workers=workers, shuffle=True)
    times = interleave({name: partial(epoch, loader) for name, loader in loaders.items()}, rounds=rounds, device=device)
    files = {TEXTBOOK: "frames"} | {name: video for name, (video, _) in sources.items()}
    rows = [
        [
            name,
            f"{1e3 * num_videos / median_ms(times, name):.1f}",
            f"{ratio(times, TEXTBOOK, name):.2f}x",
            f"{sizes[files[name]] / 1e6:.2f}",
        ]
        for name in times
    ]
    print_table(
        f"Data loader, {counted(workers, 'worker')}: clips of {SEGMENTS} of {num_frames} frames of {WIDTH}x{HEIGHT}",
        ("source", "videos/s", "against textbook", "MB a video"),
        rows,
        note=f"Medians of {rounds} interleaved epochs of {num_videos} videos, batches of {BATCH_SIZE}; JPEG quality "
        f"{JPEG_QUALITY}.",
        device=device,
    )


def video_readers() -> dict[str, Callable[[str, list[int]], object]]:
    """Readers of frames by index, each in one thread: ours, and others that are installed."""
    readers: dict[str, Callable[[str, list[int]], object]] = {OURS: lambda path, indices: VideoFile(path).read(indices)}
    with contextlib.suppress(ImportError):
        from torchcodec.decoders import VideoDecoder

        def read_torchcodec(path: str, indices: list[int]) -> object:
            return VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC").get_frames_at(indices).data

        readers["TorchCodec"] = read_torchcodec
    with contextlib.suppress(ImportError):
        import decord

        readers["Decord"] = lambda path, indices: decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()
    return readers


def videos_table(root: Path, *, rounds: int, max_frames: int) -> None:
    """Time the reading of random frames of video files, opening included; all readers get the same frames."""
    root.mkdir()
    readers, rows = video_readers(), []
    for size, num_frames, key_every in VIDEO_KINDS:
        num_frames = min(num_frames, max_frames)
        path = root / f"{size[0]}_{num_frames}_{key_every}.mp4"
        write_video(path, num_frames, key_every, size)

        def read(reader: Callable[[str, list[int]], object], path: Path, num_frames: int, seeds: Iterator[int]) -> None:
            chosen = seeded_rng(next(seeds)).choice(num_frames, SEGMENTS, replace=False)
            reader(str(path), sorted(chosen.tolist()))

        times = interleave(
            {name: partial(read, reader, path, num_frames, itertools.count()) for name, reader in readers.items()},
            rounds=rounds,
            warmup=1,
        )
        cells = [f"{median_ms(times, name):.1f}" for name in readers]
        rows.append([f"{size[0]}x{size[1]}, {num_frames} frames, a key frame every {key_every}", *cells])
    print_table(
        f"{SEGMENTS} random frames of an H.264 file, opening included, one thread: ms",
        ("file", *readers),
        rows,
        note=f"Medians of {rounds} interleaved rounds.",
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("--rounds", type=at_least(1), default=60, help="timed clips of each pipeline")
    parser.add_argument("--videos", type=at_least(1), default=24, help="videos of an epoch")
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes of the data loaders")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the data loaders' batches are copied there")
    parser.add_argument("--quick", action="store_true", help="a few short rounds, to see that it runs")
    args = parser.parse_args(argv)
    check_device(args.device)
    torch.set_num_threads(1)
    rounds, num_videos, num_frames = (3, 4, 30) if args.quick else (args.rounds, args.videos, 10 * FPS)
    with tempfile.TemporaryDirectory(prefix="tsm_loader_") as folder:
        clips_table(Path(folder) / "frames", rounds=rounds)
        videos_table(Path(folder) / "files", rounds=min(rounds, 20), max_frames=30 if args.quick else 10_000)
        loaders_table(
            Path(folder) / "videos",
            num_frames=num_frames,
            num_videos=num_videos,
            rounds=min(rounds, 15),
            workers=args.workers,
            device=args.device,
        )


if __name__ == "__main__":
    run_command(main)
