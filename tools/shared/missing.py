"""What the gen_label tools say of annotated videos that are not on disk."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ops.common.errors import counted
from tools.shared.files import VIDEO_SUFFIXES
from tools.shared.report import first_of, print_first
from tools.shared.video_folders import Entry


def _looked_in(entries: Iterable[Entry], root: Path) -> str:
    """The folders that were looked into, those that are not there marked."""
    folders = [root / place for place in dict.fromkeys(place for entry in entries for place in entry.looked_in)]
    return "looked in " + ", ".join(str(path) if path.is_dir() else f"{path} (not there)" for path in folders)


def why_missing(missing: Sequence[Entry], root: Path, *, videos: bool) -> str:
    """Why no list has a video, when all of them are missing: the first one, where it was looked for, what is there."""
    if not missing:
        return "the annotations name no videos"
    first = missing[0]
    folder = next((path for place in first.looked_in if (path := root / place).is_dir()), root)
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    there = f"{folder} holds {first_of(names)}" if names else f"{folder} is empty"
    if not videos and any(os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in names):
        there += ": --videos lists video files"
    return f"none of its videos is in {root} ({first.name}: {_looked_in([first], root)}; {there})"


def report_missing(missing: Sequence[Entry], entries: Sequence[Entry], classes: Sequence[str], root: Path) -> None:
    """Print on stderr how many videos of each class are missing, the class that misses most first, and where they
    were looked for. A video that several lists name counts once."""
    of_class: dict[int | None, dict[str, Entry]] = {}
    for entry in missing:
        of_class.setdefault(entry.label, {})[entry.name] = entry
    listed = Counter(label for _, label in {(entry.name, entry.label) for entry in entries})
    print(f"missing, left out: {counted(sum(map(len, of_class.values())), 'video')}", file=sys.stderr)
    lines = []
    for label, found in sorted(of_class.items(), key=lambda item: -len(item[1])):
        name = "videos without a label" if label is None else classes[label]
        where = _looked_in(found.values(), root)
        lines.append(f"  {name}: {len(found)} of {listed[label]}: {first_of(list(found))}; {where}")
    print_first(lines)
