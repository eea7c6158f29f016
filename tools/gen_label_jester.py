"""Lists for Jester, from its csv files as they are distributed.

    python tools/gen_label_jester.py data/jester/20bn-jester-v1 --out data/jester --annotations data/jester

reads jester-v1-{labels,train,validation,test}.csv (lines `id;label`, for test `id`) and writes
{train,val,test}_videofolder.txt and category.txt. Labels follow the sorted names, the class order of the published
models (the csv of labels has another one). Test videos have no label: their list says 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import run_command
from tools.shared.lists import add_list_options, read_id_label_csvs, video_folders, write_dataset


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_list_options(parser)
    parser.add_argument("--annotations", required=True, help="folder of the csv files")
    args = parser.parse_args(argv)
    folders = video_folders(args)
    classes, subsets = read_id_label_csvs(Path(args.annotations), "jester-v1", folders)
    return write_dataset(args, "jester", subsets, classes)


if __name__ == "__main__":
    run_command(main)
