"""Lists of videos: a line `path num_frames label` each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ops.common.errors import InputError

MIN_TRAIN_FRAMES = 3  # training and validation leave out shorter videos
# The usual endings of what `ops/data/ffmpeg.py` opens; the tools try files with other endings, too.
VIDEO_EXTENSIONS = (
    *(".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts", ".ogv", ".gif"),
    *(".mts", ".m2ts", ".m2t", ".vob", ".asf", ".3g2", ".f4v", ".m1v", ".m2v", ".mpv", ".mk3d", ".qt", ".mj2", ".dv"),
    *(".ogm", ".rm", ".rmvb", ".mxf", ".nut", ".ivf", ".obu", ".wtv", ".y4m", ".divx", ".mod", ".tod", ".trp"),
    *(".h264", ".264", ".hevc", ".h265", ".265", ".vc1"),
)
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # of frames
MAX_LISTED_FRAMES = 10_000_000  # 4.6 days at 25 frames/s: more is a damaged list


class VideoRecord(NamedTuple):
    """One video of a list."""

    path: str  # relative to the data set's root
    num_frames: int
    label: int
    line_number: int  # in the list file, from 1


def read_list(list_file: str | Path, *, num_class: int | None = None) -> list[VideoRecord]:
    """Parse lines `path num_frames label`; the path may hold spaces. Blank lines are passed over.

    Raises InputError with `list:line` for anything else: a missing or empty list, other than three fields, counts that
    are no whole numbers, a label outside [0, num_class).
    """
    try:
        with open(list_file, encoding="utf-8-sig") as file:
            lines = file.readlines()
    except FileNotFoundError:
        raise InputError(
            f"list file {list_file} is not there: give --train_list / --val_list (--test_list), or the root of the "
            "data sets with --root_dataset or TSM_DATA_ROOT"
        ) from None
    except OSError as error:
        raise InputError(f"list file {list_file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"list file {list_file} is not UTF-8 text (byte {error.start})") from None
    records = []
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(_parse_line(line, line_number, num_class))
            except InputError as error:
                raise InputError(f"{list_file}:{line_number}: {error}") from None
    if not records:
        raise InputError(f"list file {list_file} is empty: it needs a line `path num_frames label` for each video")
    return records


def _parse_line(line: str, line_number: int, num_class: int | None) -> VideoRecord:
    fields = line.strip().rsplit(maxsplit=2)
    if len(fields) != 3:
        raise InputError(f"{len(fields)} fields in {line.strip()[:200]!r}, expected `path num_frames label`")
    path, num_frames, label = fields[0], _whole_number(fields[1], "num_frames"), _whole_number(fields[2], "label")
    if num_frames > MAX_LISTED_FRAMES:
        raise InputError(f"num_frames {num_frames} is more than the limit of {MAX_LISTED_FRAMES}")
    if num_class is not None and label >= num_class:
        raise InputError(f"label {label} is out of range: {num_class} classes are numbered 0 to {num_class - 1}")
    if "\0" in path:
        raise InputError(f"the path {path!r} holds a zero byte")
    return VideoRecord(path, num_frames, label, line_number)


def _whole_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError(f"{name} must be a whole number of 0 or more, got {text[:40]!r}")
    return int(text)
