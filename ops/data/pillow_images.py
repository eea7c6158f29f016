"""One image file -> one Pillow image, strictly: a damaged or enormous file is an error that names it. Without torch."""

from __future__ import annotations

import io
import os
import warnings

from PIL import Image

from ops.common.errors import InputError

MAX_PIXELS = 100_000_000

# Pillow picks its reader by content: without this list a file named .jpg could be an EPS, which runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


def check_size(path: str, width: int, height: int) -> None:
    """Refuse a picture of more than MAX_PIXELS pixels: a damaged header may claim a size that no memory holds."""
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels is more than the limit of {MAX_PIXELS:,}")


def read_image(path: str, mode: str = "RGB") -> Image.Image:
    """Decode an image file to a Pillow image of mode RGB or L."""
    return decode_pillow(path, read_bytes(path), mode)


def read_bytes(path: str) -> bytearray:
    """The whole file; InputError where there is none, or nothing in it."""
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


def decode_pillow(path: str, data: bytearray, mode: str) -> Image.Image:
    """Decode an image file's bytes; `path` is for the errors."""
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
