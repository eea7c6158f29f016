"""One video file -> one folder of JPEG frames: what the vid2img tools share."""

from __future__ import annotations

import argparse
import functools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ops.common.errors import InputError, at_least, positive
from ops.data.rgb import decoded_frames
from ops.opts import ShowDefaults
from tools.shared.files import existing_folder, find_videos
from tools.shared.jobs import Failure, add_jobs_option, run_jobs
from tools.shared.lists import frame_number_pattern
from tools.shared.report import print_counts, report

# `best` of the published tools is ffmpeg's -q:v 0: about here on Pillow's scale. More costs disk and decoding only.
BEST_QUALITY = 95
PARTIAL = ".partial"


@dataclass(frozen=True)
class Extraction:
    """How frames are written: file names, height in pixels (0: the video's own), JPEG quality 1-100, limits."""

    image_tmpl: str
    height: int
    quality: int = BEST_QUALITY
    max_frames: int = 100_000
    keep_damaged: bool = False
    overwrite: bool = False


def partial_folder(folder: Path) -> Path:
    """Where the frames of `folder` are gathered while they are incomplete."""
    return folder.with_name(f".{folder.name}{PARTIAL}")


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder at `path`, which goes at the end; what a killed run left there goes first."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def finished_frames(folder: Path, image_tmpl: str, scratch: Path) -> Iterator[Path]:
    """Yield an empty folder, at `scratch`, whose files become the frames of `folder` when the body ends well.

    A new folder appears whole. One that is there keeps what are no frames of this template (flow beside the frames);
    frame 1 comes last and shows that all are there. A killed run leaves `scratch`; the next run starts it anew.
    """
    with scratch_folder(scratch) as partial:
        yield partial
        if folder.is_dir():
            _replace_frames(folder, partial, frame_number_pattern(image_tmpl))
        else:
            partial.rename(folder)


def _replace_frames(folder: Path, partial: Path, pattern: re.Pattern[str]) -> None:
    def number(path: Path) -> int:
        return int(pattern.fullmatch(path.name)[pattern.groups])

    for path in sorted((path for path in folder.iterdir() if pattern.fullmatch(path.name)), key=number):
        path.unlink()
    for path in sorted(partial.iterdir(), key=number, reverse=True):
        path.rename(folder / path.name)


def extract_video(job: tuple[Path, Path], options: Extraction) -> int:
    """Write every frame of a video (job[0]) to a folder (job[1]), numbered from 1; returns how many, 0 if it was there.

    The folder appears when it is complete, never before. Raises InputError as `decoded_frames` does, less the path;
    with `keep_damaged` the frames before the damage are kept all the same.
    """
    video, folder = job
    if (folder / options.image_tmpl.format(1)).exists() and not options.overwrite:
        return 0
    count, damage = 0, None
    with finished_frames(folder, options.image_tmpl, partial_folder(folder)) as partial:
        try:
            for picture in decoded_frames(video, height=options.height, max_frames=options.max_frames):
                count += 1
                Image.fromarray(picture).save(partial / options.image_tmpl.format(count), quality=options.quality)
        except InputError as error:
            damage = str(error).removeprefix(f"{video}: ")
            if not (options.keep_damaged and count):
                raise InputError(damage) from None
    if damage:
        raise InputError(f"{damage}; its first {count} frames were kept")
    return count


def add_run_options(parser: argparse.ArgumentParser, *, timeout_s: int) -> None:
    """The options of every tool that decodes whole videos: limits, --overwrite, --jobs."""
    parser.add_argument("--max_frames", type=at_least(1), default=100_000, help="refuse longer videos")
    parser.add_argument("--timeout", type=positive, default=timeout_s, metavar="SECONDS", help="limit for one video")
    parser.add_argument("--overwrite", action="store_true", help="redo finished videos")
    add_jobs_option(parser)


def vid2img(
    argv: Sequence[str] | None,
    *,
    doc: str,
    height: int,
    image_tmpl: str,
    flat: bool = False,
) -> int:
    """The command of a vid2img tool: extract every video below a folder.

    A video's frames get a folder of the same path below OUT_ROOT, or, where `flat`, of its name. Returns 1 if any
    failed.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=ShowDefaults)
    parser.add_argument("video_root", help="folder of the video files, at any depth")
    parser.add_argument("out_root", help="folder to write a folder of frames for each video to")
    parser.add_argument(
        "--height", type=at_least(0), default=height, help="of the frames, in pixels; 0: the video's own"
    )
    parser.add_argument(
        "--quality", type=_quality, default=BEST_QUALITY, help="JPEG quality: 1 to 100, or best (default: best)"
    )
    parser.add_argument("--keep_damaged", action="store_true", help="keep the frames before the damage")
    add_run_options(parser, timeout_s=3600)
    args = parser.parse_args(argv)
    root, out = existing_folder(args.video_root, "videos"), Path(args.out_root)
    videos = find_videos(root)
    if not videos:
        raise InputError(f"{root}: no videos in it or its folders")
    jobs = [(root / video, out / (video.stem if flat else video.with_suffix(""))) for video in videos]
    options = Extraction(
        image_tmpl, args.height, args.quality, args.max_frames, keep_damaged=args.keep_damaged, overwrite=args.overwrite
    )
    results = run_extraction(functools.partial(extract_video, options=options), jobs, args)
    print_counts(results)
    return report("videos extracted", videos, results)


def _quality(text: str) -> int:
    if text == "best":
        return BEST_QUALITY
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be best or 1-100, got {value}")
    return value


def run_extraction(
    function: Callable[[tuple[Path, Path]], int], jobs: Sequence[tuple[Path, Path]], args: argparse.Namespace
) -> list[int | Failure]:
    """Run `function` for all (video, folder) jobs by the options of `add_run_options`; a result each, in order.

    Of two videos that would share a folder (`a.mp4` and `a.avi`), the second is a Failure.
    """
    owner: dict[Path, Path] = {}
    clashes = {}
    for index, (video, folder) in enumerate(jobs):
        if owner.setdefault(folder, video) is not video:
            clashes[index] = Failure(f"its frames would share a folder with those of {owner[folder].name}")
    results = run_jobs(
        function,
        [job for index, job in enumerate(jobs) if index not in clashes],
        jobs=args.jobs,
        label="videos",
        timeout_s=args.timeout,
    )
    done = iter(results)
    return [clashes[index] if index in clashes else next(done) for index in range(len(jobs))]
