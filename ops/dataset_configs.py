"""One table of data sets, and where their frames, lists and class names lie.

One's own data needs no row: any other name works with --train_list / --val_list / --test_list, --root_path and
--num_class. Class names are read from `category.txt` (a name a line) beside the list, else from the row's own file.
"""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ops.common.errors import InputError, is_one_line
from ops.common.modality import MODALITIES
from ops.data.sources import num_template_fields

logger = logging.getLogger(__name__)

IO_KINDS = ("frames", "video")
DEFAULT_TMPL = "img_{:05d}.jpg"
ROOT_VARIABLE = "TSM_DATA_ROOT"
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class DatasetSpec:
    """A row: paths are relative to the root of all data sets; `{subset}` is train or val, `{split}` is 1 to 3.

    A flow template with a `{}` field has one grey file an axis (x, y); one without packs (x, y, 0) into one RGB file.
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
    ),
)
DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


@dataclass(frozen=True)
class DatasetPaths:
    """A data set as one run uses it. The lists may be absent on disk: whoever reads one says so."""

    name: str
    num_classes: int
    root_path: Path
    train_list: Path | None
    val_list: Path | None
    image_tmpl: str
    flip: bool
    categories: Path | None = None

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


def read_class_names(path: str | Path) -> list[str]:
    """Class names in label order: a name a line, or lines `1 ApplyEyeMakeup` in a file called classInd.txt.

    Raises InputError with path and line, also for a name that is there twice or holds control characters: a damaged
    file would give results another class's name.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read class names from {path}: {error}") from error
    names: dict[str, None] = {}  # in order
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not is_one_line(text):
            raise InputError(f"{path}:{number}: a class name with control characters: {text[:100]!r}")
        if path.name == "classInd.txt":
            index, _, text = text.partition(" ")
            if index != str(len(names) + 1) or not text.strip():
                raise InputError(f"{path}:{number}: expected `{len(names) + 1} name`, got {line!r}")
        name = text.strip()
        if name in names:
            raise InputError(f"{path}:{number}: the class {name!r} is there twice")
        names[name] = None
    return list(names)


def check_image_tmpl(image_tmpl: str, modality: str) -> str:
    """Return the template, or raise InputError where it cannot name a frame of this modality."""
    if num_template_fields(image_tmpl) > 1 and modality != "Flow":
        raise InputError(f"--image_tmpl {image_tmpl!r} names x and y files: {modality} takes names like {DEFAULT_TMPL}")
    return image_tmpl


def _path(text: str | Path | None) -> Path | None:
    return Path(text).expanduser() if text else None


def resolve_dataset(
    name: str,
    modality: str,
    *,
    root_dataset: str | Path | None = None,
    split: int = 1,
    num_class: int | None = None,
    train_list: str | Path | None = None,
    val_list: str | Path | None = None,
    root_path: str | Path | None = None,
    image_tmpl: str | None = None,
    io: str = "frames",
) -> DatasetPaths:
    """Row of the table plus what the options override; an empty string counts as not given.

    The root of all data sets is `root_dataset`, else $TSM_DATA_ROOT, else `data`. With io='video' the same lists are
    used and `root_path` is the folder of the video files (kinetics: `kinetics/videos`). Overrides are paths as given,
    not relative to that root. Raises InputError for an unknown name (unless a list, root_path and num_class are given),
    modality, split or template.
    """
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}: choose one of {', '.join(MODALITIES)}")
    if io not in IO_KINDS:
        raise InputError(f"unknown --io {io!r}: choose one of {', '.join(IO_KINDS)}")
    if io == "video" and modality == "Flow":
        raise InputError("--io video has no Flow: extract it first (tools/extract_flow.py) and use --io frames")
    if num_class is not None and num_class < 1:
        raise InputError(f"--num_class must be 1 or more, got {num_class}")
    spec = DATASETS.get(name)
    if spec is None:
        if not ((train_list or val_list) and root_path and num_class):
            raise InputError(
                f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or describe your own with "
                "--train_list and --val_list (--test_list), --root_path and --num_class"
            )
        return DatasetPaths(
            name=name,
            num_classes=num_class,
            root_path=_path(root_path),
            train_list=_path(train_list),
            val_list=_path(val_list),
            image_tmpl=check_image_tmpl(image_tmpl or DEFAULT_TMPL, modality),
            flip=True,
        )
    if split not in (1, 2, 3):
        raise InputError(f"--split must be 1, 2 or 3, got {split}")

    root = Path(root_dataset or os.environ.get(ROOT_VARIABLE) or "data").expanduser()
    flow = modality == "Flow"
    lists = spec.flow_lists if flow else spec.lists
    default_root = spec.videos if io == "video" else spec.flow_frames if flow else spec.frames
    return DatasetPaths(
        name=name,
        num_classes=num_class or spec.num_classes,
        root_path=_path(root_path) or root / default_root,
        train_list=_path(train_list) or root / lists.format(subset="train", split=split),
        val_list=_path(val_list) or root / lists.format(subset="val", split=split),
        image_tmpl=check_image_tmpl(image_tmpl or (spec.flow_tmpl if flow else spec.image_tmpl), modality),
        flip=spec.flip,
        categories=root / spec.categories if spec.categories else None,
    )
