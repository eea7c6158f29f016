"""From the loader's uint8 clips to the network's float input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ops.common.errors import InputError, counted


class ClipNormalize:
    """Uint8 clips of any device -> float32 network input, ((x / 255) - mean) / std per channel, in one fused step.

    mean, std: one value a channel, or one for all (Flow). div255: they are for values in [0, 1], else [0, 255].
    bgr: the network wants the channels of each RGB frame reversed. modality RGBDiff: no mean and std (differences are
    taken inside the network). channels: of one frame as the network sees it (default 3; Flow 10, which is 5 (x, y)).

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
        self.channels = channels or (10 if modality == "Flow" else 3)
        self.bgr = bgr and modality != "Flow"
        self.channels_last = channels_last
        if modality == "RGBDiff":
            mean, std = (0.0,), (1.0,)
        for name, values in (("mean", mean), ("std", std)):
            if len(values) == 0 or self.channels % len(values):
                raise InputError(f"{name} has {counted(len(values), 'value')} for {self.channels} channels")
        level = 255.0 if div255 else 1.0
        repeat = (self.channels // len(mean), self.channels // len(std))
        means, stds = np.tile(np.asarray(mean, np.float64), repeat[0]), np.tile(np.asarray(std, np.float64), repeat[1])
        self._scale = torch.from_numpy(1.0 / (level * stds)).float()  # (C,)
        self._bias = torch.from_numpy(-means / stds).float()
        self._placed: dict[tuple[torch.device, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    def __call__(self, clip: Tensor) -> Tensor:
        num_clips, height, width = clip.shape[0], clip.shape[-2], clip.shape[-1]
        if clip[0].numel() % (self.channels * height * width):
            raise InputError(f"a clip of shape {tuple(clip.shape[1:])} does not divide into {self.channels} channels")
        frames = clip.reshape(num_clips, -1, self.channels, height, width)  # (N, T, C, H, W)
        if self.bgr:
            frames = frames.unflatten(2, (-1, 3)).flip(3).flatten(2, 3)
        if not self.channels_last:
            return self._scale_and_shift(frames.contiguous(), (1, 1)).flatten(1, 2)
        # Whole rows of W*C values: with C innermost, the CPU would go through memory 3 values at a time.
        rows = frames.permute(0, 1, 3, 4, 2).contiguous().flatten(3)  # (N, T, H, W*C)
        return self._scale_and_shift(rows, (width,)).unflatten(3, (width, self.channels)).permute(0, 1, 4, 2, 3)

    def _scale_and_shift(self, x: Tensor, layout: tuple[int, ...]) -> Tensor:
        """x * scale + bias: by channel of (N, T, C, H, W), layout (1, 1), or of (N, T, H, W*C), layout (W,)."""
        scale, bias = self._coefficients(x.device, layout)
        if x.is_cpu:  # given two types, the CPU makes a float copy first; a GPU converts inside its one kernel
            x = x.to(torch.float32, copy=True)
            return torch.addcmul(bias, x, scale, out=x)
        return torch.addcmul(bias, x, scale)

    def _coefficients(self, device: torch.device, layout: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Scale and bias on the device: (C, 1, 1), or W times over (W*C,)."""
        if (device, layout) not in self._placed:
            by_layout = (x.view(-1, 1, 1) if layout == (1, 1) else x.repeat(layout) for x in (self._scale, self._bias))
            scale, bias = (x.to(device) for x in by_layout)
            self._placed[device, layout] = (scale, bias)
        return self._placed[device, layout]
