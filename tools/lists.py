"""From videos on disk to list files (`path num_frames label`): what the gen_label tools share."""

from __future__ import annotations

import argparse
import functools
import os
import re
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.dataset import find_video_file
from ops.errors import InputError
from ops.video import FrameFolder, VideoFile, num_template_fields
from tools.common import MAX_LISTED_FAILURES, Failure, add_jobs_option, run_jobs, shown, write_lines


@dataclass(frozen=True)
class Entry:
    """One video of a list before its frames are counted; `path` is relative to the root, None where there is none."""

    name: str  # as the annotations call it
    path: str | None
    label: int


@dataclass(frozen=True)
class Missing:
    """An annotated video that is not on disk."""


def frame_number_pattern(image_tmpl: str) -> re.Pattern[str]:
    """What matches the frame files of a template; the last group is the frame's number."""
    pattern = ""
    for literal, field, spec, _ in string.Formatter().parse(image_tmpl):
        pattern += re.escape(literal)
        if field is not None:
            pattern += r"(\d+)" if spec.endswith("d") else "(?:[xy])"
    return re.compile(pattern)


def count_images(folder: str | Path, image_tmpl: str) -> int:
    """Number of frames in a folder; of flow in x and y files, of those where both are there.

    Raises InputError where a frame is missing among later ones, or there is none at all.
    """
    modality = "Flow" if num_template_fields(image_tmpl) > 1 else "RGB"
    frames = FrameFolder(folder, image_tmpl, modality)
    count = frames.count_frames()
    pattern = frame_number_pattern(image_tmpl)
    last = max(
        (int(found[found.lastindex]) for name in os.listdir(folder) if (found := pattern.fullmatch(name))), default=0
    )
    if last > count:
        lacking = next(path for path in frames.paths(count) if not os.path.exists(path))
        raise InputError(f"{os.path.basename(lacking)} is missing, though {last} is there")
    if not count:
        raise InputError(f"no frames: nothing like {os.path.basename(frames.paths(0)[0])} in it")
    return count


def count_video(path: str | Path) -> int:
    """Number of frames of a video file, by decoding it."""
    count = VideoFile(path).count_frames()
    if not count:
        raise InputError("holds no frame")
    return count


def _count(entry: Entry, *, root: Path, image_tmpl: str | None, per_frame: int) -> int | Missing:
    if entry.path is None:
        return Missing()
    if "\n" in entry.path or "\r" in entry.path or entry.path != entry.path.strip():
        raise InputError("a list cannot hold this name (line break, or blank at an end): rename it")
    path = root / entry.path
    if image_tmpl is None:
        return count_video(find_video_file(str(path)))
    return count_images(path, image_tmpl) * per_frame if path.is_dir() else Missing()


def write_lists(
    lists: Mapping[Path, Sequence[Entry]],
    *,
    root: Path,
    image_tmpl: str | None,
    jobs: int,
    per_frame: int = 1,
) -> int:
    """Count the frames of all entries and write the lists; returns the exit status.

    Videos that are missing or cannot be counted are left out and reported; the status is 1 for the latter. Missing
    ones are everyday life (Kinetics loses videos by the week), but if all are, the root must be wrong: InputError,
    and nothing is written.

    Args:
        image_tmpl: name of a frame; None counts the frames of video files instead.
        per_frame: what a frame counts in the list (something v1 flow: 2).
    """
    entries = [(path, entry) for path, group in lists.items() for entry in group]
    work = functools.partial(_count, root=root, image_tmpl=image_tmpl, per_frame=per_frame)
    counts = run_jobs(work, [entry for _, entry in entries], jobs=jobs, label="videos")
    lines: dict[Path, list[str]] = {path: [] for path in lists}
    missing, failed = [], []
    for (path, entry), count in zip(entries, counts, strict=True):
        if isinstance(count, Missing):
            missing.append(shown(entry.name))
        elif isinstance(count, Failure):
            failed.append(f"{shown(entry.path)}: {shown(count.reason)}")
        else:
            lines[path].append(f"{entry.path} {count} {entry.label}")
    for path, group in lines.items():
        if not group:
            example = (missing + failed + ["the annotations name none"])[0]
            raise InputError(f"{shown(path)} would be empty: none of its videos is in {shown(root)} ({example})")
    for path, group in lines.items():
        write_lines(path, group)
        print(f"{shown(path)}: {len(group)} of {len(lists[path])} videos")
    for what, names in (("missing", missing), ("unreadable", failed)):
        if names:
            print(f"{what}, left out: {len(names)}", file=sys.stderr)
            for name in names[:MAX_LISTED_FAILURES]:
                print(f"  {name}", file=sys.stderr)
            if len(names) > MAX_LISTED_FAILURES:
                print(f"  ... and {len(names) - MAX_LISTED_FAILURES} more", file=sys.stderr)
    return 1 if failed else 0


def write_categories(path: Path, names: Sequence[str]) -> None:
    """Write class names in label order, a name a line."""
    write_lines(path, names)
    print(f"{shown(path)}: {len(names)} classes")


def add_list_options(parser: argparse.ArgumentParser, *, flow: bool = True) -> None:
    """The options that the gen_label tools share."""
    if flow:
        parser.add_argument("--flow", action="store_true", help="the folders hold flow: write the flow lists")
    add_jobs_option(parser)
