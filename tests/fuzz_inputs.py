"""The readers that tests/fuzz_readers.py gives damaged files to, and the whole files of each."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ops.checkpoint.file import load_checkpoint
from ops.common.errors import InputError
from ops.data.lists import read_list
from ops.dataset import TSNDataSet
from ops.evaluation.scores import Scores
from ops.transforms import test_transform
from tests.helpers import make_frames, make_kinetics_tree, make_list, make_video
from tools import check_dataset

Value = Any  # plain data that can be compared

NUM_FRAMES, NUM_CLASSES = 8, 5


class Reader(NamedTuple):
    """One of the project's readers.

    make: write whole files below a folder; returns the relative paths of those to damage. read: (folder, damaged file)
    -> value. problem: (value, value of the whole file) -> what is wrong with it, None for nothing.
    """

    make: Callable[[Path], list[str]]
    read: Callable[[Path, str], Value]
    problem: Callable[[Value, Value], str | None]


def plain(value: Any) -> Value:
    """Nested data with tensors and arrays as (shape, type, checksum)."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.ascontiguousarray(value)
        return tuple(array.shape), str(array.dtype), zlib.crc32(array.tobytes())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def must_not_differ(value: Value, whole: Value) -> str:
    """For formats with checksums."""
    return "differs, though the format has checksums"


def check_list(*arguments: object) -> None:
    """Run check_dataset."""
    if check_dataset.main([*map(str, arguments), "-j", "1"]):
        raise InputError("it printed what is wrong")


# --- frames, videos ---------------------------------------------------------------------------------------------------


def make_clips(folder: Path) -> list[str]:
    """Videos as folders of frames, a format each, and their lists."""
    settings = {"jpg": {"quality": 90}, "jpeg": {"progressive": True}, "png": {}, "webp": {"quality": 80}}
    for seed, (suffix, options) in enumerate(settings.items()):
        make_list(folder / f"{suffix}.txt", [(suffix, 4, 3)])
        (folder / suffix).mkdir()
        for number, frame in enumerate(make_frames(4, (64, 48), seed), start=1):
            Image.fromarray(frame).save(folder / suffix / f"{number:05d}.{suffix}", **options)
    return [f"{suffix}/{number:05d}.{suffix}" for suffix in settings for number in (1, 3)]


def read_clip(folder: Path, file: str, *, backend: str) -> Value:
    suffix = Path(file).parent.name
    dataset = TSNDataSet(
        folder, folder / f"{suffix}.txt", 4, image_tmpl=f"{{:05d}}.{suffix}", image_backend=backend,
        test_mode=True, transform=test_transform(32, 36), num_class=NUM_CLASSES,
    )  # fmt: skip
    return plain(dataset[0])


def clip_problem(value: Value, whole: Value) -> str | None:
    """Pixels may differ; shape, type and label may not."""
    forms = [(clip[:2], label) for clip, label in (value, whole)]
    return None if forms[0] == forms[1] else f"{forms[0]} instead of {forms[1]}"


def make_videos(folder: Path) -> list[str]:
    """Videos, each in a folder with a list of its own."""
    videos = {"a/video.mp4": "libx264", "b/video.mp4": "mpeg4", "c/video.webm": "libvpx", "d/video.avi": "mpeg4"}
    for seed, (name, codec) in enumerate(videos.items()):
        path = make_video(folder / name, make_frames(NUM_FRAMES, (64, 48), seed), codec=codec)
        make_list(path.parent / "list.txt", [(path.name, NUM_FRAMES, seed)])
    return list(videos)


def read_video(folder: Path, file: str) -> Value:
    """As --io video does, with a segment for every frame, on a list that check_dataset has passed."""
    root = (folder / file).parent
    dataset = TSNDataSet(
        root, root / "list.txt", NUM_FRAMES, io="video", test_mode=True, transform=test_transform(32, 36),
        num_class=NUM_CLASSES,
    )  # fmt: skip
    frames = [plain(frame) for frame in dataset[0][0]]
    check_list(root / "list.txt", root, "--io", "video")
    return frames


def video_problem(value: Value, whole: Value) -> str | None:
    """Damaged pixels may pass, also the frame before where a frame's changes are lost (value[i] == value[i - 1]); never
    is another frame of the video in a frame's place."""
    if [frame[:2] for frame in value] != [frame[:2] for frame in whole]:
        return "other shapes, or another number of frames"
    moved = [(i, whole.index(frame)) for i, frame in enumerate(value) if frame in whole and whole[i] != frame]
    moved = [(i, j) for i, j in moved if not (i == j + 1 and value[i] == value[j])]
    return f"frame {moved[0][1]} in the place of frame {moved[0][0]}" if moved else None


# --- checkpoints, scores ----------------------------------------------------------------------------------------------


def make_checkpoints(folder: Path, *, zip_format: bool) -> list[str]:
    torch.manual_seed(0)
    weights = {f"module.base_model.layer{i}.0.conv1.weight": torch.randn(8, 4, 3, 3) for i in (1, 2, 3, 4)}
    weights |= {"module.base_model.bn1.num_batches_tracked": torch.tensor(7)}
    weights |= {"module.new_fc.weight": torch.randn(NUM_CLASSES, 8), "module.new_fc.bias": torch.randn(NUM_CLASSES)}
    options = {"dataset": "kinetics", "arch": "resnet18", "num_class": NUM_CLASSES, "class_names": list("abcde")}
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(8, 4)}}, "param_groups": [{"lr": 0.01}]}
    full = {"state_dict": weights, "epoch": 4, "best_prec1": 61.25, "options": options, "optimizer": optimizer}
    torch.save(full, folder / "full.pth.tar", _use_new_zipfile_serialization=zip_format)
    torch.save(weights, folder / "bare.pth", _use_new_zipfile_serialization=zip_format)
    return ["full.pth.tar", "bare.pth"]


def read_checkpoint(folder: Path, file: str) -> Value:
    found = load_checkpoint(folder / file)
    options = found.known_options.to_dict() if found.known_options else None
    return plain([found.state_dict, found.epoch, found.best_prec1, options, found.optimizer, found.extra])


def make_scores(folder: Path) -> list[str]:
    for seed, name in enumerate(("rgb.npz", "flow.npz")):
        names = [f"val/class {index % NUM_CLASSES}/video_{index}" for index in range(40)]
        scores = np.random.RandomState(seed).randn(40, NUM_CLASSES).astype(np.float32)
        Scores(names, np.arange(40) % NUM_CLASSES, scores).save(folder / name)
    return ["rgb.npz", "flow.npz"]


def read_scores(folder: Path, file: str) -> Value:
    scores = Scores.load(folder / file)
    return plain([scores.names, scores.labels, scores.scores])


# --- lists ------------------------------------------------------------------------------------------------------------


def make_lists(folder: Path) -> list[str]:
    make_kinetics_tree(folder, num_frames=NUM_FRAMES, size=(24, 16))
    return [f"kinetics/labels/{subset}_videofolder.txt" for subset in ("train", "val")]


def read_checked_list(folder: Path, file: str) -> Value:
    check_list(folder / file, folder / "kinetics/images", "--num_class", 2)
    return [tuple(record)[:3] for record in read_list(folder / file, num_class=2)]


def list_problem(value: Value, whole: Value) -> str | None:
    """A list that passed names videos that exist, with their true counts, each once; labels can be wrong."""
    wrong = [row for row in value if row[1] != NUM_FRAMES or row[2] not in (0, 1)]
    return f"passed {wrong[:1]}" if wrong or len({row[0] for row in value}) < len(value) else None


make_zip, make_old = (partial(make_checkpoints, zip_format=zip_format) for zip_format in (True, False))

READERS = {
    "clip of frames, torchvision": Reader(make_clips, partial(read_clip, backend="torchvision"), clip_problem),
    "clip of frames, pillow": Reader(make_clips, partial(read_clip, backend="pillow"), clip_problem),
    "video, check_dataset and --io video": Reader(make_videos, read_video, video_problem),
    "checkpoint, zip": Reader(make_zip, read_checkpoint, must_not_differ),
    "checkpoint, old format": Reader(make_old, read_checkpoint, lambda value, whole: None),
    "scores .npz": Reader(make_scores, read_scores, must_not_differ),
    "list, check_dataset": Reader(make_lists, read_checked_list, list_problem),
}
