"""Group transforms: one random choice for all frames of a clip.

Every transform is called as `t(frames, rng)`, or as `t(frames)`: it then draws from Python's `random`, as published.
Frames of the pillow backend are a list of RGB images, or for flow of L images, x and y in turn; frames of the
torchvision backend are uint8 tensors (C, H, W), as a list or stacked (T, C, H, W). Both backends make the same choices
from the same rng (np.random.RandomState); pillow's values are Pillow's bit for bit, torchvision's differ by at most 1
of 255 where an image is resized (2 once in 10^6 values).

Training and testing use `ClipTransform`, from frames to a uint8 clip, and `ClipNormalize`, which turns that into the
network's input on the device. `Stack`, `ToTorchFormatTensor` and `GroupNormalize` are the published form of the same,
for Pillow images on the CPU: docs/published.md.
Crop sizes and offsets: TSN, arXiv:1608.00859, section 3.2 (corner cropping and scale jittering), as published.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from ops.common.errors import InputError
from ops.data import frame_ops
from ops.data.frame_ops import Frames
from ops.network.normalize import ClipNormalize, GroupNormalize, IdentityTransform, Stack, ToTorchFormatTensor

# What `from ops.transforms import *` gives published scripts, which take np, torch and torchvision from here, too.
__all__ = [
    "ClipNormalize",
    "GroupCenterCrop",
    "GroupFullResSample",
    "GroupMultiScaleCrop",
    "GroupNormalize",
    "GroupOverSample",
    "GroupRandomCrop",
    "GroupRandomHorizontalFlip",
    "GroupScale",
    "IdentityTransform",
    "Stack",
    "ToTorchFormatTensor",
    "np",
    "torch",
    "torchvision",
]

Transform = Callable[[Frames, np.random.RandomState | None], Frames]

RGB_SCALES = (1, 0.875, 0.75, 0.66)
FLOW_SCALES = (1, 0.875, 0.75)  # of RGBDiff, too
CORNER_GRID = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))  # and the centre
TRAIN_GRID = (*CORNER_GRID, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
FULL_RES_GRID = ((0, 2), (4, 2), (2, 2))


def scale_size(input_size: int) -> int:
    """Short side that evaluation scales frames to before it crops input_size: 224 -> 256."""
    return input_size * 256 // 224


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """A size given as one number for both sides, or as two."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class _PythonRandom:
    """Python's `random` with the two methods that transforms call: they draw as the published ones do."""

    randint = staticmethod(random.randrange)
    random_sample = staticmethod(random.random)


_PYTHON_RANDOM = _PythonRandom()


class Compose:
    """The transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames | Tensor:
        for transform in self.transforms:
            frames = transform(frames, rng)
        return frames


class ClipTransform(Compose):
    """The transforms, then the frames as a uint8 clip (T, C, H, W); with num_crops, (num_crops, T, C, H, W)."""

    def __init__(self, transforms: Sequence[Transform], num_crops: int | None = None) -> None:
        super().__init__(transforms)
        self.num_crops = num_crops

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Tensor:
        clip = frame_ops.to_clip(super().__call__(frames, rng))
        return clip if self.num_crops is None else clip.unflatten(0, (self.num_crops, -1))


class GroupScale:
    """Resize so that the short side is `size` and the long one int(size * long / short), or to `size` [width, height].

    interpolation: a filter of Pillow or of torchvision; tensors take the bilinear one only.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: Image.Resampling | InterpolationMode | int = Image.Resampling.BILINEAR,
    ) -> None:
        self.size = size if isinstance(size, int) else _pair(size)
        by_name = isinstance(interpolation, InterpolationMode)
        self.interpolation = Image.Resampling[interpolation.name] if by_name else Image.Resampling(interpolation)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        return frame_ops.resize_each(frames, self._target, self.interpolation)

    def _target(self, width: int, height: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        if width < height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size


class GroupCenterCrop:
    """Crop `size` (height, width, or one number for both) from the middle; a smaller image is padded with black."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        crop_height, crop_width = self.size
        width, height = frame_ops.image_size(frames)
        # As torchvision's CenterCrop: an odd pixel of padding goes to the right and the bottom.
        left, top = (
            round(space / 2.0) if space > 0 else -(-space // 2) for space in (width - crop_width, height - crop_height)
        )
        return frame_ops.crop(frames, left, top, crop_width, crop_height)


class GroupRandomCrop:
    """Crop `size` (height, width, or one number for both) anywhere inside the image."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        rng = rng or _PYTHON_RANDOM
        crop_height, crop_width = self.size
        width, height = frame_ops.image_size(frames)
        if width < crop_width or height < crop_height:
            raise InputError(f"a crop of {crop_width} x {crop_height} does not fit into frames of {width} x {height}")
        left, top = rng.randint(width - crop_width + 1), rng.randint(height - crop_height + 1)
        return frame_ops.crop(frames, left, top, crop_width, crop_height)


class GroupRandomHorizontalFlip:
    """Mirror all frames with probability 0.5; a mirrored horizontal flow changes its sign (255 - v)."""

    def __init__(self, is_flow: bool = False) -> None:
        self.is_flow = is_flow

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        if (rng or _PYTHON_RANDOM).random_sample() < 0.5:
            return frame_ops.flip(frames, invert_x=self.is_flow)
        return frames


class GroupMultiScaleCrop:
    """Crop one of several sizes at one of several places, and resize it to the input size.

    Sizes: width and height are int(short side * s) for scales s whose places in the list differ by at most
    max_distort; within 3 pixels of the input size a side becomes the input size. 340 x 256, input 224, scales
    (1, .875) -> (256 or 224) x (256 or 224). Places: TRAIN_GRID, CORNER_GRID if not more_fix_crop, any if not fix_crop.
    """

    def __init__(
        self,
        input_size: int | Sequence[int],
        scales: Sequence[float] | None = None,
        max_distort: int = 1,
        fix_crop: bool = True,
        more_fix_crop: bool = True,
    ) -> None:
        self.input_size = _pair(input_size)
        self.scales = list(RGB_SCALES if scales is None else scales)
        self.max_distort = max_distort
        self.fix_crop = fix_crop
        self.more_fix_crop = more_fix_crop

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        rng = rng or _PYTHON_RANDOM
        width, height = frame_ops.image_size(frames)
        pairs = self.crop_sizes(width, height)
        crop_width, crop_height = pairs[rng.randint(len(pairs))]
        if self.fix_crop:
            grid = TRAIN_GRID if self.more_fix_crop else CORNER_GRID
            offsets = fixed_offsets(width, height, crop_width, crop_height, grid)
            left, top = offsets[rng.randint(len(offsets))]
        else:
            left, top = rng.randint(max(0, width - crop_width) + 1), rng.randint(max(0, height - crop_height) + 1)
        cropped = frame_ops.crop(frames, left, top, crop_width, crop_height)
        return frame_ops.resize(cropped, *self.input_size)

    def crop_sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """All (width, height) pairs to draw from, for an image of this size."""
        sides = [max(1, int(min(width, height) * scale)) for scale in self.scales]
        widths, heights = ([size if abs(side - size) < 3 else side for side in sides] for size in self.input_size)
        return [
            (crop_width, crop_height)
            for i, crop_height in enumerate(heights)
            for j, crop_width in enumerate(widths)
            if abs(i - j) <= self.max_distort
        ]


def fixed_offsets(
    width: int, height: int, crop_width: int, crop_height: int, grid: Sequence[tuple[int, int]] = TRAIN_GRID
) -> list[tuple[int, int]]:
    """(left, top) in pixels of a grid's points, which count quarters of the space that the crop leaves free."""
    x_step, y_step = (width - crop_width) // 4, (height - crop_height) // 4
    return [(x * x_step, y * y_step) for x, y in grid]


class _GroupSample:
    """Several crops of every frame, scaled first: the frames of the first crop, then those of the second, ..."""

    grid = CORNER_GRID

    def __init__(self, crop_size: int | Sequence[int], scale_size: int | None = None, flip: bool = True) -> None:
        self.crop_size = _pair(crop_size)
        self.scale = GroupScale(scale_size) if scale_size is not None else None
        self.flip = flip

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        if self.scale is not None:
            frames = self.scale(frames)
        groups = []
        for left, top in fixed_offsets(*frame_ops.image_size(frames), *self.crop_size, self.grid):
            group = frame_ops.crop(frames, left, top, *self.crop_size)
            groups.append(group)
            if self.flip:
                groups.append(frame_ops.flip(group, invert_x=frame_ops.is_flow(group)))
        return frame_ops.concatenate(groups)


class GroupOverSample(_GroupSample):
    """Four corners and the centre: 5 crops, or 10 with `flip`, where each is followed by its mirror image."""


class GroupFullResSample(_GroupSample):
    """Left, right and centre at half height: 3 crops, or 6 with `flip`."""

    grid = FULL_RES_GRID


def train_augmentation(input_size: int, modality: str = "RGB", flip: bool = True) -> Compose:
    """Multi-scale crops and, with `flip` (no label depends on left and right), horizontal flips; frames stay frames."""
    transforms: list[Transform] = [GroupMultiScaleCrop(input_size, RGB_SCALES if modality == "RGB" else FLOW_SCALES)]
    if flip:
        transforms.append(GroupRandomHorizontalFlip(is_flow=modality == "Flow"))
    return Compose(transforms)


def train_transform(input_size: int, modality: str = "RGB", flip: bool = True) -> ClipTransform:
    """`train_augmentation` -> uint8 (T, C, input_size, input_size)."""
    return ClipTransform(train_augmentation(input_size, modality, flip).transforms)


def val_transform(input_size: int, scale_size: int) -> ClipTransform:
    """Short side to scale_size, centre crop -> uint8 (T, C, input_size, input_size)."""
    return ClipTransform([GroupScale(scale_size), GroupCenterCrop(input_size)])


def test_transform(input_size: int, scale_size: int, num_crops: int = 1) -> ClipTransform:
    """1, 3, 5 or 10 crops of the scaled frames -> uint8 (num_crops, T, C, input_size, input_size)."""
    if num_crops == 1:
        transforms: list[Transform] = [GroupScale(scale_size), GroupCenterCrop(input_size)]
    elif num_crops == 3:
        transforms = [GroupFullResSample(input_size, scale_size, flip=False)]
    elif num_crops in (5, 10):
        transforms = [GroupOverSample(input_size, scale_size, flip=num_crops == 10)]
    else:
        raise InputError(f"{num_crops} crops: choose 1, 3, 5 or 10")
    return ClipTransform(transforms, num_crops)
