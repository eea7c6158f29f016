"""From a line of a list to a clip: which frames, decoded once each, transformed, in the order the network reads."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ops.common.errors import InputError, counted
from ops.common.modality import check_modality, frames_per_segment
from ops.data import sampling
from ops.data.frame_ops import Frames, to_clip
from ops.data.images import check_backend
from ops.data.lists import MIN_TRAIN_FRAMES, VIDEO_EXTENSIONS, VideoRecord, read_list
from ops.data.sources import Frame, FrameFolder, FrameSource, VideoFile, check_io, num_template_fields, numbered_folder
from ops.transforms import ClipTransform

logger = logging.getLogger(__name__)

Transform = Callable[[Frames, np.random.RandomState], Tensor]


def find_video_file(path: str) -> str:
    """The video file at `path`, or at `path` plus the extension of a video; InputError if there is neither."""
    for extension in ("", *VIDEO_EXTENSIONS, *map(str.upper, VIDEO_EXTENSIONS)):
        if os.path.isfile(path + extension):
            return path + extension
    raise InputError(f"{path}: no such video file, nor with an extension such as {' '.join(VIDEO_EXTENSIONS[:5])}")


def load_clip(
    source: FrameSource, frames: np.ndarray, transform: Transform | None, rng: np.random.RandomState
) -> Tensor:
    """Decode each distinct frame once, transform, and put the frames into the order in which the network reads them.

    Args:
        frames: 0-based indices in clip order, (clips*T*L,); may repeat and run backwards.
        transform: distinct frames in time order (F' of them) -> uint8 (F', C, H, W) or (crops, F', C, H, W). One call
            sees them all, so that every frame gets the same crop. None: the frames as they are.

    Returns: uint8 (crops*clips*T*L, C, H, W), crops outermost; channels-last in memory, as decoders leave it.
    """
    distinct, order = np.unique(frames, return_inverse=True)
    decoded = _axes_apart(source.read(distinct))
    clip = to_clip(decoded) if transform is None else transform(decoded, rng)
    if not np.array_equal(order, np.arange(len(distinct))):
        # Gather whole pixels: index_select would transpose a tensor whose channels are not its last dimension.
        clip = clip.movedim(-3, -1).index_select(-4, torch.from_numpy(order)).movedim(-1, -3)
    return clip.reshape(-1, *clip.shape[-3:])


def load_images(source: FrameSource, frames: np.ndarray) -> list[Image.Image]:
    """Decode each distinct frame once -> an image for each of `frames` (as in `load_clip`), of Flow x and y in turn."""
    distinct, order = np.unique(frames, return_inverse=True)
    decoded = source.read(distinct)
    return _axes_apart([decoded[i] for i in order])


def _axes_apart(decoded: Sequence[Frame]) -> Frames:
    """A Pillow flow's pairs as one list: (x, y), (x, y) -> x, y, x, y; other frames as they are."""
    return [image for pair in decoded for image in pair] if isinstance(decoded[0], tuple) else decoded


class TSNDataSet(Dataset):
    """Clips of the videos in a list.

    `dataset[i]` or `dataset[(i, epoch)]` is (clip, label): clip uint8 (crops*clips*T*L, C, H, W), C being 3 or, for
    Flow, 2 (x, y), and L the frames stacked at each segment. Its memory is channels-last: flattened to the published
    (crops*clips*T*L*C, H, W), the values are the same. Every random choice comes from (seed, epoch, i), in validation
    from (seed, i): see ops/data/loader.py. In training `dataset[i]` draws from numpy's global state, as published.

    Args:
        root_path: folder that the list's paths are relative to.
        num_segments: T, frames (or stacks of frames) a clip.
        new_length: L, frames stacked at each segment (1 for RGB, 5 for Flow and RGBDiff, which reads one more).
        image_tmpl: file name of a frame, numbered from 1. `{:06d}-{}_{:05d}.jpg` (something v1 flow) also says that the
            list counts x and y files, twice the frames.
        transform: a `ClipTransform` gives the clip, see `load_clip`. Any other callable gets the list of all frames as
            Pillow images (of Flow x and y in turn) and gives what `dataset[i]` is to hold instead of the clip.
        random_shift: draw segments at random (training); else their middles (validation).
        test_mode: sample as for testing (`twice_sample`: 2 clips; `dense_sample`: 10), and keep every video of the
            list; training and validation drop videos under 3 frames, so does testing with `remove_missing`.
        io: 'frames' (folders of images) or 'video' (the same paths with a video's extension, or without).
        image_backend: 'torchvision' (the default of a `ClipTransform`) or 'pillow' (that of any other transform).
        reverse: play every video backwards.
        max_num: use the first `max_num` videos only; 0 or less is all.

    Raises InputError with list, line and file where something cannot be read: another frame is never taken instead.
    """

    def __init__(
        self,
        root_path: str | Path,
        list_file: str | Path,
        num_segments: int = 3,
        new_length: int = 1,
        modality: str = "RGB",
        image_tmpl: str = "img_{:05d}.jpg",
        transform: ClipTransform | Callable[[list[Image.Image]], Any] | None = None,
        random_shift: bool = True,
        test_mode: bool = False,
        remove_missing: bool = False,
        dense_sample: bool = False,
        twice_sample: bool = False,
        *,
        io: str = "frames",
        image_backend: str | None = None,
        num_class: int | None = None,
        seed: int = 0,
        reverse: bool = False,
        max_num: int = -1,
    ) -> None:
        check_modality(modality)
        check_io(io, modality)
        sampling.check_views(dense=dense_sample, twice=twice_sample)
        sampling.check_counts(num_segments=num_segments, new_length=new_length)
        self.root_path = str(root_path)
        self.list_file = str(list_file)
        self.num_segments = num_segments
        self.new_length = frames_per_segment(modality, new_length)
        self.modality = modality
        self.image_tmpl = image_tmpl
        self.transform = transform
        self.random_shift = random_shift
        self.test_mode = test_mode
        self.dense_sample = dense_sample
        self.twice_sample = twice_sample
        self.io = io
        self._takes_images = not (transform is None or isinstance(transform, ClipTransform))
        self.image_backend = check_backend(image_backend or ("pillow" if self._takes_images else "torchvision"))
        if self._takes_images and (self.image_backend != "pillow" or (reverse and modality == "Flow")):
            raise InputError("only an ops.transforms.ClipTransform takes torchvision's frames, or reverses Flow")
        self.seed = seed
        self.reverse = reverse

        self.video_list = read_list(list_file, num_class=num_class)
        if not os.path.isdir(self.root_path):
            raise InputError(f"folder {self.root_path} is not there: give --root_path, or --root_dataset")
        if num_template_fields(image_tmpl) == 3:
            self.video_list = [record._replace(num_frames=record.num_frames // 2) for record in self.video_list]
        if not test_mode or remove_missing:
            self._drop_short_videos()
        if max_num > 0:
            self.video_list = self.video_list[:max_num]

    def _drop_short_videos(self) -> None:
        listed = len(self.video_list)
        self.video_list = [record for record in self.video_list if record.num_frames >= MIN_TRAIN_FRAMES]
        if not self.video_list:
            raise InputError(f"list file {self.list_file}: every video of {listed} has under {MIN_TRAIN_FRAMES} frames")
        if len(self.video_list) < listed:
            dropped_videos = counted(listed - len(self.video_list), "video")
            logger.info("%s: left out %s under %d frames", self.list_file, dropped_videos, MIN_TRAIN_FRAMES)

    def __len__(self) -> int:
        return len(self.video_list)

    @property
    def labels(self) -> list[int]:
        """The class of each video."""
        return [record.label for record in self.video_list]

    @property
    def checksum(self) -> str:
        """Checksum of all paths, frame counts and labels in their order: another list is another training."""
        lines = (f"{record.path} {record.num_frames} {record.label}\n" for record in self.video_list)
        return f"{zlib.crc32(''.join(lines).encode(errors='surrogateescape')):08x}"

    @property
    def frame_distance(self) -> float:
        """How many frames of a video lie from one frame of a clip to the next, on average over the list."""
        counts = (record.num_frames for record in self.video_list)
        distances = (sampling.frame_distance(n, self.num_segments, dense=self.dense_sample) for n in counts)
        return sum(distances) / len(self)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Any, int]:
        index, epoch = key if isinstance(key, tuple) else (key, None)
        record = self.video_list[index]
        if not self.random_shift or self.test_mode:
            epoch = 0  # figures of different epochs can be compared
        rng = np.random.mtrand._rand if epoch is None else sampling.seeded_rng(self.seed, epoch, index % len(self))
        try:
            frames = self.sample_frames(record.num_frames, rng)
            if self._takes_images:
                return self.transform(load_images(self.open(record), frames)), record.label
            clip = load_clip(self.open(record), frames, self.transform, rng)
        except InputError as error:
            raise InputError(f"{self.where(record)}: {error}") from error
        if self.reverse and self.modality == "Flow":
            clip = 255 - clip  # what moved right now moves left
        return clip, record.label

    def where(self, record: VideoRecord) -> str:
        """`list:line` of a video, for messages."""
        return f"{self.list_file}:{record.line_number}"

    def sample_frames(self, num_frames: int, rng: np.random.RandomState) -> np.ndarray:
        """0-based frames of all clips of a video in playing order, (clips*T*L,), stacks written out."""
        shape = (num_frames, self.num_segments, self.new_length)
        if self.test_mode:
            starts = sampling.test_indices(*shape, dense=self.dense_sample, twice=self.twice_sample)
        elif self.random_shift:
            starts = sampling.train_indices(*shape, dense=self.dense_sample, rng=rng)
        else:
            starts = sampling.val_indices(*shape, dense=self.dense_sample, rng=rng)
        frames = sampling.stack_indices(starts, self.new_length, num_frames)
        return num_frames - 1 - frames if self.reverse else frames

    def open(self, record: VideoRecord) -> FrameSource:
        """Source of a video's frames; InputError if there is no video file."""
        path = os.path.join(self.root_path, record.path)
        if self.io == "video":
            path = find_video_file(path)
        elif num_template_fields(self.image_tmpl) == 3:
            path = numbered_folder(path)
        if self.io == "video":
            return VideoFile(path, self.modality, self.image_backend)
        return FrameFolder(path, self.image_tmpl, self.modality, self.image_backend)


def check_record(dataset: TSNDataSet, record: VideoRecord) -> str | None:
    """Say what is wrong with a video (missing, or fewer frames than listed), without decoding; None if nothing is."""
    listed = f"{counted(record.num_frames, 'frame')} {'is' if record.num_frames == 1 else 'are'} listed"
    try:
        source = dataset.open(record)
        if isinstance(source, VideoFile):
            return None if os.path.getsize(source.path) else f"{source.path} is empty"
        if not os.path.isdir(source.directory):
            return f"folder {source.directory} is not there"
        if record.num_frames and not all(map(os.path.isfile, source.paths(record.num_frames - 1))):
            return f"{listed}, but {source.paths(record.num_frames - 1)[0]} is not there"
    except InputError as error:
        return str(error)
    return None


def quick_check(dataset: TSNDataSet, samples: int = 32) -> None:
    """Look at `samples` videos spread over the list before a long run starts.

    Raises InputError with the first video that is missing or has fewer frames than listed.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int)).tolist()
    records = [dataset.video_list[i] for i in chosen]
    problems = [(record, problem) for record in records if (problem := check_record(dataset, record))]
    if problems:
        record, problem = problems[0]
        raise InputError(
            f"{dataset.where(record)}: {problem} ({len(problems)} wrong of {counted(len(records), 'video')} looked at; "
            "tools/check_dataset.py finds them all, its --fix writes a list that fits)"
        )
