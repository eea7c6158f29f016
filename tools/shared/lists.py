"""From videos on disk to list files (`path num_frames label`): what the gen_label tools share."""

from __future__ import annotations

import argparse
import functools
import os
import re
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ops.common.errors import InputError, counted, escaped
from ops.common.files import write_lines
from ops.data.sources import FrameFolder, VideoFile, num_template_fields, numbered_folder
from ops.dataset import find_video_file
from ops.dataset_config import DATASETS
from ops.opts import ShowDefaults
from tools.shared.files import existing_folder, find_videos
from tools.shared.jobs import Failure, add_jobs_option, run_jobs
from tools.shared.missing import report_missing, why_missing
from tools.shared.report import print_first
from tools.shared.video_folders import Entry, VideoFolders

_IMAGE_NAME = re.compile(r"(.*?)(\d+)(\.(?:jpe?g|png|bmp|webp))", re.IGNORECASE)
# Entries of each (subset, split), such as ("train", 1).
Subsets = Mapping[tuple[str, int], Sequence[Entry]]


# --- counting frames --------------------------------------------------------------------------------------------------


def frame_number_pattern(image_tmpl: str) -> re.Pattern[str]:
    """What matches the frame files of a template; the last group is the frame's number."""
    pattern = ""
    for literal, field, spec, _ in string.Formatter().parse(image_tmpl):
        pattern += re.escape(literal)
        if field is not None:
            pattern += _number_pattern(spec) if spec.endswith("d") else "(?:[xy])"
    return re.compile(pattern)


def _number_pattern(spec: str) -> str:
    """What matches a number as `spec` writes it: `05d` takes 00012 and 123456, but neither 12 nor 000012."""
    padded = re.fullmatch(r"0(\d+)d", spec)
    return rf"(\d{{{padded[1]}}}|[1-9]\d{{{padded[1]},}})" if padded else r"(\d+)"


def last_frame_number(folder: str | Path, image_tmpl: str) -> int:
    """Highest frame number of the files in a folder, 0 if there are none."""
    pattern = frame_number_pattern(image_tmpl)
    found = (pattern.fullmatch(name) for name in os.listdir(folder))
    return max((int(match[pattern.groups]) for match in found if match), default=0)


def example_of(names: Iterable[str]) -> str:
    """What a folder without the expected frames holds: `, but frame000001.jpg: --image_tmpl 'frame{:06d}.jpg'`."""
    names = sorted(name for name in names if not name.startswith("."))
    images = [match for match in map(_IMAGE_NAME.fullmatch, names) if match]
    if not images:
        return f", but {names[0]}" if names else ""
    prefix, number, suffix = images[0].groups()
    is_flow = re.search(r"(^|[_-])[xy]_?$", prefix)
    advice = "" if is_flow else f": --image_tmpl '{prefix}{{:0{len(number)}d}}{suffix}'"
    return f", but {images[0][0]}{advice}"


def count_images(folder: str | Path, image_tmpl: str) -> int:
    """Number of frames in a folder; of flow in x and y files, of those where both are there.

    Raises InputError where a frame is missing among later ones, or there is none at all.
    """
    frames = FrameFolder(folder, image_tmpl, "Flow" if num_template_fields(image_tmpl) > 1 else "RGB")
    count = frames.count_frames()
    last = last_frame_number(folder, image_tmpl)
    if last > count:
        missing = next(path for path in frames.paths(count) if not os.path.exists(path))
        raise InputError(f"{os.path.basename(missing)} is missing, though {last} is there")
    if not count:
        wanted = os.path.basename(frames.paths(0)[0])
        raise InputError(f"no frames: nothing like {wanted} in it{example_of(os.listdir(folder))}")
    return count


def entries_per_frame(image_tmpl: str) -> int:
    """What a frame counts in a list: 2 with the video's number in its name (something v1 flow: x and y files)."""
    return 2 if num_template_fields(image_tmpl) == 3 else 1


def _count(entry: Entry, *, root: Path, image_tmpl: str | None) -> int | None:
    """What the list says of an entry; None where it is not on disk. `image_tmpl` None: root holds video files."""
    if entry.path is None:
        return None
    if "\n" in entry.path or "\r" in entry.path or entry.path != entry.path.strip():
        raise InputError("a list cannot hold this name (line break, or blank at an end): rename it")
    path = root / entry.path
    if image_tmpl is not None:
        if entries_per_frame(image_tmpl) > 1:
            path = Path(numbered_folder(str(path)))
        return count_images(path, image_tmpl) * entries_per_frame(image_tmpl) if path.is_dir() else None
    count = VideoFile(find_video_file(str(path))).count_frames()
    if not count:
        raise InputError("holds no frame")
    return count


# --- writing lists ----------------------------------------------------------------------------------------------------


def _write_lists(
    lists: Mapping[Path, Sequence[Entry]], classes: Sequence[str], *, root: Path, image_tmpl: str | None, jobs: int
) -> int:
    """Count the frames of all entries and write the lists; returns the exit status.

    Videos that are missing, cannot be counted, or come a second time are left out and reported; the status is 1 for the
    last two. Missing ones are usual (Kinetics loses videos by the week). A list without a single video is not written,
    and the status is 1 unless it is the test list; if no list has a video, the root must be wrong: InputError.
    `image_tmpl` None counts the frames of video files.
    """
    entries = [(path, entry) for path, group in lists.items() for entry in group]
    work = functools.partial(_count, root=root, image_tmpl=image_tmpl)
    counts = run_jobs(work, [entry for _, entry in entries], jobs=jobs, label="videos")
    lines: dict[Path, dict[str, str]] = {path: {} for path in lists}
    missing, failed = [], []
    for (path, entry), count in zip(entries, counts, strict=True):
        if count is None:
            missing.append(entry)
        elif entry.path in lines[path]:
            failed.append(f"  {entry.path}: a second time in the annotations of {path.name}")
        elif isinstance(count, Failure):
            failed.append(f"  {entry.path}: {count.reason}")
        else:
            lines[path][entry.path] = f"{entry.path} {count} {entry.label or 0}"
    if not any(lines.values()):
        reason = failed[0].strip() if failed else why_missing(missing, root, videos=image_tmpl is None)
        raise InputError(f"{next(iter(lists))} would be empty: {reason}")
    status = 1 if failed else 0
    for path, group in lines.items():
        if group:
            write_lines(path, group.values())
            print(escaped(f"{path}: {len(group)} of {counted(len(lists[path]), 'video')}"))
        else:
            earlier = " (the list there is of an earlier run)" if path.exists() else ""
            named = counted(len(lists[path]), "video")
            print(escaped(f"{path}: not written, 0 of {named}{earlier}"), file=sys.stderr)
            status = status if path.name.startswith("test") else 1
    if missing:
        report_missing(missing, [entry for _, entry in entries], classes, root)
    if failed:
        print(f"unreadable, left out: {len(failed)}", file=sys.stderr)
        print_first(failed)
    return status


def list_parser(doc: str, *, annotations: str | None, splits: bool = False) -> argparse.ArgumentParser:
    """The options of the gen_label tools; `annotations` and `splits` add those that not all have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=ShowDefaults, allow_abbrev=False)
    parser.add_argument("root", help="folder of the frame folders (with --videos: of the video files)")
    parser.add_argument("--out", required=True, help="folder to write the lists to")
    if annotations:
        parser.add_argument("--annotations", type=Path, required=True, help=f"folder of {annotations}")
    if splits:
        parser.add_argument(
            "--splits", type=int, nargs="+", choices=(1, 2, 3), default=(1, 2, 3), help="splits to write (default: all)"
        )
    parser.add_argument("--flow", action="store_true", help="ROOT holds flow: write the flow lists")
    parser.add_argument("--videos", action="store_true", help="ROOT holds video files: count their frames")
    parser.add_argument("--image_tmpl", help="name of a frame, such as img_{:05d}.jpg (default: the data set's own)")
    add_jobs_option(parser)
    return parser


def frame_template(args: argparse.Namespace, dataset: str) -> str | None:
    """Name of a frame file below `root`; None where it holds video files."""
    spec = DATASETS[dataset]
    return None if args.videos else args.image_tmpl or (spec.flow_tmpl if args.flow else spec.image_tmpl)


def video_folders(args: argparse.Namespace, dataset: str) -> VideoFolders:
    """The folders below `root`."""
    if args.flow and args.videos:
        raise InputError("--flow and --videos exclude each other: video files hold no flow")
    image_tmpl = frame_template(args, dataset)
    padded = image_tmpl is not None and entries_per_frame(image_tmpl) > 1
    return VideoFolders(existing_folder(args.root, "frame folders"), videos=args.videos, padded=padded)


def write_dataset(args: argparse.Namespace, dataset: str, subsets: Subsets, classes: Sequence[str]) -> int:
    """Write the lists and category.txt of a row of the table of data sets; returns the exit status."""
    spec = DATASETS[dataset]
    if args.videos:
        find_videos(Path(args.root))  # names the files that are none
    names = spec.flow_lists if args.flow else spec.lists
    out = Path(args.out)
    status = _write_lists(
        {out / Path(names.format(subset=s, split=split)).name: entries for (s, split), entries in subsets.items()},
        classes,
        root=Path(args.root),
        image_tmpl=frame_template(args, dataset),
        jobs=args.jobs,
    )
    write_lines(out / "category.txt", classes)
    print(escaped(f"{out / 'category.txt'}: {counted(len(classes), 'class', 'classes')}"))
    return status
