"""OpenCV, an optional package: imported where it is needed, with one answer for where it is missing."""

from __future__ import annotations

import os
from typing import Any

from ops.common.errors import InputError


def import_cv2(purpose: str, requirements: str) -> Any:
    """The cv2 module, its own warnings on stderr switched off.

    Args:
        purpose: what needs it, for the error: "optical flow needs".
        requirements: the file that names it.

    Raises:
        InputError: not installed, or a system library that it wants is missing, as on servers without a screen.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise InputError(f"{purpose} OpenCV ({error}): pip install -r {requirements}") from None
    except ImportError as error:
        raise InputError(
            f"{purpose} OpenCV, which cannot be loaded here ({error}): apt-get install libgl1 libglib2.0-0 libsm6, or "
            "the OpenCV without windows: pip uninstall opencv-python, pip install opencv-python-headless"
        ) from None
    return cv2
