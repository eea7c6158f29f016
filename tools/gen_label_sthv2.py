"""Lists for something-something v2, from its json files as they are distributed.

    python tools/gen_label_sthv2.py data/something/v2/20bn-something-something-v2-frames --out data/something/v2 \\
        --annotations data/something/v2

reads something-something-v2-{labels,train,validation,test}.json (or labels.json, ...) and writes
{train,val,test}_videofolder.txt and category.txt; with --flow, ROOT being the flow's, the flow lists. Labels are the
numbers of the labels file; templates lose their brackets (`Holding [something]` is its class `Holding something`). Test
videos have no label: their list says 0. Neither they nor their json file need be there. Videos are looked for in ROOT
and in ROOT/{train,val,test}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.files import annotation_file, read_text
from tools.shared.lists import list_parser, video_folders, write_dataset
from tools.shared.video_folders import Entry, VideoFolders

PREFIX = "something-something-v2"


def read_json(path: Path, kind: type) -> Any:
    """A json file that holds a `kind`; InputError with the line of an error."""
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid json ({error.msg})") from None
    if not isinstance(data, kind):
        raise InputError(f"{path}: holds a {type(data).__name__}, expected a {kind.__name__}")
    return data


def clean_template(template: str) -> str:
    """`Holding [something] next to [something]` -> `Holding something next to something`."""
    return template.replace("[", "").replace("]", "")


def read_labels(path: Path) -> list[str]:
    """Class names in label order; the file maps each to its number, which must be 0, 1, ... in some order."""
    numbers = read_json(path, dict)
    names: dict[int, str] = {}
    for name, number in numbers.items():
        if not str(number).isdecimal():  # int() would take 1.5 for 1
            raise InputError(f"{path}: class {name!r} has no whole number as its label, but {str(number)[:40]!r}")
        names[int(number)] = clean_template(name)
    if len(set(names.values())) < len(numbers):
        raise InputError(f"{path}: a class is there twice, or two have one label")
    if sorted(names) != list(range(len(numbers))) or not names:
        raise InputError(f"{path}: labels must be 0 to {max(len(numbers) - 1, 0)}, each once")
    return [names[label] for label in range(len(names))]


def read_entries(path: Path, labels: dict[str, int], folders: VideoFolders, subset: str) -> list[Entry]:
    """Entries of one json file, in its order; those of the test file have no label."""
    entries = []
    for number, item in enumerate(read_json(path, list), start=1):
        where = f"{path}: item {number}"
        if not isinstance(item, dict) or not isinstance(item.get("id"), (str, int)):
            raise InputError(f"{where} has no id")
        label = None
        if subset != "test":
            name = clean_template(str(item.get("template")))
            if name not in labels:
                raise InputError(f"{where} (id {item['id']}): template {name!r} is not in the labels file")
            label = labels[name]
        entries.append(folders.entry([str(item["id"])], label, subset=subset))
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    args = list_parser(__doc__, annotations="the json files").parse_args(argv)
    folders = video_folders(args, "somethingv2")
    classes = read_labels(annotation_file(args.annotations, PREFIX, "labels.json"))
    labels = {name: label for label, name in enumerate(classes)}
    subsets = {}
    for subset, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        path = annotation_file(args.annotations, PREFIX, f"{name}.json")
        if subset != "test" or path.exists():
            subsets[subset, 1] = read_entries(path, labels, folders, subset)
    return write_dataset(args, "somethingv2", subsets, classes)


if __name__ == "__main__":
    run_command(main)
