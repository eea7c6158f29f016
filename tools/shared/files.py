"""Text files and folders of videos, as the tools read them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ops.common.errors import InputError, counted
from ops.data.ffmpeg import open_video
from ops.data.lists import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from tools.shared.report import print_first

VIDEO_SUFFIXES = frozenset(VIDEO_EXTENSIONS)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file (a byte-order mark is dropped); InputError if it cannot be read as that."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start})") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{found_deeper(Path(path).parent, Path(path).name)}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def found_deeper(folder: Path, pattern: str) -> str:
    """`, but FILE is there` where a folder in `folder` holds a file like `pattern`: archives unpack into one."""
    found = next(iter(sorted(folder.glob(f"*/{pattern}"))), None)
    return f", but {found} is there" if found else ""


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of each line of a text file that is not blank."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def existing_folder(path: str | Path, what: str) -> Path:
    """`path` as a Path, if it is a folder; else InputError that says what the folder was to hold."""
    path = Path(path)
    if not path.is_dir():
        kind = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"{path} {kind}: give the folder of {what}")
    return path


def annotation_file(folder: Path, prefix: str, name: str) -> Path:
    """Path of an annotation file: `{prefix}-{name}`, or `{name}` as newer packages have it, there or in labels/."""
    candidates = [place / file for place in (folder, folder / "labels") for file in (f"{prefix}-{name}", name)]
    return next((path for path in candidates if path.exists()), candidates[0])


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of a folder and all below it, through links; hidden ones are left out."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        yield folder, [name for name in files if not name.startswith(".")]
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and not _is_loop(os.path.join(folder, name))
        )


def _is_loop(folder: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    if not os.path.islink(folder):
        return False
    target, parent = os.path.realpath(folder), os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([target, parent]) == target


def is_video(path: Path) -> bool:
    """Whether a file has the ending of a video, or another (but no picture's) and opens as one."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGE_EXTENSIONS:  # a frame folder holds too many pictures to try each
        return suffix in VIDEO_SUFFIXES
    try:
        with open_video(str(path)):
            return True
    except InputError:
        return False


def videos_and_others(root: Path) -> tuple[list[Path], list[Path]]:
    """All video files below `root`, and all others, sorted, as paths relative to it."""
    videos, others = [], []
    for folder, files in walk(root):
        for path in (Path(folder, name) for name in files):
            (videos if is_video(path) else others).append(path.relative_to(root))
    return sorted(videos, key=Path.as_posix), sorted(others, key=Path.as_posix)


def find_videos(root: Path) -> list[Path]:
    """The videos of `videos_and_others`; the other files are counted and named on stderr."""
    videos, others = videos_and_others(root)
    if others:
        print(f"no video, left out: {counted(len(others), 'file')}", file=sys.stderr)
        print_first([f"  {path.as_posix()}" for path in others])
    return videos
