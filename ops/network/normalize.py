"""From frames to the network's float input: fused on the device, or as published, image by image on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ops.common.errors import InputError, counted
from ops.common.modality import clip_channels, default_new_length
from ops.data.frame_ops import Frames, to_clip


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


class Stack:
    """Frames -> uint8 array (H, W, T*C); `roll` turns RGB into BGR, as BNInception wants it."""

    def __init__(self, roll: bool = False) -> None:
        self.roll = roll

    def __call__(self, frames: Frames, rng: np.random.RandomState | None = None) -> np.ndarray:
        clip = to_clip(frames)  # (T, C, H, W)
        if self.roll and clip.shape[1] == 3:
            clip = clip.flip(1)
        return clip.permute(2, 3, 0, 1).flatten(2).numpy()


class ToTorchFormatTensor:
    """Array (H, W, C) or Pillow image -> float32 tensor (C, H, W), on [0, 1] where `div`, else on 0-255."""

    def __init__(self, div: bool = True) -> None:
        self.div = div

    def __call__(self, pic: np.ndarray | Image.Image, rng: np.random.RandomState | None = None) -> Tensor:
        pixels = np.array(pic) if isinstance(pic, Image.Image) else pic
        tensor = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous().float()
        return tensor.div(255) if self.div else tensor


class GroupNormalize:
    """(x - mean) / std in place, on a float tensor (T*C, H, W); mean and std repeat over its channels."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, tensor: Tensor, rng: np.random.RandomState | None = None) -> Tensor:
        return tensor.sub_(self._repeated(self.mean, tensor)).div_(self._repeated(self.std, tensor))

    @staticmethod
    def _repeated(values: Sequence[float], tensor: Tensor) -> Tensor:
        times, rest = divmod(len(tensor), len(values))
        if rest:
            raise InputError(f"{counted(len(values), 'mean or std value')} for a tensor of {len(tensor)} channels")
        return torch.tensor(values, dtype=tensor.dtype).repeat(times).view(-1, 1, 1)


class IdentityTransform:
    """Return what is given: RGBDiff is not normalised."""

    def __call__(self, data: Tensor, rng: np.random.RandomState | None = None) -> Tensor:
        return data
