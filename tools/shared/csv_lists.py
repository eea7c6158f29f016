"""Lists from csv files with a line `id;label` for each video: something v1 and Jester."""

from __future__ import annotations

from collections.abc import Sequence

from ops.common.errors import InputError
from tools.shared.files import annotation_file, numbered_lines
from tools.shared.lists import list_parser, video_folders, write_dataset
from tools.shared.video_folders import Entry


def gen_label_from_csvs(argv: Sequence[str] | None, *, doc: str, dataset: str, prefix: str) -> int:
    """The command of something v1 and Jester: lists from `{prefix}-{labels,train,validation,test}.csv`.

    Labels follow the sorted names. The test file is optional; it has no labels, and its list says 0.
    """
    args = list_parser(doc, annotations="the csv files").parse_args(argv)
    folders, labels_file = video_folders(args, dataset), annotation_file(args.annotations, prefix, "labels.csv")
    classes = sorted(line.strip() for _, line in numbered_lines(labels_file))
    labels = {name: label for label, name in enumerate(classes)}
    if len(labels) < len(classes):
        raise InputError(f"{labels_file}: a class is there twice")
    subsets: dict[tuple[str, int], list[Entry]] = {}
    for subset, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        path = annotation_file(args.annotations, prefix, f"{file}.csv")
        if subset == "test" and not path.exists():
            continue
        entries = subsets[subset, 1] = []
        for number, line in numbered_lines(path):
            video, _, name = (part.strip() for part in line.partition(";"))
            if subset != "test" and name not in labels:
                problem = f"class {name!r} is not in {labels_file.name}" if name else "expected `id;label`"
                raise InputError(f"{path}:{number}: {problem}, got {line[:100]!r}")
            entries.append(folders.entry([video], None if subset == "test" else labels[name], subset=subset))
    return write_dataset(args, dataset, subsets, classes)
