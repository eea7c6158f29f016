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

from ops.common.errors import InputError, counted
from ops.data.sources import FrameFolder, VideoFile, num_template_fields
from ops.dataset import find_video_file
from ops.dataset_configs import DATASETS
from tools.shared.jobs import (
    MAX_LISTED_FAILURES,
    VIDEO_SUFFIXES,
    Failure,
    add_jobs_option,
    existing_folder,
    numbered_lines,
    run_jobs,
    shown,
    write_lines,
)


@dataclass(frozen=True)
class Entry:
    """One video of a list before its frames are counted; `path` is relative to the root, None where there is none."""

    name: str  # as the annotations call it
    path: str | None
    label: int


@dataclass(frozen=True)
class Missing:
    """An annotated video that is not on disk."""


class VideoFolders:
    """Finds videos below a root by class and name, each folder listed once."""

    def __init__(self, root: Path, *, videos: bool) -> None:
        self.root = root
        self.videos = videos
        self._listing = functools.cache(self._list)

    def _list(self, folder: str) -> dict[str, str]:
        """Name of what a list may call a video -> its name on disk; empty if there is no such folder."""
        try:
            with os.scandir(self.root / folder) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:  # not ours to look into, a link to itself, a name that no disk can hold
            raise InputError(f"{shown(self.root / folder)}: {getattr(error, 'strerror', None) or error}") from None
        if not self.videos:
            return {name: name for name, is_folder in found if is_folder}
        names: dict[str, str] = {}
        for name, is_folder in found:
            stem, suffix = os.path.splitext(name)
            if not is_folder and suffix.lower() in VIDEO_SUFFIXES:
                if stem in names:
                    raise InputError(
                        f"{shown(self.root / folder)}: {shown(name)} and {shown(names[stem])} would be one video in a "
                        "list: rename one"
                    )
                names[stem] = name
        return names

    def classes(self, folder: str) -> list[str]:
        """Folders in a folder, sorted; those of videos only."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        except FileNotFoundError:
            return []

    def names(self, folder: str) -> list[str]:
        """What lists may call the videos of a folder, sorted."""
        return sorted(self._listing(folder))

    def find(self, folders: Sequence[str], names: Sequence[str]) -> str | None:
        """Path, relative to the root, of the first of these videos that is in one of these folders."""
        for folder in folders:
            listing = self._listing(folder)
            for name in names:
                if name in listing:
                    return f"{folder}/{name}" if folder else name
        return None


def frame_number_pattern(image_tmpl: str) -> re.Pattern[str]:
    """What matches the frame files of a template; the last group is the frame's number."""
    pattern = ""
    for literal, field, spec, _ in string.Formatter().parse(image_tmpl):
        pattern += re.escape(literal)
        if field is not None:
            pattern += r"(\d+)" if spec.endswith("d") else "(?:[xy])"
    return re.compile(pattern)


def last_frame_number(folder: str | Path, image_tmpl: str) -> int:
    """Highest frame number of the files in a folder, 0 if there are none."""
    pattern = frame_number_pattern(image_tmpl)
    found = (pattern.fullmatch(name) for name in os.listdir(folder))
    return max((int(match[pattern.groups]) for match in found if match), default=0)


def count_images(folder: str | Path, image_tmpl: str) -> int:
    """Number of frames in a folder; of flow in x and y files, of those where both are there.

    Raises InputError where a frame is missing among later ones, or there is none at all.
    """
    frames = FrameFolder(folder, image_tmpl, "Flow" if num_template_fields(image_tmpl) > 1 else "RGB")
    count = frames.count_frames()
    last = last_frame_number(folder, image_tmpl)
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

    Videos that are missing, cannot be counted, or come a second time are left out and reported; the status is 1 for the
    last two. Missing ones are everyday life (Kinetics loses videos by the week), but if all are, the root must be
    wrong: InputError, and nothing is written.

    Args:
        image_tmpl: name of a frame; None counts the frames of video files instead.
        per_frame: what a frame counts in the list (something v1 flow: 2).
    """
    entries = [(path, entry) for path, group in lists.items() for entry in group]
    work = functools.partial(_count, root=root, image_tmpl=image_tmpl, per_frame=per_frame)
    counts = run_jobs(work, [entry for _, entry in entries], jobs=jobs, label="videos")
    lines: dict[Path, list[str]] = {path: [] for path in lists}
    missing, failed = [], []
    seen = set()
    for (path, entry), count in zip(entries, counts, strict=True):
        if isinstance(count, Missing):
            missing.append(shown(entry.name))
        elif (path, entry.path) in seen:
            failed.append(f"{shown(entry.path)}: a second time in the annotations of {shown(path.name)}")
        elif isinstance(count, Failure):
            failed.append(f"{shown(entry.path)}: {shown(count.reason)}")
        else:
            seen.add((path, entry.path))
            lines[path].append(f"{entry.path} {count} {entry.label}")
    for path, group in lines.items():
        if not group:
            example = (missing + failed + ["the annotations name none"])[0]
            raise InputError(f"{shown(path)} would be empty: none of its videos is in {shown(root)} ({example})")
    for path, group in lines.items():
        write_lines(path, group)
        print(f"{shown(path)}: {len(group)} of {counted(len(lists[path]), 'video')}")
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
    print(f"{shown(path)}: {counted(len(names), 'class', 'classes')}")


def read_id_label_csvs(
    annotations: Path, prefix: str, folders: VideoFolders
) -> tuple[list[str], dict[tuple[str, int], list[Entry]]]:
    """Sorted class names, and entries by (subset, split), of the `id;label` files of something v1 and Jester.

    `{prefix}-{labels,train,validation,test}.csv` are read; the test file is optional, has no labels, and gets label 0.
    """
    classes = sorted(line.strip() for _, line in numbered_lines(annotations / f"{prefix}-labels.csv"))
    labels = {name: label for label, name in enumerate(classes)}
    if len(labels) < len(classes):
        raise InputError(f"{shown(annotations / f'{prefix}-labels.csv')}: a class is there twice")
    subsets: dict[tuple[str, int], list[Entry]] = {}
    for subset, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        path = annotations / f"{prefix}-{file}.csv"
        if subset == "test" and not path.exists():
            continue
        entries = subsets[subset, 1] = []
        for number, line in numbered_lines(path):
            video, _, name = (part.strip() for part in line.partition(";"))
            if subset != "test" and name not in labels:
                problem = f"class {name!r} is not in {prefix}-labels.csv" if name else "expected `id;label`"
                raise InputError(f"{shown(path)}:{number}: {problem}, got {line[:100]!r}")
            entries.append(Entry(video, folders.find([""], [video]), labels[name] if subset != "test" else 0))
    return classes, subsets


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that the gen_label tools share."""
    parser.add_argument("root", help="folder of the frame folders (or, with --videos, of the video files)")
    parser.add_argument("--out", required=True, help="folder to write the lists to")
    parser.add_argument("--flow", action="store_true", help="the folders hold flow: write the flow lists")
    parser.add_argument("--videos", action="store_true", help="count the frames of video files")
    parser.add_argument("--image_tmpl", help="name of a frame (default: the data set's own)")
    add_jobs_option(parser)


def video_folders(args: argparse.Namespace) -> VideoFolders:
    """The folders below `root`."""
    if args.flow and args.videos:
        raise InputError("--flow and --videos exclude each other: video files hold no flow")
    return VideoFolders(existing_folder(args.root, "frame folders"), videos=args.videos)


def write_dataset(
    args: argparse.Namespace, dataset: str, subsets: Mapping[tuple[str, int], Sequence[Entry]], classes: Sequence[str]
) -> int:
    """Write the lists of (subset, split) and category.txt for a row of the table of data sets; the exit status."""
    spec = DATASETS[dataset]
    names = spec.flow_lists if args.flow else spec.lists
    image_tmpl = args.image_tmpl or (spec.flow_tmpl if args.flow else spec.image_tmpl)
    status = write_lists(
        {
            Path(args.out) / Path(names.format(subset=subset, split=split)).name: entries
            for (subset, split), entries in subsets.items()
        },
        root=Path(args.root),
        image_tmpl=None if args.videos else image_tmpl,
        jobs=args.jobs,
        # With the number of the video in the name (something v1 flow), lists count x and y files.
        per_frame=2 if num_template_fields(image_tmpl) == 3 else 1,
    )
    write_categories(Path(args.out) / "category.txt", classes)
    return status
