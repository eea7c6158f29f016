"""What the demo knows about a network, and how it prepares frames for it: NumPy and Pillow, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

# The published demo took every second picture of a camera that gives 30 a second.
FRAME_RATE = 15.0
THRESHOLD = 0.5


@dataclass(frozen=True)
class NetworkInfo:
    """A streaming network as its file describes it.

    input_size, scale_size: side of the network's input, and the short side that frames are scaled to before the crop.
    normalization: arguments of ops.transforms.ClipNormalize. buffer_shapes: (1, C, H, W) of each buffer. frame_rate:
    frames a second that the network was trained on. threshold: probability below which its answers are not relied on.
    """

    class_names: tuple[str, ...]
    input_size: int
    scale_size: int
    normalization: Mapping[str, Any]
    buffer_shapes: tuple[tuple[int, ...], ...]
    frame_rate: float = FRAME_RATE
    threshold: float = THRESHOLD

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """(1, 3, H, W) of the network's input."""
        return (1, 3, self.input_size, self.input_size)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """RGB picture uint8 (H, W, 3) -> float32 (1, 3, input_size, input_size), as evaluation treats its frames.

        Short side to scale_size, bilinear with antialias; centre crop; normalised per channel.
        """
        height, width = image.shape[:2]
        scale = self.scale_size / min(width, height)
        sides = tuple(self.scale_size if side == min(width, height) else int(scale * side) for side in (width, height))
        resized = Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR)
        left, top = (round((side - self.input_size) / 2) for side in sides)
        crop = np.asarray(resized.crop((left, top, left + self.input_size, top + self.input_size)), np.float32)
        if self.normalization.get("bgr"):
            crop = crop[:, :, ::-1]
        mean, std = (np.float32(self.normalization[name]) for name in ("mean", "std"))
        scaled = crop / np.float32(255) if self.normalization.get("div255", True) else crop
        return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1)[None])
