"""What a segment of each modality holds: frames to read, channels of the clip, channels that the network sees.

`new_length` (L) is the length of a segment's stack: frames of RGB, (x, y) pairs of Flow, differences of RGBDiff.
"""

from __future__ import annotations

from ops.common.errors import InputError

FRAME_CHANNELS = {"RGB": 3, "Flow": 2, "RGBDiff": 3}
MODALITIES = tuple(FRAME_CHANNELS)


def check_modality(modality: str) -> str:
    """Return `modality`, or raise InputError naming the choices."""
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}: choose one of {', '.join(MODALITIES)}")
    return modality


def default_new_length(modality: str) -> int:
    """L where none is given: 1 for RGB, 5 for Flow and RGBDiff."""
    return 1 if modality == "RGB" else 5


def frames_per_segment(modality: str, new_length: int) -> int:
    """Frames to read for each segment: L, and for RGBDiff one more, as L differences need L + 1 frames."""
    return new_length + (modality == "RGBDiff")


def clip_channels(modality: str, new_length: int) -> int:
    """Channels of a segment in the clip tensor: RGB 3 * L, Flow 2 * L, RGBDiff 3 * (L + 1)."""
    return FRAME_CHANNELS[modality] * frames_per_segment(modality, new_length)


def input_channels(modality: str, new_length: int) -> int:
    """Channels that the network's first convolution sees: RGB 3 * L, Flow 2 * L, RGBDiff 3 * L differences."""
    return FRAME_CHANNELS[modality] * new_length
