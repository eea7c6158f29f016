"""Readers of lists, annotations, class names and records, for tests/fuzz_readers.py."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from ops.common.errors import InputError
from ops.data.lists import MAX_LISTED_FRAMES, read_list
from ops.dataset_configs import read_class_names
from ops.training.log import RunLog, read_epochs
from pretrained.checksums import read_checksums, received_file, record_checksum, verify_recorded
from tests.fuzz_base import Reader, Value
from tests.helpers import make_frame_folder, make_list
from tools import (
    check_dataset,
    gen_label_hmdb51,
    gen_label_jester,
    gen_label_kinetics,
    gen_label_sthv1,
    gen_label_sthv2,
    gen_label_ucf101,
)

# --- lists and annotations --------------------------------------------------------------------------------------------

LISTED = {f"class {label}/video {index}": 3 + index for label in (0, 1) for index in range(4)}


def make_listed(folder: Path) -> list[str]:
    for number, (name, count) in enumerate(LISTED.items()):
        make_frame_folder(folder / "root" / name, count, (24, 16), seed=number)
    lines = [(name, count, int(name.split()[1][0])) for name, count in LISTED.items()]
    make_list(folder / "train.txt", lines)
    make_list(folder / "val.txt", lines[::-1])
    return ["train.txt", "val.txt"]


def read_list_file(folder: Path, file: str) -> Value:
    return [tuple(record) for record in read_list(folder / file, num_class=2)]


def list_problem(value: Value, whole: Value) -> str | None:
    for path, num_frames, label, _ in value:
        outside = path.startswith("/") or ".." in Path(path).parts[:1]
        if outside or not 0 <= num_frames <= MAX_LISTED_FRAMES or label not in (0, 1):
            return f"{path!r} {num_frames} {label}"
    return None if value else "no videos"


def read_checked_list(folder: Path, file: str) -> Value:
    """What a list says that check_dataset passed."""
    if check_dataset.main([str(folder / file), str(folder / "root"), "--num_class", "2", "-j", "1"]):
        raise InputError("it printed the problems")
    return [tuple(record)[:3] for record in read_list(folder / file)]


def passed_problem(value: Value, whole: Value) -> str | None:
    """A passed list names videos that are there, with their true counts, each once."""
    paths = [path for path, _, _ in value]
    untrue = [row for row in value if LISTED.get(str(Path(row[0]))) != row[1]]
    return f"passed {untrue[:1] or paths}" if untrue or len(set(paths)) < len(paths) else None


def annotation_reader(tool: ModuleType, options: Callable[[Path], list[str]]) -> Callable[[Path, str], Value]:
    def read(folder: Path, file: str) -> Value:
        arguments = [str(folder / "images"), "--out", str(folder / "out"), "-j", "1", *options(folder)]
        with contextlib.suppress(SystemExit):
            tool.main(arguments)
        return {path.name: path.read_text().splitlines() for path in sorted((folder / "out").iterdir())}

    return read


def annotated_problem(value: Value, whole: Value) -> str | None:
    """Every list names videos that are there, with their true counts, each once, with labels of the classes written."""
    truth = {line.rsplit(" ", 1)[0] for name, lines in whole.items() if "category" not in name for line in lines}
    num_classes = len(value.get("category.txt", ()))
    for name, lines in value.items():
        if "category" in name:
            continue
        fields = [line.rsplit(" ", 1) for line in lines]
        if any(video not in truth or not 0 <= int(label) < num_classes for video, label in fields):
            return f"{name}: a line that is not true"
        if len({video for video, _ in fields}) < len(fields):
            return f"{name}: a video twice"
    return None


def _write(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path.name


def make_kinetics(folder: Path) -> list[str]:
    rows = []
    for index, label in enumerate(("abseiling", "petting animal (not cat)", "zumba", "yoga")):
        clip = f"{label.replace(' ', '_').replace('(', '').replace(')', '')}/id_{index}_000001_000011"
        make_frame_folder(folder / "images" / clip, 3 + index, (16, 16))
        rows.append(f'"{label}",id_{index},1,11,train,0')
    columns = "label,youtube_id,time_start,time_end,split,is_cc"
    classes = ("abseiling", "petting animal (not cat)", "yoga", "zumba")
    return [_write(folder / "train.csv", columns, *rows), _write(folder / "val.csv", columns, *rows[2:]),
            _write(folder / "map.txt", *classes)]  # fmt: skip


def kinetics_options(folder: Path) -> list[str]:
    files = {"--train_csv": "train.csv", "--val_csv": "val.csv", "--label_map": "map.txt"}
    return [text for option, name in files.items() for text in (option, str(folder / name))]


def csv_maker(prefix: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        classes = ["Swiping Left", "Drumming Fingers", "Stop Sign", "Zooming In"]
        for number in range(8):
            make_frame_folder(folder / "images" / str(100 + number), 3 + number % 4, (16, 16), "{:05d}.jpg")
        rows = [f"{100 + number};{classes[number % 4]}" for number in range(6)]
        contents = {"labels": classes, "train": rows[:4], "validation": rows[4:], "test": ["106", "107"]}
        return [_write(folder / f"{prefix}-{name}.csv", *lines) for name, lines in contents.items()]

    return make


def make_sthv2(folder: Path) -> list[str]:
    templates = ["Holding [something]", "Dropping [something] onto [something]", "Turning [something] upside down"]
    for number in range(8):
        make_frame_folder(folder / "images" / str(100 + number), 3 + number % 4, (16, 16), "{:06d}.jpg")
    items = [{"id": str(100 + n), "template": templates[n % 3], "placeholders": ["a"]} for n in range(6)]
    labels = {template.replace("[", "").replace("]", ""): str(n) for n, template in enumerate(templates)}
    contents = {"labels": labels, "train": items[:4], "validation": items[4:], "test": [{"id": "106"}, {"id": "107"}]}
    return [_write(folder / f"{name}.json", json.dumps(data, indent=1)) for name, data in contents.items()]


def make_ucf101(folder: Path) -> list[str]:
    videos = [f"{name}/v_{name}_g0{group}" for name in ("Archery", "Biking", "Diving") for group in (1, 2)]
    for number, video in enumerate(videos):
        make_frame_folder(folder / "images" / video, 3 + number, (16, 16))
    train = [f"{video}.avi {1 + index // 2}" for index, video in enumerate(videos) if index % 2 == 0]
    test = [f"{video}.avi" for video in videos[1::2]]
    return [_write(folder / "classInd.txt", "1 Archery", "2 Biking", "3 Diving"),
            _write(folder / "trainlist01.txt", *train), _write(folder / "testlist01.txt", *test)]  # fmt: skip


def make_hmdb51(folder: Path) -> list[str]:
    files = []
    for label, name in enumerate(("brush_hair", "clap")):
        for number in range(4):
            make_frame_folder(folder / "images" / name / f"{name} ({number})", 3 + number + label, (16, 16))
        lines = [f"{name} ({number}).avi {1 + number % 2} " for number in range(4)]
        files.append(_write(folder / f"{name}_test_split1.txt", *lines))
    return files


def _annotations(folder: Path) -> list[str]:
    return ["--annotations", str(folder)]


def make_class_names(folder: Path) -> list[str]:
    classes = ["Swiping Left", "Stop Sign", "Doing other things", "Zoom / In", "été"]
    numbered = [f"{number} {name}" for number, name in enumerate(classes, start=1)]
    return [_write(folder / "category.txt", *classes), _write(folder / "classInd.txt", *numbered)]


def read_names(folder: Path, file: str) -> Value:
    """As the demo's --labels and predict's: there must be a name a class."""
    names = read_class_names(folder / file)
    if len(names) != 5:
        raise InputError(f"{file} has {len(names)} names for 5 classes")
    return names


def names_problem(value: Value, whole: Value) -> str | None:
    bad = [name for name in value if not name or not name.isprintable()]
    return f"the name {bad[0]!r}" if bad or len(set(value)) < len(value) else None


# --- a run's log, the fetcher's records ------------------------------------------------------------------------------


def make_run(folder: Path) -> list[str]:
    with contextlib.closing(RunLog(folder / "run", echo=False)) as log:
        for epoch in range(4):
            for step in range(10):
                log.line(f"Epoch: [{epoch}][{step}/10], lr: 0.01000\tLoss {1 / (1 + step):.4f}")
                log.scalar("loss/train", 1 / (1 + step), epoch * 10 + step)
            log.epoch_row({"epoch": epoch, "lr": 0.01, "train_loss": 1.5, "test_top1": 40.0, "seconds": 3.25})
        log.describe({"lr": 0.01}, "begun")
        (folder / "state.json").write_text(json.dumps(log.state()))
    return [f"run/{name}" for name in ("log.csv", "epochs.csv", "args.txt")] + [
        f"run/{path.name}" for path in (folder / "run").glob("events*")
    ]


def read_run(folder: Path, file: str) -> Value:
    """As --resume does: the log goes on where the checkpoint's record says, or starts anew beside the old one."""
    state = json.loads((folder / "state.json").read_text())
    with contextlib.closing(RunLog(folder / "run", resume=state, echo=False)):
        pass
    went_on = not (folder / "run" / "earlier-1").exists()
    return went_on, *(zlib.crc32((folder / "run" / name).read_bytes()) if went_on else 0 for name in state)


def run_problem(value: Value, whole: Value) -> str | None:
    """A log that goes on is what it was; else it starts anew, with a warning, and the old one is kept."""
    return "goes on with damaged files" if value[0] else None


def read_epochs_file(folder: Path, file: str) -> Value:
    return read_epochs(folder / "run" / "epochs.csv")


def epochs_problem(value: Value, whole: Value) -> str | None:
    good = all(isinstance(number, float | None) for row in value for number in row.values())
    return None if good else "a value that is no number"


def make_record(folder: Path) -> list[str]:
    for number, name in enumerate(("a.pth", "b.pth")):
        (folder / name).write_bytes(bytes(range(256)) * (8 + number))
        record_checksum(folder, name, received_file(folder / name))
    return ["checksums.json", "a.pth"]


def read_record(folder: Path, file: str) -> Value:
    verify_recorded(folder / "a.pth")
    return sorted((name, entry.size, entry.sha256) for name, entry in read_checksums(folder).items())


def record_problem(value: Value, whole: Value) -> str | None:
    """The file is whole, or its entry is gone from the record (its name was hit)."""
    names = [name for name, _, _ in value]
    return "passed against a wrong entry" if "a.pth" in names and value[0] != whole[0] else None


def text_readers() -> Iterator[Reader]:
    """Lists, annotations, class names, records."""
    yield Reader("list", make_listed, read_list_file, list_problem, 6)
    yield Reader("list, check_dataset", make_listed, read_checked_list, passed_problem, 3)
    csv_reader = annotation_reader(gen_label_kinetics, kinetics_options)
    yield Reader("gen_label_kinetics", make_kinetics, csv_reader, annotated_problem, 4)
    for tool, make in (
        (gen_label_sthv1, csv_maker("something-something-v1")),
        (gen_label_jester, csv_maker("jester-v1")),
        (gen_label_sthv2, make_sthv2),
        (gen_label_ucf101, make_ucf101),
        (gen_label_hmdb51, make_hmdb51),
    ):
        name = tool.__name__.removeprefix("tools.")
        one_split = ["--splits", "1"] if tool in (gen_label_ucf101, gen_label_hmdb51) else []
        read = annotation_reader(tool, lambda folder, more=tuple(one_split): [*_annotations(folder), *more])
        yield Reader(name, make, read, annotated_problem, 4)
    yield Reader("class names", make_class_names, read_names, names_problem, 4)
    yield Reader("log files of --resume", make_run, read_run, run_problem, 2)
    yield Reader("epochs.csv", lambda folder: make_run(folder)[1:2], read_epochs_file, epochs_problem, 2)
    yield Reader("checksums of fetched files", make_record, read_record, record_problem, 3)
