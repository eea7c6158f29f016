"""Lists for HMDB51, splits 1-3, from its official files.

  python tools/gen_label_hmdb51.py data/HMDB51/images --out data/HMDB51/splits --annotations testTrainMulti_7030_splits

reads <class>_test_split{1,2,3}.txt (lines `video.avi 1`: 1 is for training, 2 for testing, 0 for neither) and writes
hmdb51_rgb_{train,val}_split_{1,2,3}.txt and category.txt; with --flow the hmdb51_flow_* lists. Labels follow the sorted
classes. Frame folders are looked for as ROOT/<class>/<video> and ROOT/<video>, with or without the `.avi`, and below
ROOT/{train,val} likewise.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.files import existing_folder, found_deeper, numbered_lines
from tools.shared.lists import list_parser, video_folders, write_dataset
from tools.shared.video_folders import Entry, VideoFolders

SUBSET_OF_MARK = {"0": None, "1": "train", "2": "val"}
FILE_NAME = re.compile(r"(.+)_test_split([123])\.txt")


def read_classes(annotations: Path) -> list[str]:
    """Sorted names of the classes that there are files of."""
    found = (FILE_NAME.fullmatch(name) for name in os.listdir(existing_folder(annotations, "HMDB51's split files")))
    classes = sorted({match[1] for match in found if match})
    if not classes:
        elsewhere = found_deeper(annotations, "*_test_split1.txt")
        raise InputError(f"{annotations}: no files such as brush_hair_test_split1.txt in it{elsewhere}")
    return classes


def read_split(annotations: Path, split: int, classes: Sequence[str], folders: VideoFolders) -> dict[str, list[Entry]]:
    """Entries of `train` and `val` of a split, over the files of all classes."""
    subsets: dict[str, list[Entry]] = {"train": [], "val": []}
    for label, class_name in enumerate(classes):
        path = annotations / f"{class_name}_test_split{split}.txt"
        for number, line in numbered_lines(path):
            video, _, mark = line.strip().rpartition(" ")
            if mark not in SUBSET_OF_MARK or not video:
                raise InputError(f"{path}:{number}: expected `video.avi 0|1|2`, got {line[:100]!r}")
            video = video.strip()
            if (subset := SUBSET_OF_MARK[mark]) is not None:
                names = [os.path.splitext(video)[0]]
                subsets[subset].append(folders.entry(names, label, class_name=class_name))
    return subsets


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    wanted = "the <class>_test_split{1,2,3}.txt files"
    args = list_parser(__doc__, annotations=wanted, splits=True).parse_args(argv)
    folders, annotations = video_folders(args, "hmdb51"), args.annotations
    classes = read_classes(annotations)
    subsets = {
        (subset, split): entries
        for split in args.splits
        for subset, entries in read_split(annotations, split, classes, folders).items()
    }
    return write_dataset(args, "hmdb51", subsets, classes)


if __name__ == "__main__":
    run_command(main)
