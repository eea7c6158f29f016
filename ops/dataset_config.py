"""One table of data sets, and where their frames, lists and class names lie.

One's own data needs no row: any other name works with --train_list / --val_list / --test_list, --root_path and
--num_class. Class names are read from `category.txt` (a name a line) beside the list, else from the row's own file.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ops.common.class_names import read_class_names
from ops.common.errors import InputError
from ops.common.modality import check_modality
from ops.data.sources import DEFAULT_TMPL, check_image_tmpl, check_io

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "TSM_DATA_ROOT"
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class DatasetSpec:
    """A row: paths are relative to the root of all data sets; `{subset}` is train or val, `{split}` is 1 to 3.

    A flow template with a `{}` field has one gray file an axis (x, y); one without packs (x, y, 0) into one RGB file.
    """

    name: str
    num_classes: int
    frames: str
    lists: str
    flow_frames: str
    flow_lists: str
    videos: str  # files for io='video', at the same relative paths as the frame folders (plus an extension)
    image_tmpl: str = DEFAULT_TMPL
    flow_tmpl: str = DEFAULT_TMPL
    categories: str | None = None
    flip: bool = True  # False: left and right carry the label
    fps: float | None = None  # frames a second of the extracted videos, where all have the same


_SPECS = (
    DatasetSpec(
        name="kinetics",
        num_classes=400,
        frames="kinetics/images",
        lists="kinetics/labels/{subset}_videofolder.txt",
        flow_frames="kinetics/flow",
        flow_lists="kinetics/labels/{subset}_videofolder_flow.txt",
        videos="kinetics/videos",
        categories=str(PROJECT / "tools" / "kinetics_label_map.txt"),  # an absolute path stays as it is
    ),
    DatasetSpec(
        name="something",
        num_classes=174,
        frames="something/v1/20bn-something-something-v1",
        lists="something/v1/{subset}_videofolder.txt",
        flow_frames="something/v1/20bn-something-something-v1-flow",
        flow_lists="something/v1/{subset}_videofolder_flow.txt",
        videos="something/v1/videos",
        image_tmpl="{:05d}.jpg",
        flow_tmpl="{:06d}-{}_{:05d}.jpg",  # number of the video, axis, frame
        categories="something/v1/category.txt",
        flip=False,
        fps=12,
    ),
    DatasetSpec(
        name="somethingv2",
        num_classes=174,
        frames="something/v2/20bn-something-something-v2-frames",
        lists="something/v2/{subset}_videofolder.txt",
        flow_frames="something/v2/20bn-something-something-v2-flow",
        flow_lists="something/v2/{subset}_videofolder_flow.txt",
        videos="something/v2/20bn-something-something-v2",
        image_tmpl="{:06d}.jpg",
        flow_tmpl="{:06d}.jpg",
        categories="something/v2/category.txt",
        flip=False,
        fps=12,
    ),
    DatasetSpec(
        name="jester",
        num_classes=27,
        frames="jester/20bn-jester-v1",
        lists="jester/{subset}_videofolder.txt",
        flow_frames="jester/20bn-jester-v1-flow",
        flow_lists="jester/{subset}_videofolder_flow.txt",
        videos="jester/videos",
        image_tmpl="{:05d}.jpg",
        flow_tmpl="{:05d}.jpg",
        categories="jester/category.txt",
        flip=False,
        fps=12,
    ),
    DatasetSpec(
        name="ucf101",
        num_classes=101,
        frames="UCF101/jpg",
        lists="UCF101/file_list/ucf101_rgb_{subset}_split_{split}.txt",
        flow_frames="UCF101/jpg",
        flow_lists="UCF101/file_list/ucf101_flow_{subset}_split_{split}.txt",
        videos="UCF101/videos",
        flow_tmpl="flow_{}_{:05d}.jpg",
        categories="UCF101/labels/classInd.txt",
        fps=25,
    ),
    DatasetSpec(
        name="hmdb51",
        num_classes=51,
        frames="HMDB51/images",
        lists="HMDB51/splits/hmdb51_rgb_{subset}_split_{split}.txt",
        flow_frames="HMDB51/images",
        flow_lists="HMDB51/splits/hmdb51_flow_{subset}_split_{split}.txt",
        videos="HMDB51/videos",
        flow_tmpl="flow_{}_{:05d}.jpg",
        categories="HMDB51/category.txt",
        fps=30,
    ),
    DatasetSpec(
        name="moving_digits",
        num_classes=8,
        frames="moving_digits/images",
        lists="moving_digits/labels/{subset}_videofolder.txt",
        flow_frames="moving_digits/flow",
        flow_lists="moving_digits/labels/{subset}_videofolder_flow.txt",
        videos="moving_digits/videos",
        categories="moving_digits/category.txt",
        flip=False,
        fps=25,
    ),
)
DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


@dataclass(frozen=True)
class DataOptions:
    """What a user says of the data set: overrides of its row, None or "" for none.

    Paths are as given, not relative to the root of all data sets, which is `root_dataset`, else $TSM_DATA_ROOT, else
    `data`. io: 'frames', or 'video' for the same lists with `root_path` as the folder of the video files.
    """

    root_dataset: str | Path | None = None
    root_path: str | Path | None = None
    train_list: str | Path | None = None
    val_list: str | Path | None = None
    num_class: int | None = None
    image_tmpl: str | None = None
    split: int = 1
    io: str = "frames"
    fps: float | None = None


@dataclass(frozen=True)
class DatasetPaths:
    """A data set as one run uses it. The lists may be absent on disk: reading one that is absent is the error."""

    name: str
    num_classes: int
    root_path: Path
    train_list: Path | None
    val_list: Path | None
    image_tmpl: str
    flip: bool
    categories: Path | None = None
    fps: float | None = None

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """Names in label order, or None where no file gives exactly `num_classes` of them."""
        beside = [path.parent / "category.txt" for path in (self.val_list, self.train_list) if path is not None]
        for path in dict.fromkeys([*beside, *([self.categories] if self.categories else [])]):
            if not path.is_file():
                continue
            names = read_class_names(path)
            if len(names) == self.num_classes:
                return names
            logger.warning("%s holds %d names, the data set %d classes: not used", path, len(names), self.num_classes)
        return None


def resolve_dataset(name: str, modality: str, options: DataOptions | None = None) -> DatasetPaths:
    """Row of the table plus what the options override.

    Raises InputError for an unknown name (unless a list, root_path and num_class are given), modality, io, split or
    template.
    """
    options = options or DataOptions()
    check_modality(modality)
    check_io(options.io, modality)
    if options.num_class is not None and options.num_class < 1:
        raise InputError(f"--num_class must be 1 or more, got {options.num_class}")
    row = _row_paths(DATASETS[name], modality, options) if name in DATASETS else _own_paths(name, options)
    given = {
        "num_classes": options.num_class,
        "root_path": _path(options.root_path),
        "train_list": _path(options.train_list),
        "val_list": _path(options.val_list),
        "image_tmpl": options.image_tmpl,
        "fps": options.fps,
    }
    paths = dataclasses.replace(row, **{field: value for field, value in given.items() if value})
    check_image_tmpl(paths.image_tmpl, modality)
    return paths


def _path(text: str | Path | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _row_paths(spec: DatasetSpec, modality: str, options: DataOptions) -> DatasetPaths:
    """A data set of the table below the root of all data sets."""
    if options.split not in (1, 2, 3):
        raise InputError(f"--split must be 1, 2 or 3, got {options.split}")
    root = Path(options.root_dataset or os.environ.get(ROOT_VARIABLE) or "data").expanduser()
    is_flow = modality == "Flow"
    frames = spec.videos if options.io == "video" else spec.flow_frames if is_flow else spec.frames
    lists = spec.flow_lists if is_flow else spec.lists
    train_list, val_list = (root / lists.format(subset=subset, split=options.split) for subset in ("train", "val"))
    return DatasetPaths(
        name=spec.name,
        num_classes=spec.num_classes,
        root_path=root / frames,
        train_list=train_list,
        val_list=val_list,
        image_tmpl=spec.flow_tmpl if is_flow else spec.image_tmpl,
        flip=spec.flip,
        categories=root / spec.categories if spec.categories else None,
        fps=spec.fps,
    )


def _own_paths(name: str, options: DataOptions) -> DatasetPaths:
    """A data set without a row, which the options must describe."""
    if not ((options.train_list or options.val_list) and options.root_path and options.num_class):
        raise InputError(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or describe your own with "
            "--train_list and --val_list (--test_list), --root_path and --num_class"
        )
    return DatasetPaths(name, options.num_class, Path(options.root_path), None, None, DEFAULT_TMPL, flip=True)


def return_dataset(dataset: str, modality: str) -> tuple[int, str, str, str, str]:
    """The published look-up: number of classes, training list, validation list, root of the frames, frame template.

    Raises InputError for a data set without a row: the published call has no lists of one's own.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    paths = resolve_dataset(dataset, modality)
    return paths.num_classes, str(paths.train_list), str(paths.val_list), str(paths.root_path), paths.image_tmpl
