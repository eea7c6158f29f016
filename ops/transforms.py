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
import torch
from torch import Tensor

from ops.common.errors import InputError, counted
from ops.common.modality import clip_channels, default_new_length
from ops.data import frame_ops
from ops.data.frame_ops import Frames

Transform = Callable[[Frames, np.random.RandomState], Frames]

RGB_SCALES = (1, 0.875, 0.75, 0.66)
FLOW_SCALES = (1, 0.875, 0.75)  # of RGBDiff, too
CORNER_GRID = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))  # and the centre
TRAIN_GRID = (*CORNER_GRID, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
FULL_RES_GRID = ((0, 2), (4, 2), (2, 2))


def scale_size(input_size: int) -> int:
    """Short side that evaluation scales frames to before it crops input_size: 224 -> 256."""
    return input_size * 256 // 224


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
        left, top = rng.randint(width - crop_width + 1), rng.randint(height - crop_height + 1)
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

    def __call__(self, frames: Frames, rng: np.random.RandomState) -> Frames:
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


class Stack:
    """Frames -> uint8 clip (T, C, H, W); with num_crops, (num_crops, T, C, H, W)."""

    def __init__(self, num_crops: int | None = None) -> None:
        self.num_crops = num_crops

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> Tensor:
        clip = frame_ops.to_clip(frames)
        return clip if self.num_crops is None else clip.unflatten(0, (self.num_crops, -1))


def train_augmentation(input_size: int, modality: str = "RGB", flip: bool = True) -> Compose:
    """Multi-scale crops and, where `flip` (no label depends on left and right), horizontal flips; frames stay frames."""
    transforms: list[Transform] = [GroupMultiScaleCrop(input_size, RGB_SCALES if modality == "RGB" else FLOW_SCALES)]
    if flip:
        transforms.append(GroupRandomHorizontalFlip(is_flow=modality == "Flow"))
    return Compose(transforms)


def train_transform(input_size: int, modality: str = "RGB", flip: bool = True) -> Compose:
    """`train_augmentation` -> uint8 (T, C, input_size, input_size)."""
    return Compose([*train_augmentation(input_size, modality, flip).transforms, Stack()])


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


class ClipNormalize:
    """Uint8 clips on any device -> float32 network input, ((x / 255) - mean) / std per channel, in one fused step.

    mean, std: one value a channel, or one for all (Flow). div255: they are for values in [0, 1], else [0, 255].
    bgr: the network wants the channels of each RGB frame reversed. modality RGBDiff: no mean and std (differences are
    taken inside the network). channels: of a segment in the clip (default: 3 for RGB, 10 for Flow, 18 for RGBDiff).

    Input: (N, T*C, H, W) or, with crops, clips or frames apart, (N, ..., C, H, W), in any memory format.
    Output: (N, T*C, H, W) with every dimension between N and H flattened; or, if channels_last, (N, T, C, H, W) of
    which the (N*T, C, H, W) view is contiguous in torch.channels_last.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        div255: bool = True,
        bgr: bool = False,
        modality: str = "RGB",
        channels: int | None = None,
        channels_last: bool = False,
    ) -> None:
        self.channels = channels or clip_channels(modality, default_new_length(modality))
        self.bgr = bgr and modality != "Flow"
        self.channels_last = channels_last
        if modality == "RGBDiff":
            mean, std = (0.0,), (1.0,)
        for name, values in (("mean", mean), ("std", std)):
            if len(values) == 0 or self.channels % len(values):
                raise InputError(f"{name} has {counted(len(values), 'value')} for {self.channels} channels")
        means, stds = (np.resize(np.asarray(values, np.float64), self.channels) for values in (mean, std))
        self._scale = torch.from_numpy(1.0 / ((255.0 if div255 else 1.0) * stds)).float()  # (C,)
        self._bias = torch.from_numpy(-means / stds).float()
        self._placed: dict[tuple[torch.device, int | None], list[Tensor]] = {}

    def __call__(self, clip: Tensor) -> Tensor:
        num_clips, height, width = clip.shape[0], clip.shape[-2], clip.shape[-1]
        if clip[0].numel() % (self.channels * height * width):
            raise InputError(f"a clip of shape {tuple(clip.shape[1:])} does not divide into {self.channels} channels")
        frames = clip.reshape(num_clips, -1, self.channels, height, width)  # (N, T, C, H, W)
        if self.bgr:
            frames = frames.unflatten(2, (-1, 3)).flip(3).flatten(2, 3)
        if not self.channels_last:
            return self._scale_and_shift(frames.contiguous()).flatten(1, 2)
        # Whole rows of W*C values: with C innermost, the CPU would go through memory 3 values at a time.
        rows = frames.permute(0, 1, 3, 4, 2).contiguous().flatten(3)  # (N, T, H, W*C)
        return self._scale_and_shift(rows, width).unflatten(3, (width, self.channels)).permute(0, 1, 4, 2, 3)

    def _scale_and_shift(self, x: Tensor, width: int | None = None) -> Tensor:
        """x * scale + bias by channel, of (N, T, C, H, W) or, given a width W, of rows (N, T, H, W*C)."""
        if (x.device, width) not in self._placed:
            by_channel = (self._scale, self._bias)
            laid_out = (c.view(-1, 1, 1) if width is None else c.repeat(width) for c in by_channel)
            self._placed[x.device, width] = [c.to(x.device) for c in laid_out]
        scale, bias = self._placed[x.device, width]
        if x.is_cpu:  # given two types, the CPU makes a float copy first; a GPU converts inside its one kernel
            x = x.to(torch.float32, copy=True)
            return torch.addcmul(bias, x, scale, out=x)
        return torch.addcmul(bias, x, scale)
