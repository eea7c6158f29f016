"""Group transforms: one random choice for all frames of a clip, from decoded frames to a uint8 clip tensor.

Every transform is called as `t(frames, rng)`. Frames of the pillow backend are a list of RGB images, or for flow of
(x, y) pairs of L images; frames of the torchvision backend are uint8 tensors (C, H, W), as a list or stacked
(T, C, H, W). Both backends make the same choices from the same rng (np.random.RandomState); pillow's values are
Pillow's bit for bit, torchvision's differ by at most 1 of 255 where an image is resized (2 once in 10^6 values).

On the network's side, `ClipNormalize` turns the uint8 clip into the float input on the device.
Crop sizes and offsets: TSN, arXiv:1608.00859, section 3.2 (corner cropping and scale jittering), as published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ops.common.errors import InputError
from ops.data import frame_ops
from ops.data.frame_ops import Frames
from ops.normalize import ClipNormalize as ClipNormalize

Transform = Callable[[Frames, np.random.RandomState], Frames]

RGB_SCALES = (1, 0.875, 0.75, 0.66)
FLOW_SCALES = (1, 0.875, 0.75)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(width, height) of a size given as one number or as (width, height)."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class Compose:
    """The transforms one after the other; without an rng they draw from numpy's global random state."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames | Tensor:
        rng = np.random.mtrand._rand if rng is None else rng
        for transform in self.transforms:
            frames = transform(frames, rng)
        return frames


class GroupScale:
    """Resize so that the short side is `size`; the long one is int(size * long / short)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        return frame_ops.resize_each(frames, self._target)

    def _target(self, width: int, height: int) -> tuple[int, int]:
        if width < height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size


class GroupCenterCrop:
    """Crop `size` from the middle; a smaller image is padded with black."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        crop_width, crop_height = self.size
        width, height = frame_ops.image_size(frames)
        left, top = round((width - crop_width) / 2.0), round((height - crop_height) / 2.0)
        return frame_ops.crop(frames, left, top, crop_width, crop_height)


class GroupRandomCrop:
    """Crop `size` (width, height, or one number for both) anywhere inside the image."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, frames: Frames, rng: np.random.RandomState) -> Frames:
        crop_width, crop_height = self.size
        width, height = frame_ops.image_size(frames)
        if width < crop_width or height < crop_height:
            raise InputError(f"a crop of {crop_width} x {crop_height} does not fit into frames of {width} x {height}")
        left = rng.randint(width - crop_width + 1)
        top = rng.randint(height - crop_height + 1)
        return frame_ops.crop(frames, left, top, crop_width, crop_height)


class GroupRandomHorizontalFlip:
    """Mirror all frames with probability 0.5; a mirrored horizontal flow changes its sign (255 - v)."""

    def __init__(self, is_flow: bool = False) -> None:
        self.is_flow = is_flow

    def __call__(self, frames: Frames, rng: np.random.RandomState) -> Frames:
        if rng.random_sample() < 0.5:
            return frame_ops.flip(frames, invert_x=self.is_flow)
        return frames


class GroupMultiScaleCrop:
    """Crop one of several sizes at one of several places, and resize it to the input size.

    Sizes: width and height are int(short side * s) for scales s whose places in the list differ by at most
    max_distort; within 3 pixels of the input size a side becomes the input size. Places: `fixed_offsets`, or any if
    not fix_crop. Example: 340 x 256, input 224, scales (1, .875): (256 or 224) x (256 or 224).
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

    def __call__(self, frames: Frames, rng: np.random.RandomState) -> Frames:
        width, height = frame_ops.image_size(frames)
        pairs = self.crop_sizes(width, height)
        crop_width, crop_height = pairs[rng.randint(len(pairs))]
        if self.fix_crop:
            offsets = fixed_offsets(width, height, crop_width, crop_height, more=self.more_fix_crop)
            left, top = offsets[rng.randint(len(offsets))]
        else:
            left = rng.randint(max(0, width - crop_width) + 1)
            top = rng.randint(max(0, height - crop_height) + 1)
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
    width: int, height: int, crop_width: int, crop_height: int, *, more: bool = True
) -> list[tuple[int, int]]:
    """(left, top) of the corner and centre crops, on a grid of quarters of the free space; 8 others if `more`."""
    w_step, h_step = (width - crop_width) // 4, (height - crop_height) // 4
    grid = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
    if more:
        grid += [(0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
    return [(x * w_step, y * h_step) for x, y in grid]


class _GroupSample:
    """Several crops of every frame, scaled first: the frames of the first crop, then those of the second, ..."""

    def __init__(self, crop_size: int | Sequence[int], scale_size: int | None = None, flip: bool = True) -> None:
        self.crop_size = _pair(crop_size)
        self.scale = GroupScale(scale_size) if scale_size is not None else None
        self.flip = flip

    def offsets(self, width: int, height: int) -> list[tuple[int, int]]:
        """(left, top) of each crop."""
        raise NotImplementedError

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Frames:
        if self.scale is not None:
            frames = self.scale(frames)
        groups = []
        for left, top in self.offsets(*frame_ops.image_size(frames)):
            group = frame_ops.crop(frames, left, top, *self.crop_size)
            groups.append(group)
            if self.flip:
                groups.append(frame_ops.flip(group, invert_x=frame_ops.is_flow(group)))
        return frame_ops.concatenate(groups)


class GroupOverSample(_GroupSample):
    """Four corners and the centre: 5 crops, or 10 with `flip`, where each is followed by its mirror image."""

    def offsets(self, width: int, height: int) -> list[tuple[int, int]]:
        return fixed_offsets(width, height, *self.crop_size, more=False)


class GroupFullResSample(_GroupSample):
    """Left, right and centre at half height: 3 crops, or 6 with `flip`."""

    def offsets(self, width: int, height: int) -> list[tuple[int, int]]:
        w_step, h_step = (width - self.crop_size[0]) // 4, (height - self.crop_size[1]) // 4
        return [(0, 2 * h_step), (4 * w_step, 2 * h_step), (2 * w_step, 2 * h_step)]


class Stack:
    """Frames -> uint8 clip (T, C, H, W); with num_crops, (num_crops, T, C, H, W)."""

    def __init__(self, num_crops: int | None = None) -> None:
        self.num_crops = num_crops

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Tensor:
        clip = to_clip(frames)
        if self.num_crops is None:
            return clip
        return clip.unflatten(0, (self.num_crops, -1))


def to_clip(frames: Frames) -> Tensor:
    """Frames of either backend -> uint8 (T, C, H, W), its memory channels-last (T, H, W, C)."""
    return frame_ops.to_tensor(frames)


def train_transform(input_size: int, modality: str = "RGB", flip: bool = True) -> Compose:
    """Training augmentation -> uint8 (T, C, input_size, input_size). flip: no label depends on left and right."""
    scales = RGB_SCALES if modality == "RGB" else FLOW_SCALES
    transforms: list[Transform] = [GroupMultiScaleCrop(input_size, scales)]
    if flip:
        transforms.append(GroupRandomHorizontalFlip(is_flow=modality == "Flow"))
    return Compose([*transforms, Stack()])


def val_transform(input_size: int, scale_size: int) -> Compose:
    """Short side to scale_size, centre crop -> uint8 (T, C, input_size, input_size)."""
    return Compose([GroupScale(scale_size), GroupCenterCrop(input_size), Stack()])


def test_transform(input_size: int, scale_size: int, num_crops: int = 1) -> Compose:
    """1, 3, 5 or 10 crops of the scaled frames -> uint8 (num_crops, T, C, input_size, input_size)."""
    if num_crops == 1:
        transforms: list[Transform] = [GroupScale(scale_size), GroupCenterCrop(input_size)]
    elif num_crops == 3:
        transforms = [GroupFullResSample(input_size, scale_size, flip=False)]
    elif num_crops in (5, 10):
        transforms = [GroupOverSample(input_size, scale_size, flip=num_crops == 10)]
    else:
        raise InputError(f"{num_crops} crops: choose 1, 3, 5 or 10")
    return Compose([*transforms, Stack(num_crops)])
