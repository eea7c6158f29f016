"""Lists for Kinetics and for any data in class folders.

Kinetics, from the csv files as they are distributed (label,youtube_id,time_start,time_end,split[,is_cc]):

    python tools/gen_label_kinetics.py data/kinetics/images --out data/kinetics/labels \\
        --train_csv kinetics_train.csv --val_csv kinetics_val.csv

finds ROOT/<class>/<id>_<start>_<end> and ROOT/<id>_<start>_<end>, start and end as six digits, and the same below
ROOT/{train,val,test}. Spaces, underscores, quotes and brackets of class folders make no difference. Labels follow the
label map.

Class folders, the labels in the alphabetical order of the classes:

    python tools/gen_label_kinetics.py data/mine/images --out data/mine/labels --from_folders

takes ROOT/{train,val}/<class>/<video>, or ROOT/<class>/<video> and sets a share of each class aside for validation.
Clips of one recording should not be in both: with `--group '^[^_]+'`, match3_001 and match3_002 stay together.

Both write train_videofolder.txt, val_videofolder.txt and category.txt. With --videos, ROOT holds video files instead of
frame folders; their lists serve either (paths carry no extension).
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, escaped, run_command
from tools.shared.class_folders import describe_groups, entries_from_folders
from tools.shared.files import numbered_lines
from tools.shared.lists import list_parser, video_folders, write_dataset
from tools.shared.video_folders import Entry, VideoFolders

LABEL_MAP = Path(__file__).with_name("kinetics_label_map.txt")
CSV_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def clean_label(label: str) -> str:
    """A Kinetics class as a folder name: `petting animal (not cat)` -> `petting_animal_not_cat`."""
    return label.replace(" ", "_").translate(str.maketrans("", "", "\"'()"))


def read_label_map(path: str | Path) -> dict[str, int]:
    """Clean class name -> label, from a file with a class a line."""
    labels: dict[str, int] = {}
    for number, line in numbered_lines(path):
        name = clean_label(line.strip())
        if name in labels:
            raise InputError(f"{path}:{number}: class {name!r} is there twice")
        labels[name] = len(labels)
    if not labels:
        raise InputError(f"{path}: holds no class names")
    return labels


def read_kinetics_csv(path: str | Path, labels: dict[str, int], folders: VideoFolders, subset: str) -> list[Entry]:
    """Entries of one csv file, in its order; InputError with its line for a malformed one.

    Labels may be absent in the test file.
    """
    lines = list(numbered_lines(path))
    rows = csv.DictReader((line for _, line in lines), strict=True)
    entries: list[Entry] = []
    try:
        has_labels = "label" in (rows.fieldnames or ()) or subset != "test"
        columns = CSV_COLUMNS if has_labels else CSV_COLUMNS[1:]
        if missing := [name for name in columns if name not in (rows.fieldnames or columns)]:
            raise InputError(f"{path}:1: no column {', '.join(missing)}: the first line names the columns")
        for row in rows:
            where = f"{path}:{lines[rows.line_num - 1][0]}"
            if None in row or None in row.values():
                raise InputError(f"{where}: not as many fields as columns ({len(rows.fieldnames)})")
            *label, video, start, end = (row[name].strip() for name in columns)
            name = clean_label(label[0]) if label else None
            if label and name not in labels:
                raise InputError(f"{where}: class {label[0]!r} is not in the label map (--label_map)")
            try:
                clip = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
            except (ValueError, OverflowError):
                raise InputError(f"{where}: {start!r} and {end!r} are no times in seconds") from None
            names = (clip, f"{video}_{start}_{end}", video)
            entries.append(folders.entry(names, labels.get(name), class_name=name, subset=subset))
    except csv.Error as error:
        raise InputError(f"{path}:{lines[rows.reader.line_num - 1][0]}: {error}") from None
    if not entries:
        raise InputError(f"{path}: names no videos")
    return entries


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = list_parser(__doc__, annotations=None)
    parser.add_argument("--from_folders", action="store_true", help="take the labels from class folders, not from csv")
    for subset in ("train", "val", "test"):
        parser.add_argument(f"--{subset}_csv", metavar="CSV", help=f"annotations of the {subset} list")
    parser.add_argument("--label_map", default=LABEL_MAP, help="classes in label order (default: Kinetics-400's)")
    parser.add_argument(
        "--val_share", type=float, default=0.2, help="share for validation of classes without train/ and val/"
    )
    parser.add_argument(
        "--group",
        type=_pattern,
        metavar="REGEX",
        help="keep videos together in whose names this finds the same (its first group, or all of it)",
    )
    parser.add_argument("--seed", type=int, default=0, help="which videos that share takes")
    return parser.parse_args(argv)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    args = parse_args(argv)
    folders = video_folders(args, "kinetics")
    csv_files = {subset: getattr(args, f"{subset}_csv") for subset in ("train", "val", "test")}
    csv_files = {subset: path for subset, path in csv_files.items() if path}
    if args.from_folders == bool(csv_files):
        raise InputError("give either --from_folders or csv files (--train_csv, --val_csv, --test_csv)")
    if not 0 <= args.val_share < 1:
        raise InputError(f"--val_share {args.val_share:g} must be 0 or more and below 1")
    if args.group and not args.from_folders:
        raise InputError("--group is for --from_folders: csv files say themselves which video is in which list")
    if args.from_folders:
        classes, subsets = entries_from_folders(folders, val_share=args.val_share, seed=args.seed, group=args.group)
    else:
        labels = read_label_map(args.label_map)
        classes = [line.strip() for _, line in numbered_lines(args.label_map)]
        subsets = {subset: read_kinetics_csv(path, labels, folders, subset) for subset, path in csv_files.items()}
    status = write_dataset(args, "kinetics", {(subset, 1): entries for subset, entries in subsets.items()}, classes)
    if args.group:
        print(escaped(describe_groups(subsets, args.group)))
    return status


if __name__ == "__main__":
    run_command(main)
