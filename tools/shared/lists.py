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

from ops.common.errors import InputError, counted, escaped
from ops.common.files import write_lines
from ops.data.sources import FrameFolder, VideoFile, num_template_fields
from ops.dataset import find_video_file
from ops.dataset_configs import DATASETS
from ops.opts import ShowDefaults
from tools.shared.files import VIDEO_SUFFIXES, existing_folder, numbered_lines
from tools.shared.jobs import Failure, add_jobs_option, run_jobs
from tools.shared.report import print_first

# Entries of each (subset, split), such as ("train", 1).
Subsets = Mapping[tuple[str, int], Sequence["Entry"]]


@dataclass(frozen=True)
class Entry:
    """One video of a list before its frames are counted; `path` is relative to the root, None where there is none."""

    name: str  # as the annotations call it
    path: str | None
    label: int


class VideoFolders:
    """Finds videos below a root by class and name; each folder is listed once."""

    def __init__(self, root: Path, *, videos: bool) -> None:
        self.root = root
        self.videos = videos
        self._listing = functools.cache(self._list)

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """(name, whether it is a folder), sorted; none where there is no such folder."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:  # no permission, or a name that no disk can hold
            raise InputError(f"{self.root / folder}: {getattr(error, 'strerror', None) or error}") from None

    def _list(self, folder: str) -> dict[str, str]:
        """What a list may call a video -> its name on disk."""
        if not self.videos:
            return {name: name for name in self.classes(folder)}
        names: dict[str, str] = {}
        for name, is_folder in self._entries(folder):
            stem, suffix = os.path.splitext(name)
            if is_folder or suffix.lower() not in VIDEO_SUFFIXES:
                continue
            if stem in names:
                raise InputError(
                    f"{self.root / folder}: {name} and {names[stem]} would be one video in a list: rename one"
                )
            names[stem] = name
        return names

    def classes(self, folder: str) -> list[str]:
        """Folders in a folder, sorted."""
        return [name for name, is_folder in self._entries(folder) if is_folder]

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


# --- counting frames --------------------------------------------------------------------------------------------------


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
        missing = next(path for path in frames.paths(count) if not os.path.exists(path))
        raise InputError(f"{os.path.basename(missing)} is missing, though {last} is there")
    if not count:
        raise InputError(f"no frames: nothing like {os.path.basename(frames.paths(0)[0])} in it")
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
        return count_images(path, image_tmpl) * entries_per_frame(image_tmpl) if path.is_dir() else None
    count = VideoFile(find_video_file(str(path))).count_frames()
    if not count:
        raise InputError("holds no frame")
    return count


# --- writing lists ----------------------------------------------------------------------------------------------------


def _write_lists(lists: Mapping[Path, Sequence[Entry]], *, root: Path, image_tmpl: str | None, jobs: int) -> int:
    """Count the frames of all entries and write the lists; returns the exit status.

    Videos that are missing, cannot be counted, or come a second time are left out and reported; the status is 1 for the
    last two. Missing ones are usual (Kinetics loses videos by the week), but if all are, the root must be wrong:
    InputError, and nothing is written. `image_tmpl` None counts the frames of video files.
    """
    entries = [(path, entry) for path, group in lists.items() for entry in group]
    work = functools.partial(_count, root=root, image_tmpl=image_tmpl)
    counts = run_jobs(work, [entry for _, entry in entries], jobs=jobs, label="videos")
    lines: dict[Path, dict[str, str]] = {path: {} for path in lists}
    missing, failed = [], []
    for (path, entry), count in zip(entries, counts, strict=True):
        if count is None:
            missing.append(f"  {entry.name}")
        elif entry.path in lines[path]:
            failed.append(f"  {entry.path}: a second time in the annotations of {path.name}")
        elif isinstance(count, Failure):
            failed.append(f"  {entry.path}: {count.reason}")
        else:
            lines[path][entry.path] = f"{entry.path} {count} {entry.label}"
    for path, group in lines.items():
        if not group:
            example = (missing + failed + ["the annotations name none"])[0].strip()
            raise InputError(f"{path} would be empty: none of its videos is in {root} ({example})")
    for path, group in lines.items():
        write_lines(path, group.values())
        print(escaped(f"{path}: {len(group)} of {counted(len(lists[path]), 'video')}"))
    for what, videos in (("missing", missing), ("unreadable", failed)):
        if videos:
            print(f"{what}, left out: {len(videos)}", file=sys.stderr)
            print_first(videos)
    return 1 if failed else 0


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


def video_folders(args: argparse.Namespace) -> VideoFolders:
    """The folders below `root`."""
    if args.flow and args.videos:
        raise InputError("--flow and --videos exclude each other: video files hold no flow")
    return VideoFolders(existing_folder(args.root, "frame folders"), videos=args.videos)


def write_dataset(args: argparse.Namespace, dataset: str, subsets: Subsets, classes: Sequence[str]) -> int:
    """Write the lists and category.txt of a row of the table of data sets; returns the exit status."""
    spec = DATASETS[dataset]
    names = spec.flow_lists if args.flow else spec.lists
    out = Path(args.out)
    status = _write_lists(
        {out / Path(names.format(subset=s, split=split)).name: entries for (s, split), entries in subsets.items()},
        root=Path(args.root),
        image_tmpl=None if args.videos else args.image_tmpl or (spec.flow_tmpl if args.flow else spec.image_tmpl),
        jobs=args.jobs,
    )
    write_lines(out / "category.txt", classes)
    print(escaped(f"{out / 'category.txt'}: {counted(len(classes), 'class', 'classes')}"))
    return status


def gen_label_from_csvs(argv: Sequence[str] | None, *, doc: str, dataset: str, prefix: str) -> int:
    """The command of something v1 and Jester: lists from `{prefix}-{labels,train,validation,test}.csv`.

    Labels follow the sorted names. The test file is optional; it has no labels, and its list says 0.
    """
    args = list_parser(doc, annotations="the csv files").parse_args(argv)
    folders, labels_file = video_folders(args), args.annotations / f"{prefix}-labels.csv"
    classes = sorted(line.strip() for _, line in numbered_lines(labels_file))
    labels = {name: label for label, name in enumerate(classes)}
    if len(labels) < len(classes):
        raise InputError(f"{labels_file}: a class is there twice")
    subsets: dict[tuple[str, int], list[Entry]] = {}
    for subset, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        path = args.annotations / f"{prefix}-{file}.csv"
        if subset == "test" and not path.exists():
            continue
        entries = subsets[subset, 1] = []
        for number, line in numbered_lines(path):
            video, _, name = (part.strip() for part in line.partition(";"))
            if subset != "test" and name not in labels:
                problem = f"class {name!r} is not in {labels_file.name}" if name else "expected `id;label`"
                raise InputError(f"{path}:{number}: {problem}, got {line[:100]!r}")
            entries.append(Entry(video, folders.find([""], [video]), labels[name] if subset != "test" else 0))
    return write_dataset(args, dataset, subsets, classes)
