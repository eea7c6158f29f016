"""One image file -> one frame as a tensor, strictly: a damaged or enormous file is an error that names it."""

from __future__ import annotations

import re
import struct

import numpy as np
import torch
import torchvision.io  # noqa: F401  (registers torch.ops.image.decode_jpeg)
from torch import Tensor

from ops.common.errors import InputError
from ops.data.pillow_images import check_size, decode_pillow, read_bytes

BACKENDS = ("torchvision", "pillow")

_START_OF_IMAGE = b"\xff\xd8"
# Start-of-frame markers of JPEG (ITU-T T.81, table B.1): C0-CF but DHT (C4), JPG (C8) and DAC (CC).
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}
_READ_MODES = {"L": 1, "RGB": 3}  # torchvision.io.ImageReadMode
# Deprecated since torchvision 0.29; without it Pillow decodes for both backends, to the same values.
_HAS_JPEG_DECODER = hasattr(torch.ops.image, "decode_jpeg")


def check_backend(backend: str) -> str:
    """Return `backend`, or raise InputError naming the choices."""
    if backend not in BACKENDS:
        raise InputError(f"image backend {backend!r} is unknown: choose from {', '.join(BACKENDS)}")
    return backend


def jpeg_shape(data: bytes | bytearray) -> tuple[int, int, int] | None:
    """Width, height and number of components in a JPEG's header, or None where there is no such header."""
    position = 2 if data.startswith(_START_OF_IMAGE) else len(data)
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _SOF_MARKERS:
            height, width, components = struct.unpack_from(">HHB", data, position + 5)
            return width, height, components
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _STANDALONE_MARKERS:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def read_tensor(path: str, mode: str = "RGB") -> Tensor:
    """Decode an image file to uint8 (3, H, W), stored channels-last, or (1, H, W) for mode L, as Pillow's `convert`."""
    data = read_bytes(path)
    shape = jpeg_shape(data)
    # libjpeg's gray of a colour JPEG is its Y, not Pillow's weighting of RGB; CMYK differs as well; PNG and the like
    # come with palettes and alpha. Pillow is the reference for all of these.
    if shape is None or shape[2] not in ((1,) if mode == "L" else (1, 3)) or not _HAS_JPEG_DECODER:
        array = np.array(decode_pillow(path, data, mode))
        return torch.from_numpy(array[:, :, None] if mode == "L" else array).permute(2, 0, 1)
    check_size(path, shape[0], shape[1])
    try:
        # torchvision.io.decode_jpeg is this call and a deprecation warning a frame.
        return torch.ops.image.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), _READ_MODES[mode], False)
    except RuntimeError as error:
        # "[...] decode_jpeg, <path on the builder's machine>.cpp:171, Image is incomplete or truncated"
        reason = re.split(r": |\.cpp:\d+, ", str(error).splitlines()[0])[-1]
        raise InputError(f"{path}: damaged JPEG ({reason})") from None
