"""One image file -> one decoded frame, strictly: a damaged or enormous file is an error that names it."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings

import numpy as np
import torch
import torchvision.io  # noqa: F401  (registers torch.ops.image.decode_jpeg)
from PIL import Image
from torch import Tensor

from ops.common.errors import InputError

BACKENDS = ("torchvision", "pillow")
MAX_PIXELS = 100_000_000

# Pillow picks its reader by content: without this list a file named .jpg could be an EPS, which runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

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


def check_size(path: str, width: int, height: int) -> None:
    """Refuse a picture of more than MAX_PIXELS pixels: a damaged header may claim a size that no memory holds."""
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels is more than the limit of {MAX_PIXELS:,}")


def read_tensor(path: str, mode: str = "RGB") -> Tensor:
    """Decode an image file to uint8 (3, H, W), stored channels-last, or (1, H, W) for mode L, as Pillow's `convert`."""
    data = _read_bytes(path)
    shape = jpeg_shape(data)
    # libjpeg's gray of a colour JPEG is its Y, not Pillow's weighting of RGB; CMYK differs as well; PNG and the like
    # come with palettes and alpha. Pillow is the reference for all of these.
    if shape is None or shape[2] not in ((1,) if mode == "L" else (1, 3)) or not _HAS_JPEG_DECODER:
        array = np.array(_decode_pillow(path, data, mode))
        return torch.from_numpy(array[:, :, None] if mode == "L" else array).permute(2, 0, 1)
    check_size(path, shape[0], shape[1])
    try:
        # torchvision.io.decode_jpeg is this call and a deprecation warning a frame.
        return torch.ops.image.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), _READ_MODES[mode], False)
    except RuntimeError as error:
        # "[...] decode_jpeg, <path on the builder's machine>.cpp:171, Image is incomplete or truncated"
        reason = re.split(r": |\.cpp:\d+, ", str(error).splitlines()[0])[-1]
        raise InputError(f"{path}: damaged JPEG ({reason})") from None


def read_image(path: str, mode: str = "RGB") -> Image.Image:
    """Decode an image file to a Pillow image of mode RGB or L."""
    return _decode_pillow(path, _read_bytes(path), mode)


def _read_bytes(path: str) -> bytearray:
    try:
        # Plain system calls: a clip has many small files, and file objects double the time of reading them.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            data = bytearray(os.read(descriptor, os.fstat(descriptor).st_size))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{path}: cannot read the frame ({error.strerror})") from None
    if not data:
        raise InputError(f"{path}: cannot read the frame (the file is empty)")
    return data


def _decode_pillow(path: str, data: bytearray, mode: str) -> Image.Image:
    # Pillow's readers raise nearly anything on damaged files (OSError, SyntaxError, struct.error, IndexError, ...), and
    # warn of odd metadata and of sizes, which are checked here.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            check_size(path, *image.size)
            if image.format == "PNG":  # decoding alone does not look at the checksums
                Image.open(io.BytesIO(data), formats=_FORMATS).verify()
            return image.convert(mode)
    except InputError:
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not an image (known: {', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more pixels than the limit of {MAX_PIXELS:,}") from None
    except Exception as error:
        raise InputError(f"{path}: damaged image ({error or type(error).__name__})") from None
