"""Pictures as JPEG: to browsers, and from their cameras."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ops.common.errors import InputError

MAX_PIXELS = 1920 * 1080
_QUALITY = 85


def encode_jpeg(picture: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG -> RGB uint8 (H, W, 3).

    Raises:
        InputError: not a JPEG, damaged, or larger than MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{image.width}x{image.height} pixels are more than the limit of {MAX_PIXELS}")
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise InputError(f"not a JPEG picture, or a damaged one ({error})") from None
