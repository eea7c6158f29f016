"""What a group transform is made of (crop, resize, flip, stack), for both kinds of frames. See ops/transforms.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ops.common.errors import InputError

# Of Flow: tensors of two channels, or gray images, x and y in turn.
Frames = Sequence[Tensor] | Tensor | Sequence[Image.Image]


def is_pillow(frames: Frames) -> bool:
    """Whether the frames are Pillow's, not tensors."""
    if len(frames) == 0:
        raise InputError("a clip without frames")
    return not isinstance(frames[0], Tensor)


def is_flow(frames: Frames) -> bool:
    """Whether the frames are optical flow: gray images, or tensors of two channels."""
    first = frames[0]
    return first.shape[0] == 2 if isinstance(first, Tensor) else first.mode == "L"


def image_size(frames: Frames) -> tuple[int, int]:
    """(width, height) of the first frame: it decides the crops of all, as published."""
    first = frames[0]
    if isinstance(first, Tensor):
        return first.shape[2], first.shape[1]
    return first.size


def crop(frames: Frames, left: int, top: int, width: int, height: int) -> Frames:
    """Cut a box out of every frame; what lies outside of the image is black. Tensors: views where they can be."""
    if is_pillow(frames):
        return [image.crop((left, top, left + width, top + height)) for image in frames]
    if isinstance(frames, Tensor):
        return _crop_tensor(frames, left, top, width, height)
    return [_crop_tensor(frame, left, top, width, height) for frame in frames]


def _crop_tensor(x: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    full_height, full_width = x.shape[-2:]
    right, bottom = left + width, top + height
    inside = x[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]  # (..., C, <= height, <= width)
    if inside.shape[-2:] == (height, width):
        return inside
    padding = (
        min(max(-left, 0), width),
        min(max(right - full_width, 0), width),
        min(max(-top, 0), height),
        min(max(bottom - full_height, 0), height),
    )
    return functional.pad(inside, padding)


def resize(frames: Frames, width: int, height: int) -> Frames:
    """Resize every frame, bilinear with antialias. Tensors of one shape: as one stacked (T, C, height, width)."""
    return resize_each(frames, lambda *_: (width, height))


def resize_each(
    frames: Frames,
    target: Callable[[int, int], tuple[int, int]],
    interpolation: Image.Resampling = Image.Resampling.BILINEAR,
) -> Frames:
    """Resize every frame to the (width, height) that `target` gives for its own; tensors bilinearly only."""
    if is_pillow(frames):
        sizes = [target(*image.size) for image in frames]
        return [
            image if size == image.size else image.resize(size, interpolation)
            for image, size in zip(frames, sizes, strict=True)
        ]
    if interpolation != Image.Resampling.BILINEAR:
        raise InputError(f"{interpolation.name} resizing takes Pillow images: tensors are resized bilinearly only")
    if not isinstance(frames, Tensor) and any(frame.shape != frames[0].shape for frame in frames):
        return [_resize_tensor(frame[None], *target(*image_size([frame])))[0] for frame in frames]
    return _resize_tensor(to_clip(frames), *target(*image_size(frames)))


def _resize_tensor(x: Tensor, width: int, height: int) -> Tensor:
    if x.shape[-2:] == (height, width):
        return x
    # A uint8 batch in channels-last memory takes PyTorch's vectorised path, a port of Pillow-SIMD's.
    x = x.contiguous(memory_format=torch.channels_last)
    if _often_ties(x.shape[3], width) and _often_ties(x.shape[2], height):
        x = functional.interpolate(x, size=(x.shape[2], width), mode="bilinear", antialias=True)
        return _resize_rows_as_pillow(x, height)
    return functional.interpolate(x, size=(height, width), mode="bilinear", antialias=True)


def _often_ties(side: int, new_side: int) -> bool:
    """Whether enlarging from side to new_side often lands half-way between two levels, as 192 -> 224 (6 : 7) does.

    The weights are then multiples of 1 / 2q with a small q that is no power of two. PyTorch rounds them to 15 bits,
    Pillow to 22, so that they take different sides: with ties along both axes, results two levels apart come up once
    in 10^5 values (elsewhere once in 10^6 at most, which is left).
    """
    q = new_side // math.gcd(side, new_side)
    return side < new_side and q <= 32 and q & (q - 1) != 0


def _resize_rows_as_pillow(x: Tensor, height: int) -> Tensor:
    """Resize (T, C, h, w) to (T, C, height, w) with Pillow's own arithmetic, all frames side by side in one image."""
    num_frames, channels, old_height, width = x.shape
    rows = x.permute(2, 0, 3, 1).flatten(1)  # (h, T*w*C)
    mode, bands = ("L", 1) if rows.shape[1] % 4 else ("RGBX", 4)  # four values at once take less time than one by one
    size = rows.shape[1] // bands, old_height
    image = Image.frombuffer(mode, size, rows.numpy(), "raw", mode, 0, 1)
    image = image.resize((size[0], height), Image.Resampling.BILINEAR)
    resized = torch.from_numpy(np.array(image)).view(height, num_frames, width, channels)
    return resized.permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)


def flip(frames: Frames, *, invert_x: bool = False) -> Frames:
    """Mirror every frame left to right; with invert_x, the x channel of a flow becomes 255 - v as well."""
    if is_pillow(frames):
        mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in frames]
        if invert_x:
            mirrored[::2] = [ImageOps.invert(x) for x in mirrored[::2]]
        return mirrored
    mirrored = to_clip(frames).flip(-1)
    if invert_x:
        mirrored[:, 0] = 255 - mirrored[:, 0]
    return mirrored


def concatenate(groups: Sequence[Frames]) -> Frames:
    """Frames of several groups, one group after the other."""
    if is_pillow(groups[0]):
        return [frame for group in groups for frame in group]
    return torch.cat([to_clip(group).permute(0, 2, 3, 1) for group in groups]).permute(0, 3, 1, 2)


def to_clip(frames: Frames) -> Tensor:
    """Stack to uint8 (T, C, H, W) in channels-last memory; a stacked tensor is returned as it is."""
    if isinstance(frames, Tensor):
        return frames
    if is_pillow(frames):
        pixels = [np.asarray(image) for image in frames]
        if is_flow(frames):
            if len(frames) % 2:
                raise InputError(f"gray images are the x and y of flow in turn, but there are {len(frames)} of them")
            pixels = [np.stack(pair, axis=2) for pair in zip(pixels[::2], pixels[1::2], strict=True)]
    else:
        pixels = [frame.permute(1, 2, 0) for frame in frames]
    shapes = {tuple(x.shape) for x in pixels}  # (H, W, C)
    if len(shapes) > 1:
        raise InputError(f"frames of one clip differ in size: {sorted(shapes)}")
    clip = torch.stack(pixels) if isinstance(pixels[0], Tensor) else torch.from_numpy(np.stack(pixels))
    return clip.permute(0, 3, 1, 2)
