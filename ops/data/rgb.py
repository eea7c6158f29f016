"""Decoded video frames -> RGB arrays, upright and in the colours that FFmpeg shows."""

from __future__ import annotations

import functools
import math
import os
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from ops.common.errors import InputError
from ops.data.ffmpeg import naming, open_video

_UNSPECIFIED = 2
_BT2020 = 9
# AVColorSpace: RGB, BT.709, unspecified, FCC, BT.601 (625 and 525 lines), SMPTE 240M, BT.2020. FFmpeg shows BT.2020 of
# constant luminance by the coefficients of the other, and all else (reserved, YCgCo...) as if it was unspecified.
_MATRICES = {0, 1, _UNSPECIFIED, 4, 5, 6, 7, _BT2020}
_FALLBACKS = {10: _BT2020}
_USUAL_FORMATS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}

Filters = tuple[tuple[str, str | None], ...]  # (name, arguments)


class _Conversion(NamedTuple):
    """All that a filter graph depends on; sizes are (width, height) before the picture is turned upright."""

    coded: tuple[int, int]
    pix_fmt: str
    matrix: int
    color_range: int
    scaled: tuple[int, int]
    kernel: str
    upright: Filters


class RgbConverter:
    """Decoded frames of one video -> uint8 (H, W, 3) RGB arrays, upright, by each frame's own colour matrix and range.

    The one conversion of the project: frames extracted to files and frames read from the video have the same colours.
    All get the size of the video's first frame, as in FFmpeg's own output. height: scale them to this many rows,
    keeping that frame's aspect ratio (default: as coded).
    """

    def __init__(self, height: int | None = None) -> None:
        self.height = height
        self._size: tuple[int, int] | None = None  # (width, height) of all frames, upright
        self._upright: Filters = ()

    def fit(self, first: av.VideoFrame) -> None:
        """Give all frames the size and the orientation of this one, the video's first."""
        self._upright = _upright_filters(first)
        width, height = _turned((first.width, first.height), self._upright)
        if self.height is not None:
            width, height = max(1, round(width * self.height / height)), self.height
        self._size = width, height

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self._size is None:
            self.fit(frame)
        # No transfer or primaries are converted, but reserved ones would be refused.
        frame.color_trc = frame.color_primaries = _UNSPECIFIED
        if frame.colorspace not in _MATRICES:
            frame.colorspace = _FALLBACKS.get(frame.colorspace, _UNSPECIFIED)
        coded, scaled = (frame.width, frame.height), _turned(self._size, self._upright)
        conversion = _Conversion(
            coded,
            frame.format.name,
            frame.colorspace,
            frame.color_range,
            scaled,
            "bilinear" if self.height is None and coded == scaled else "bicubic",  # between chroma samples, or pixels
            self._upright,
        )
        graph = _graph(threading.get_ident(), conversion)
        try:
            graph.vpush(frame)
            return graph.vpull().to_ndarray()
        except av.error.FFmpegError:
            _graph.cache_clear()  # it may hold the frame
            raise


@functools.lru_cache(maxsize=16)
def _graph(thread: int, conversion: _Conversion) -> av.filter.Graph:
    """FFmpeg's filters for a conversion, kept by each thread for its next video of the kind."""
    graph = av.filter.Graph()
    graph.threads = 1  # the workers are the parallelism, and a graph with threads would not survive a fork
    (width, height), (scaled_width, scaled_height) = conversion.coded, conversion.scaled
    source = graph.add_buffer(width=width, height=height, format=conversion.pix_fmt, time_base=Fraction(1, 1))
    # Without these flags the result is 1 to 2 levels too dark and repeats chroma over pairs of columns.
    flags = f"{conversion.kernel}+accurate_rnd+full_chroma_int"
    # For these formats and even heights the same values as straight to rgb24, in half the time: every step has vector
    # instructions this way.
    is_usual = conversion.pix_fmt in _USUAL_FORMATS and conversion.kernel == "bilinear" and height % 2 == 0
    detour = [graph.add("format", "gbrp"), graph.add("scale", "threads=1")] if is_usual else []
    graph.link_nodes(
        source,
        graph.add("scale", f"w={scaled_width}:h={scaled_height}:flags={flags}:threads=1"),
        *detour,
        graph.add("format", "rgb24"),
        *(graph.add(name, arguments) for name, arguments in conversion.upright),
        graph.add("buffersink"),
    )
    graph.configure()
    return graph


def _turned(size: tuple[int, int], upright: Filters) -> tuple[int, int]:
    """(width, height) before and after these filters: a quarter turn swaps them."""
    return size[::-1] if any(name == "transpose" for name, _ in upright) else size


def _upright_filters(frame: av.VideoFrame) -> Filters:
    """The filters by which ffmpeg shows a frame upright: its display matrix as `-autorotate` reads it.

    Once a video: a frame whose side data was read stays in memory until Python's collector of cycles runs.

    The matrix has 3 x 3 numbers; [0], [1], [3] and [4] turn and mirror, as 16.16 fixed point.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return ()
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scales):
        return ()  # such as all zeros: no rotation
    degrees = round(math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0]))) % 360
    if abs(degrees - 90) < 1:
        return (("transpose", "cclock_flip" if matrix[3] > 0 else "clock"),)
    if abs(degrees - 180) < 1:
        return tuple((name, None) for name, entry in (("hflip", matrix[0]), ("vflip", matrix[4])) if entry < 0)
    if abs(degrees - 270) < 1:
        return (("transpose", "clock_flip" if matrix[3] < 0 else "cclock"),)
    if degrees:
        return (("rotate", f"{degrees}*PI/180"),)
    return (("vflip", None),) if matrix[4] < 0 else ()


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    try:
        return struct.unpack("=9i", bytes(frame.side_data["DISPLAYMATRIX"]))
    except KeyError:
        return None
    except ValueError:  # this PyAV does not know the type of some other side data: the angle alone, then
        turn = math.radians(-frame.rotation) if abs(frame.rotation) <= 180 else 0
        cos, sin = (round(value * (1 << 16)) for value in (math.cos(turn), math.sin(turn)))
        return cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30


def decoded_frames(
    video: str | os.PathLike[str], *, height: int = 0, max_frames: int = 100_000
) -> Iterator[np.ndarray]:
    """Every frame of a video as uint8 (H, W, 3) RGB, in order: the pictures that training from video files sees.

    height: scale frames to this many rows (0: as coded). Raises InputError, after the frames that can be decoded, for a
    file that is no video, damaged, cut short, or longer than `max_frames`.
    """
    convert = RgbConverter(height or None)
    path = os.fspath(video)
    with open_video(path) as opened:
        for count, frame in enumerate(opened.frames()):
            if count == max_frames:
                raise InputError(f"{path}: has more than {max_frames} frames (--max_frames)")
            with naming(path):
                picture = convert(frame)
            yield picture
