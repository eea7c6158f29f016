"""Check a list against the disk: every video there and readable, with as many frames as the list says.

    python tools/check_dataset.py kinetics                  both lists of a data set, as main.py would use them
    python tools/check_dataset.py LIST ROOT [--image_tmpl img_{:05d}.jpg]
    python tools/check_dataset.py LIST ROOT --fix NEW_LIST  also write a list without the videos that cannot be used,
                                                            and with true frame counts

Exit status 1 if there are problems.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, counted, escaped, run_command
from ops.common.files import write_lines
from ops.common.modality import MODALITIES
from ops.data.lists import MIN_TRAIN_FRAMES, VideoRecord
from ops.data.sources import IO_KINDS, FrameFolder, VideoFile
from ops.dataset import TSNDataSet
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset
from ops.opts import ShowDefaults
from tools.shared.jobs import Failure, add_jobs_option, run_jobs
from tools.shared.lists import entries_per_frame, example_of, last_frame_number
from tools.shared.report import print_first


@dataclass(frozen=True)
class Finding:
    """What is on disk for a line of the list: frames up to the first that is missing (0: none), and what is wrong."""

    num_frames: int
    problem: str | None = None


def check_video(record: VideoRecord, *, dataset: TSNDataSet, decode: str) -> Finding:
    """Compare a line of a list with the disk."""
    problem = None
    try:
        source = dataset.open(record)
        if isinstance(source, VideoFile):
            # Counting decodes; `all` also converts each frame.
            found = sum(1 for _ in source.frames()) if decode == "all" else source.count_frames()
        else:
            found = source.count_frames()
            if last_frame_number(source.directory, source.image_tmpl) > found:
                problem = f"{os.path.basename(source.paths(found)[0])} is missing among later frames"
        if not found:
            there = "" if isinstance(source, VideoFile) else example_of(os.listdir(source.directory))
            return Finding(0, problem or f"no frames{there}")
        if decode != "none":
            every = decode == "all" and isinstance(source, FrameFolder)
            _decode(source, range(found) if every else sorted({0, found // 2, found - 1}))
    except InputError as error:
        return Finding(0, str(error))
    if problem is None and found != record.num_frames:
        problem = f"{counted(record.num_frames, 'frame')} listed, {found} on disk"
    return Finding(found, problem)


def _decode(source: FrameFolder | VideoFile, indices: Sequence[int]) -> None:
    """Decode frames one by one; InputError for one that is damaged, or that has another size than the first."""
    size = None
    for index in indices:
        shape = source.read([index])[0].shape
        if size is not None and shape != size:
            raise InputError(f"frame {index + 1} has {shape[2]} x {shape[1]} pixels, the first {size[2]} x {size[1]}")
        size = shape


def check_list(dataset: TSNDataSet, *, decode: str, jobs: int) -> tuple[list[Finding], list[str]]:
    """A Finding for each line, and the problems as lines `list:line: path: what is wrong`."""
    light = copy.copy(dataset)
    light.video_list = []  # the rest goes to the workers with every video
    work = functools.partial(check_video, dataset=light, decode=decode)
    results = run_jobs(work, dataset.video_list, jobs=jobs, label=os.path.basename(dataset.list_file))
    findings, problems = [], []
    first_line: dict[str, int] = {}
    for record, result in zip(dataset.video_list, results, strict=True):
        finding = Finding(0, result.reason) if isinstance(result, Failure) else result
        earlier = first_line.setdefault(os.path.normpath(record.path), record.line_number)
        if earlier != record.line_number:
            finding = Finding(0, f"the same video as in line {earlier}")
        findings.append(finding)
        if finding.problem:
            full = os.path.join(dataset.root_path, record.path)
            problem = finding.problem.removeprefix(f"{full}: ").removeprefix(os.path.join(full, ""))
            problems.append(escaped(f"{dataset.list_file}:{record.line_number}: {record.path}: {problem}"))
    return findings, problems


def print_report(dataset: TSNDataSet, findings: Sequence[Finding], problems: Sequence[str]) -> None:
    """Print the summary of a list, and the first problems on stderr."""
    frames = [finding.num_frames for finding in findings if finding.num_frames]
    total = counted(len(findings), "video")
    print(escaped(f"{dataset.list_file}: {len(findings) - len(problems)} of {total} as listed"))
    if frames:
        short = sum(count < MIN_TRAIN_FRAMES for count in frames)
        classes = len({record.label for record in dataset.video_list})
        print(
            f"  frames a video: {min(frames)} to {max(frames)}, median {statistics.median(frames):g}; "
            f"classes: {classes}; under {MIN_TRAIN_FRAMES} frames (not trained on): {short}"
        )
    print_first(problems, where_all_are=" (all with --report FILE)")


def write_fixed(path: str | Path, dataset: TSNDataSet, findings: Sequence[Finding]) -> None:
    """Write the list again with the frame counts found, less the videos of which nothing can be used."""
    per_frame = entries_per_frame(dataset.image_tmpl)
    pairs = list(zip(dataset.video_list, findings, strict=True))
    lines = [
        f"{record.path} {found.num_frames * per_frame} {record.label}" for record, found in pairs if found.num_frames
    ]
    if not lines:
        raise InputError(f"{path} would be empty: no video of {dataset.list_file} can be used")
    write_lines(path, lines)
    recounted = sum(0 < found.num_frames != record.num_frames for record, found in pairs)
    print(escaped(f"{path}: {counted(len(lines), 'video')} ({recounted} recounted, {len(pairs) - len(lines)} dropped)"))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("list", help="a list, or the name of a data set: " + ", ".join(DATASETS))
    parser.add_argument("root", nargs="?", help="folder that the list's paths are relative to")
    parser.add_argument("--modality", choices=MODALITIES, default="RGB", help="what the frames are")
    parser.add_argument("--io", choices=IO_KINDS, default="frames", help="what ROOT holds")
    parser.add_argument("--image_tmpl", help="name of a frame (default: the data set's own; of a LIST img_{:05d}.jpg)")
    parser.add_argument("--num_class", type=int, help="number of classes (default: the data set's own)")
    parser.add_argument("--root_dataset", help="folder of all data sets (default: $TSM_DATA_ROOT, else data/)")
    parser.add_argument("--split", type=int, choices=(1, 2, 3), default=1, help="split of UCF101 / HMDB51")
    parser.add_argument(
        "--decode", choices=("some", "all", "none"), default="some", help="some: first, middle and last frame"
    )
    parser.add_argument("--fix", metavar="NEW_LIST", help="write a list of what can be used, with the counts found")
    parser.add_argument("--report", metavar="FILE", help="write all problems to a file")
    add_jobs_option(parser)
    return parser.parse_args(argv)


def open_lists(args: argparse.Namespace) -> list[TSNDataSet]:
    """The lists to check."""
    if args.root is None and args.list not in DATASETS:
        raise InputError(f"{args.list} is no data set: give LIST and ROOT, or one of {', '.join(DATASETS)}")
    if args.root is None:
        options = DataOptions(
            root_dataset=args.root_dataset,
            num_class=args.num_class,
            image_tmpl=args.image_tmpl,
            split=args.split,
            io=args.io,
        )
        paths = resolve_dataset(args.list, args.modality, options)
        lists = [(paths.train_list, paths.num_classes), (paths.val_list, paths.num_classes)]
        root, image_tmpl = paths.root_path, paths.image_tmpl
    else:
        lists, root, image_tmpl = [(args.list, args.num_class)], args.root, args.image_tmpl or "img_{:05d}.jpg"
    own = args.root is not None
    if not Path(root).is_dir():
        raise InputError(f"folder {root} is not there: {'give another ROOT' if own else 'see --root_dataset'}")
    for list_file, _ in lists:
        if not Path(list_file).is_file():
            hint = "give another LIST" if own else "see --root_dataset; tools/gen_label_*.py write lists"
            raise InputError(f"list file {list_file} is not there: {hint}")
    return [
        TSNDataSet(
            root,
            list_file,
            modality=args.modality,
            image_tmpl=image_tmpl,
            test_mode=True,
            io=args.io,
            num_class=num_class,
        )
        for list_file, num_class in lists
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Check the lists; returns 1 if there is a problem in any."""
    args = parse_args(argv)
    datasets = open_lists(args)
    if args.fix and len(datasets) > 1:
        raise InputError("--fix writes one list: give LIST and ROOT instead of a data set's name")
    all_problems: list[str] = []
    for dataset in datasets:
        findings, problems = check_list(dataset, decode=args.decode, jobs=args.jobs)
        print_report(dataset, findings, problems)
        all_problems += problems
        if args.fix:
            write_fixed(args.fix, dataset, findings)
    if len(datasets) == 2:
        train, val = ({os.path.normpath(record.path) for record in dataset.video_list} for dataset in datasets)
        all_problems += [f"{path}: in the training and in the validation list" for path in sorted(train & val)]
        if train & val:
            print(f"videos in both lists: {len(train & val)}", file=sys.stderr)
    if args.report:
        write_lines(args.report, all_problems)
    return 1 if all_problems else 0


if __name__ == "__main__":
    run_command(main)
