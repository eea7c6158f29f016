"""Conversion to RGB: turned and mirrored as FFmpeg shows it, its colours where tags are reserved, graphs kept."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ops.common.errors import InputError
from ops.data import rgb
from ops.data.rgb import RgbConverter, decoded_frames
from ops.data.sources import VideoFile
from tests.data.test_sources import as_array, decode_plainly, edit_box, write_video

ONE = 1 << 16


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """The matrix by which the picture is shown, [a b; c d] in 16.16 fixed point, in the track header."""
    for offset, value in ((40, a), (44, b), (52, c), (56, d)):
        edit_box(path, b"tkhd", offset, ">i", value)


# What FFmpeg 5.1's own command shows for each.
MATRICES = {
    "none": ((0, 0, 0, 0), lambda coded: coded),
    "no column": ((ONE, 0, 0, 0), lambda coded: coded),
    "scaled": ((2 * ONE, 0, 0, 2 * ONE), lambda coded: coded),
    "left to right": ((-ONE, 0, 0, ONE), lambda coded: coded[:, ::-1]),
    "top to bottom": ((ONE, 0, 0, -ONE), lambda coded: coded[::-1]),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda coded: coded[::-1, ::-1]),
    "a quarter turn": ((0, ONE, -ONE, 0), lambda coded: np.rot90(coded, -1)),
    "nearly a quarter turn": ((457, 65534, -65534, 457), lambda coded: np.rot90(coded, -1)),
    "three quarter turns": ((0, -ONE, ONE, 0), lambda coded: np.rot90(coded)),
    "transposed": ((0, ONE, ONE, 0), lambda coded: coded.transpose(1, 0, 2)),
    "transposed the other way": ((0, -ONE, -ONE, 0), lambda coded: coded[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("kind", sorted(MATRICES))
def test_display_matrix(tmp_path: Path, kind: str) -> None:
    matrix, shown = MATRICES[kind]
    path = write_video(tmp_path / "v.mp4", 3)
    coded = decode_plainly(path)
    set_matrix(path, *matrix)
    assert np.array_equal(as_array(VideoFile(path).read([1])[0]), shown(coded[1]))
    height = shown(coded[0]).shape[0] // 2
    assert next(decoded_frames(path, height=height)).shape == (height, shown(coded[0]).shape[1] // 2, 3)


def test_odd_angles_turn_inside_the_same_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 1)
    cos, sin = (round(ONE * value) for value in (math.cos(0.7), math.sin(0.7)))
    set_matrix(path, cos, sin, -sin, cos)
    (frame,) = decoded_frames(path)
    assert frame.shape == (48, 64, 3)
    assert not frame[0, 0].any() and not frame[-1, -1].any()  # corners are black


def grey_frame(value: int = 120) -> av.VideoFrame:
    frame = av.VideoFrame(32, 16, "yuv420p")
    for plane, level in zip(frame.planes, (value, 90, 200), strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    return frame


@pytest.mark.parametrize("matrix, shown_as", [(3, 2), (8, 2), (10, 9), (11, 2), (14, 2), (17, 2)])
def test_reserved_and_rare_matrices_are_shown_as_ffmpeg_does(matrix: int, shown_as: int) -> None:
    frame, expected = grey_frame(), grey_frame()
    frame.colorspace, expected.colorspace = matrix, shown_as
    assert np.array_equal(RgbConverter()(frame), RgbConverter()(expected))


@pytest.mark.parametrize("tag", ["color_trc", "color_primaries"])
@pytest.mark.parametrize("value", [0, 3, 9, 16, 250])
def test_transfer_and_primaries_change_nothing(tag: str, value: int) -> None:
    frame = grey_frame()
    setattr(frame, tag, value)
    assert np.array_equal(RgbConverter()(frame), RgbConverter()(grey_frame()))


def test_a_failing_conversion_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 3)

    def fail(*_: object) -> None:
        raise av.error.OSError(95, "Operation not supported")

    monkeypatch.setattr(rgb, "_graph", fail)
    fail.cache_clear = lambda: None
    for read in (lambda: VideoFile(path).read([1]), lambda: list(VideoFile(path).frames())):
        with pytest.raises(InputError, match=r"v\.mp4: cannot decode the video"):
            read()
    with pytest.raises(InputError, match=r"v\.mp4: cannot decode the video"):
        list(decoded_frames(path))


def test_the_next_video_of_a_kind_uses_the_same_graph(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{number}.mp4", 4) for number in range(3)]
    rgb._graph.cache_clear()
    first = [VideoFile(path).read([0, 3]) for path in paths]
    assert rgb._graph.cache_info().misses == 1
    rgb._graph.cache_clear()
    for frames, path in zip(first, paths, strict=True):
        assert all(map(torch.equal, frames, VideoFile(path).read([0, 3])))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("size", [(2, 2), (33, 17), (64, 49), (98, 62), (342, 256)])
def test_the_faster_way_gives_the_values_of_the_straight_one(
    monkeypatch: pytest.MonkeyPatch, pix_fmt: str, size: tuple[int, int]
) -> None:
    texture = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(texture, format="rgb24").reformat(format=pix_fmt)
    for frame.colorspace, frame.color_range in ((2, 0), (1, 1), (9, 2)):
        found = RgbConverter()(frame)
        with monkeypatch.context() as patch:
            patch.setattr(rgb, "_USUAL_FORMATS", set())
            rgb._graph.cache_clear()
            assert np.array_equal(found, RgbConverter()(frame))
        rgb._graph.cache_clear()


def test_frames_leave_memory_as_they_are_read(tmp_path):
    path = write_video(tmp_path / "v.mp4", 20)
    gc.collect()
    gc.disable()
    try:
        assert len(list(decoded_frames(path))) == 20
        kept = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= 2  # the first, whose orientation was read, and the last
