"""Lists for UCF101, splits 1-3, from its official files.

    python tools/gen_label_ucf101.py data/UCF101/jpg --out data/UCF101/file_list --annotations data/UCF101/labels

reads classInd.txt (`1 ApplyEyeMakeup`), trainlist0{1,2,3}.txt and testlist0{1,2,3}.txt (`Class/video.avi [1]`) and
writes ucf101_rgb_{train,val}_split_{1,2,3}.txt and category.txt; with --flow the ucf101_flow_* lists. Frame folders are
looked for as ROOT/<class>/<video> and ROOT/<video>, with or without the `.avi`, and below ROOT/{train,val} likewise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.files import numbered_lines
from tools.shared.lists import list_parser, video_folders, write_dataset
from tools.shared.video_folders import Entry, VideoFolders


def read_classes(path: Path) -> list[str]:
    """Class names in label order, from lines `number name` that count from 1."""
    names = []
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(len(names) + 1):
            raise InputError(f"{path}:{number}: expected `{len(names) + 1} Name`, got {line[:100]!r}")
        names.append(fields[1])
    return names


def names_on_disk(video: str) -> list[str]:
    """What a video's folder may be called. Copies of the data set write HandStandPushups as the class is written."""
    return [video, video.replace("HandStand", "Handstand"), video.replace("Handstand", "HandStand")]


def read_split(path: Path, labels: dict[str, int], folders: VideoFolders) -> list[Entry]:
    """Entries of a train or test list. The class is the folder's; a label beside it must agree."""
    entries = []
    for number, line in numbered_lines(path):
        video, *label = line.split()
        class_name, _, file = video.partition("/")
        if class_name not in labels or not file or len(label) > 1:
            raise InputError(f"{path}:{number}: expected `Class/video.avi [label]`, got {line[:100]!r}")
        if label and label[0] != str(labels[class_name] + 1):
            raise InputError(f"{path}:{number}: label {label[0]} is not that of {class_name} in classInd.txt")
        names = names_on_disk(os.path.splitext(file)[0])
        entries.append(folders.entry(names, labels[class_name], class_name=class_name))
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    wanted = "classInd.txt, trainlist*.txt and testlist*.txt"
    args = list_parser(__doc__, annotations=wanted, splits=True).parse_args(argv)
    folders, annotations = video_folders(args, "ucf101"), args.annotations
    classes = read_classes(annotations / "classInd.txt")
    labels = {name: label for label, name in enumerate(classes)}
    subsets = {
        (subset, split): read_split(annotations / f"{file}0{split}.txt", labels, folders)
        for split in args.splits
        for subset, file in (("train", "trainlist"), ("val", "testlist"))
    }
    return write_dataset(args, "ucf101", subsets, classes)


if __name__ == "__main__":
    run_command(main)
