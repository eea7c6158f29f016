"""Lists for Kinetics and for any data in class folders.

Kinetics, from the csv files as they are distributed (label,youtube_id,time_start,time_end,split[,is_cc]):

    python tools/gen_label_kinetics.py data/kinetics/images --out data/kinetics/labels \\
        --train_csv kinetics_train.csv --val_csv kinetics_val.csv

finds ROOT/[train/|val/]<class>/<id>_<start>_<end>, start and end as six digits; labels follow the label map.

Class folders, the labels in the alphabetical order of the classes:

    python tools/gen_label_kinetics.py data/mine/images --out data/mine/labels --from_folders

takes ROOT/{train,val}/<class>/<video>, or ROOT/<class>/<video> and sets a share of each class aside for validation.

Both write train_videofolder.txt, val_videofolder.txt and category.txt. With --videos, ROOT holds video files instead of
frame folders; their lists serve either (paths carry no extension).
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.files import numbered_lines
from tools.shared.lists import Entry, VideoFolders, list_parser, video_folders, write_dataset

LABEL_MAP = Path(__file__).with_name("kinetics_label_map.txt")
CSV_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
# Names that data sets go by; all are looked for.
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


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
    """Entries of one csv file, in its order; InputError with its line for a malformed one."""
    lines = list(numbered_lines(path))
    rows = csv.DictReader((line for _, line in lines), strict=True)
    split_folders = ["", *(f"{split}/" for split in SPLIT_FOLDERS[subset])]
    entries: list[Entry] = []
    try:
        missing = [name for name in CSV_COLUMNS if name not in (rows.fieldnames or CSV_COLUMNS)]
        if missing:
            raise InputError(f"{path}:1: no column {', '.join(missing)}: the first line names the columns")
        for row in rows:
            where = f"{path}:{lines[rows.line_num - 1][0]}"
            if None in row or None in row.values():
                raise InputError(f"{where}: not as many fields as columns ({len(rows.fieldnames)})")
            label, video, start, end = (row[name].strip() for name in CSV_COLUMNS)
            name = clean_label(label)
            if name not in labels:
                raise InputError(f"{where}: class {label!r} is not in the label map")
            try:
                clip = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
            except (ValueError, OverflowError):
                raise InputError(f"{where}: {start!r} and {end!r} are no times in seconds") from None
            places = [f"{split}{name_on_disk}" for split in split_folders for name_on_disk in (name, label)]
            entries.append(Entry(clip, folders.find(places, (clip, video)), labels[name]))
    except csv.Error as error:
        raise InputError(f"{path}:{lines[rows.reader.line_num - 1][0]}: {error}") from None
    if not entries:
        raise InputError(f"{path}: names no videos")
    return entries


def entries_from_folders(
    folders: VideoFolders, *, val_share: float, seed: int
) -> tuple[list[str], dict[str, list[Entry]]]:
    """Class names in label order, and the entries of each subset."""
    top = folders.classes("")
    split_of = {name: subset for subset, names in SPLIT_FOLDERS.items() for name in names if name in top}
    if "train" in split_of.values():
        classes = sorted({name for split in split_of for name in folders.classes(split)})
        subsets = {
            subset: [
                Entry(f"{split}/{name}/{video}", f"{split}/{name}/{video}", label)
                for label, name in enumerate(classes)
                for video in folders.names(f"{split}/{name}")
            ]
            for split, subset in split_of.items()
        }
    else:
        classes, subsets = top, {"train": [], "val": []}
        for label, name in enumerate(classes):
            videos = folders.names(name)
            num_val = min(round(len(videos) * val_share), len(videos) - 1) if videos else 0
            chosen = set(random.Random(f"{seed} {name}").sample(videos, num_val))
            for video in videos:
                subset = "val" if video in chosen else "train"
                subsets[subset].append(Entry(f"{name}/{video}", f"{name}/{video}", label))
    subsets = {subset: entries for subset, entries in subsets.items() if entries}
    if not subsets:
        wanted = "<class>/<video>" + (".mp4 or the like" if folders.videos else "/ with frames")
        raise InputError(f"{folders.root}: no {wanted} in it, nor in train/ and val/ in it")
    return classes, subsets


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = list_parser(__doc__, annotations=None)
    parser.add_argument("--from_folders", action="store_true", help="take the labels from class folders, not from csv")
    for subset in ("train", "val", "test"):
        parser.add_argument(f"--{subset}_csv", metavar="CSV", help=f"annotations of the {subset} list")
    parser.add_argument("--label_map", default=LABEL_MAP, help="classes in label order (default: Kinetics-400's)")
    parser.add_argument(
        "--val_share", type=float, default=0.2, help="share for validation of classes without train/ and val/"
    )
    parser.add_argument("--seed", type=int, default=0, help="which videos that share takes")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    args = parse_args(argv)
    folders = video_folders(args)
    csv_files = {subset: getattr(args, f"{subset}_csv") for subset in ("train", "val", "test")}
    csv_files = {subset: path for subset, path in csv_files.items() if path}
    if args.from_folders == bool(csv_files):
        raise InputError("give either --from_folders or csv files (--train_csv, --val_csv, --test_csv)")
    if not 0 <= args.val_share < 1:
        raise InputError(f"--val_share {args.val_share:g} must be 0 or more and below 1")
    if args.from_folders:
        classes, subsets = entries_from_folders(folders, val_share=args.val_share, seed=args.seed)
    else:
        labels = read_label_map(args.label_map)
        classes = [line.strip() for _, line in numbered_lines(args.label_map)]
        subsets = {subset: read_kinetics_csv(path, labels, folders, subset) for subset, path in csv_files.items()}
    return write_dataset(args, "kinetics", {(subset, 1): entries for subset, entries in subsets.items()}, classes)


if __name__ == "__main__":
    run_command(main)
