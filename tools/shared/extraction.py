"""One video file -> one folder of JPEG frames: what the vid2img tools share."""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ops.common.errors import InputError, at_least
from ops.data.ffmpeg import RgbConverter, naming, open_video
from tools.shared.jobs import Failure, add_jobs_option, run_jobs, shown

# `best` of the published tools is ffmpeg's -q:v 0: about here on Pillow's scale. More costs disk and decoding only.
BEST_QUALITY = 95
PARTIAL = ".partial"
MAX_NAME_BYTES = 255  # of a file name, on the file systems in use
# Headers of sound files are off by a few frames (edit lists, variable rate); a cut file lacks more.
SHARE_THAT_MAY_LACK = 0.05
FRAMES_THAT_MAY_LACK = 2


@dataclass(frozen=True)
class Extraction:
    """How frames are written: file names, height in pixels (0: the video's own), JPEG quality 1-100, limits."""

    image_tmpl: str
    height: int
    quality: int = BEST_QUALITY
    max_frames: int = 100_000
    keep_damaged: bool = False
    overwrite: bool = False


def frame_folder(video: Path) -> Path:
    """Folder of a video's frames, both relative to their roots: its path without the extension."""
    return video.with_suffix("")


def partial_folder(folder: Path) -> Path:
    """Where the frames of `folder` are gathered while they are incomplete."""
    name = f".{folder.name}{PARTIAL}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise InputError(f"its name is longer than {MAX_NAME_BYTES - len(PARTIAL) - 1} bytes: rename it")
    return folder.with_name(name)


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
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the body ends well, and is removed when it raises.

    A killed run leaves the partial folder behind; the next run starts it anew.
    """
    with scratch_folder(partial_folder(folder)) as partial:
        yield partial
        if folder.is_dir():
            if any(entry.is_dir() for entry in folder.iterdir()):
                raise InputError(f"{shown(folder)} holds folders, not frames only: not replaced")
            shutil.rmtree(folder)
        partial.rename(folder)


def is_done(folder: Path) -> bool:
    """Whether the folder holds anything: folders appear when they are complete."""
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False


def promised_end_s(container: av.container.InputContainer) -> float | None:
    """Where the video ends by its container's header, in seconds; None where the header does not say it of the video.

    Matroska and WebM count no frames, but keep a duration: a tag of the stream, or, of a lone stream, the file's.
    """
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def decoded_frames(video: Path, *, height: int = 0, max_frames: int = 100_000) -> Iterator[np.ndarray]:
    """Every frame of a video as uint8 (H, W, 3) RGB, in order: the pictures that training from video files sees.

    Raises InputError, after the frames that can be had, for a file that is no video, damaged, cut short, or longer than
    `max_frames`.
    """
    convert = RgbConverter(height or None)
    count, last_s = 0, None
    with open_video(str(video)) as container, naming(str(video)):
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise InputError(f"{video}: damaged: frame {count + 1} cannot be decoded whole")
            if count == max_frames:
                raise InputError(f"{video}: has more than {max_frames} frames (--max_frames)")
            yield convert(frame)
            count, last_s = count + 1, frame.time
        promised, end_s, rate = stream.frames, promised_end_s(container), stream.average_rate
    if not count:
        raise InputError(f"{video}: holds no frame")
    if count < promised * (1 - SHARE_THAT_MAY_LACK) - FRAMES_THAT_MAY_LACK:
        raise InputError(f"{video}: cut short: {count} frames of {promised}")
    if not promised and end_s and last_s is not None and rate:
        shown_s = last_s + (1 + FRAMES_THAT_MAY_LACK) / float(rate)
        if shown_s < end_s * (1 - SHARE_THAT_MAY_LACK):
            raise InputError(f"{video}: cut short: it ends after {last_s:.2f} s of {end_s:.2f} s")


def extract_video(job: tuple[Path, Path], options: Extraction) -> int:
    """Write every frame of a video (job[0]) to a folder (job[1]), numbered from 1; returns how many, 0 if it was there.

    The folder appears when it is complete, never before. Raises InputError as `decoded_frames` does, less the path;
    with `keep_damaged` the frames before the damage are kept all the same.
    """
    video, folder = job
    if is_done(folder) and not options.overwrite:
        return 0
    count, damage = 0, None
    with whole_folder(folder) as partial:
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


def add_extraction_options(parser: argparse.ArgumentParser, *, height: int) -> None:
    """The options that the vid2img tools share."""
    parser.add_argument(
        "--height", type=at_least(0), default=height, help="of the frames, in pixels; 0: as the video (%(default)s)"
    )
    parser.add_argument("--quality", type=_quality, default=BEST_QUALITY, help="JPEG quality: best, or 1-100 (best)")
    parser.add_argument(
        "--max_frames", type=at_least(1), default=100_000, help="longer videos are refused (%(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="for one video (%(default)s)")
    parser.add_argument("--keep_damaged", action="store_true", help="keep the frames before the damage")
    parser.add_argument("--overwrite", action="store_true", help="redo videos that are done")
    add_jobs_option(parser)


def _quality(text: str) -> int:
    if text == "best":
        return BEST_QUALITY
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be best or 1-100, got {value}")
    return value


def extract_all(args: argparse.Namespace, jobs: Sequence[tuple[Path, Path]], image_tmpl: str) -> list[int | Failure]:
    """Extract all (video, folder) jobs by the options of `add_extraction_options`; a result each, in order.

    Of two videos that would share a folder (`a.mp4` and `a.avi`), the second is a Failure; so is one whose frames would
    lie among the folders of others (`a.mp4` beside `a/b.mp4`).
    """
    options = Extraction(
        image_tmpl, args.height, args.quality, args.max_frames, keep_damaged=args.keep_damaged, overwrite=args.overwrite
    )
    owner: dict[Path, Path] = {}
    for video, folder in jobs:
        owner.setdefault(folder, video)
    parents = {parent for folder in owner for parent in folder.parents}
    clashes = {}
    for index, (video, folder) in enumerate(jobs):
        if owner[folder] is not video:
            clashes[index] = Failure(f"its frames would share a folder with those of {shown(owner[folder].name)}")
        elif folder in parents:
            clashes[index] = Failure(f"its frames would lie among the folders of {shown(folder.name)}/")
    results = run_jobs(
        functools.partial(extract_video, options=options),
        [job for index, job in enumerate(jobs) if index not in clashes],
        jobs=args.jobs,
        label="videos",
        timeout_s=args.timeout,
    )
    done = iter(results)
    return [clashes[index] if index in clashes else next(done) for index in range(len(jobs))]


def print_counts(results: Sequence[int | Failure]) -> None:
    """Print how many frames were written and how many videos had been done before."""
    counts = [result for result in results if not isinstance(result, Failure)]
    print(f"frames written: {sum(counts)} (videos done before: {counts.count(0)})")
