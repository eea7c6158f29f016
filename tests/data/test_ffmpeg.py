"""Video files as people have them: cut without encoding, of variable rate, recorded, with covers and odd titles."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from ops.common.errors import InputError
from ops.data.rgb import decoded_frames
from ops.data.sources import VideoFile
from tests.data.test_sources import as_array, decode_plainly, edit_box, write_video
from tests.helpers import make_frames

GAPS = [0, 1, 2, 5, 6, 7, 20, 21, 22, 40, 41, 60]  # times of the frames of a clip of variable rate, in 1/25 s


def write(
    path: Path, times: Sequence[int], *, codec: str = "mpeg4", sound_s: float = 0, cover: bool = False, **options: str
) -> Path:
    """Frames shown at these times, in 1/25 s; before them a cover picture, after them sound."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = "CafeXXXX"
        streams = []
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            streams.append((picture, [av.VideoFrame.from_ndarray(make_frames(1, (32, 32))[0], format="rgb24")]))
        if times:
            video = container.add_stream(codec, rate=25, options=options)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            frames = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in make_frames(len(times), (64, 48))]
            for frame, time in zip(frames, times, strict=True):
                frame.pts, frame.time_base = time, Fraction(1, 25)
            streams.append((video, frames))
        if sound_s:
            sound = container.add_stream("aac", rate=8000)
            silence = [np.zeros((1, 1024), np.float32) for _ in range(round(sound_s * 8000 / 1024))]
            frames = [av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono") for samples in silence]
            for frame in frames:
                frame.sample_rate = 8000
            streams.append((sound, frames))
        for stream, frames in streams:
            for frame in (*frames, None):
                container.mux(stream.encode(frame))
    return path


def assert_readers_agree(path: Path, num_frames: int) -> list[np.ndarray]:
    """Counting, extraction and reading by index see the same frames; returns them."""
    frames = list(decoded_frames(path))
    assert len(frames) == VideoFile(path).count_frames() == num_frames
    indices = sorted({0, num_frames // 3, num_frames - 1})
    for index, frame in zip(indices, VideoFile(path).read(indices), strict=True):
        assert np.array_equal(as_array(frame), frames[index])
    return frames


# --- the header's numbers are claims ----------------------------------------------------------------------------------


def test_a_cut_that_hides_most_of_the_file_is_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", g="50", bf="2")  # as `ffmpeg -ss 1.2 -c copy` writes it
    whole = decode_plainly(path)
    data = path.read_bytes()
    media_time = struct.unpack_from(">i", data, data.index(b"elst") + 4 + 12)[0]
    edit_box(path, b"elst", 12, ">i", media_time + 30 * 512)  # 12800 ticks a second, 25 frames
    assert np.array_equal(assert_readers_agree(path, 20), whole[30:])


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_of_variable_rate_is_whole(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "v.avi", GAPS, codec=codec)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 40  # empty packets repeat frames
    assert_readers_agree(path, len(GAPS))


@pytest.mark.parametrize("name", ["v.mkv", "v.asf", "v.mp4"])
def test_sound_that_goes_on_after_the_video_does_not_make_it_cut_short(tmp_path: Path, name: str) -> None:
    assert_readers_agree(write(tmp_path / name, range(20), sound_s=3), 20)


@pytest.mark.parametrize("name, sound_s", [("v.mkv", 0), ("v.mkv", 0.3), ("v.avi", 0), ("v.mp4", 0)])
def test_a_file_cut_short_is_refused_by_every_reader(tmp_path: Path, name: str, sound_s: float) -> None:
    path = write(tmp_path / name, range(50), sound_s=sound_s, g="1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    readers = [VideoFile(path).count_frames, VideoFile(path).frame_times, lambda: VideoFile(path).read([0, 5])]
    for read in (*readers, lambda: list(decoded_frames(path)), lambda: list(VideoFile(path).frames())):
        with pytest.raises(InputError, match=rf"{name}: (cut short: |cannot decode)"):
            read()


@pytest.mark.parametrize("name", ["v.avi", "v.mp4", "v.mkv"])
def test_a_title_that_is_not_utf8_does_not_matter(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, range(5))
    assert b"CafeXXXX" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"CafeXXXX", b"Caf\xe9 199"))
    assert_readers_agree(path, 5)


@pytest.mark.parametrize("name", ["m.mkv", "m.ts"])
def test_a_container_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, 20, g="10", bf="2").rename(tmp_path / "v.mp4")
    assert np.array_equal(assert_readers_agree(path, 20), decode_plainly(path))


# --- covers, recordings, changing sizes -------------------------------------------------------------------------------


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    song = write(tmp_path / "song.mp4", [], cover=True, sound_s=0.5)
    for read in (VideoFile(song).count_frames, lambda: VideoFile(song).read([0]), lambda: list(decoded_frames(song))):
        with pytest.raises(InputError, match=r"song\.mp4: holds no video"):
            read()
    film = write(tmp_path / "film.mp4", range(6), cover=True)
    assert {frame.shape for frame in assert_readers_agree(film, 6)} == {(48, 64, 3)}


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("v.ts", "libx264", {"bf": "3"}),
        ("v.ts", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("v.ts", "mpeg2video", {"bf": "2"}),
        ("v.mpg", "mpeg2video", {"bf": "2"}),
    ],
)
def test_a_recording_is_read_from_its_first_whole_frame(tmp_path: Path, name: str, codec: str, options: dict) -> None:
    path = write_video(tmp_path / name, codec=codec, g="12", **options)
    whole, data = decode_plainly(path), path.read_bytes()
    pack = 188 if name == "v.ts" else 2048
    path.write_bytes(data[-(-len(data) // 10 // pack) * pack :])
    num_left = VideoFile(path).count_frames()
    assert 24 < num_left < 50
    assert np.array_equal(assert_readers_agree(path, num_left), whole[-num_left:])


def test_a_recording_may_begin_its_time_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", codec="mpeg2video", g="12", bf="2")
    data = path.read_bytes()
    path.write_bytes(data[-(-len(data) // 10 // 188) * 188 :])
    num_frames = VideoFile(path).count_frames()
    path.write_bytes(path.read_bytes() + data)
    assert_readers_agree(path, num_frames + 50)
    assert VideoFile(path).frame_times() == pytest.approx([number / 25 for number in range(num_frames + 51)])


@pytest.mark.parametrize("name", ["v.h264", "v.m4v", "v.m2v", "v.y4m", "v.gif", "v.ivf", "v.flv", "v.nut", "v.mxf"])
def test_formats_whose_header_says_little(tmp_path: Path, name: str) -> None:
    codecs = {"v.h264": "libx264", "v.m2v": "mpeg2video", "v.y4m": "rawvideo", "v.gif": "gif", "v.ivf": "libvpx-vp9"}
    codec = codecs.get(name, {"v.flv": "flv", "v.mxf": "mpeg2video"}.get(name, "mpeg4"))
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8" if codec == "gif" else "yuv420p"
        for picture in make_frames(20, (64, 48)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert_readers_agree(path, 20)
    assert VideoFile(path).frame_times()[-1] == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_all_frames_get_the_first_ones_size(tmp_path: Path, codec: str) -> None:
    data = b""
    for size in ((64, 48), (128, 80)):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[: size[1] // 2, : size[0] // 2] = 255  # a white quarter
        with av.open(str(tmp_path / "part.ts"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        data += (tmp_path / "part.ts").read_bytes()
    path = tmp_path / "v.ts"
    path.write_bytes(data)
    frames = assert_readers_agree(path, 20)
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    for frame in (frames[0], frames[-1]):
        assert (frame[:20, :28] > 200).all() and (frame[28:] < 50).all() and (frame[:, 36:] < 50).all()
    assert {frame.shape for frame in decoded_frames(path, height=24)} == {(24, 32, 3)}


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("v.mp4", "mpeg4", {}),
        ("v.mp4", "libx264", {"bf": "2"}),
        ("v.mkv", "libx264", {"bf": "2"}),
        ("v.avi", "mpeg4", {}),
        ("v.avi", "libx264", {"bf": "0"}),
    ],
)
def test_frames_have_their_own_times(tmp_path: Path, name: str, codec: str, options: dict) -> None:
    path = write(tmp_path / name, GAPS, codec=codec, **options)
    assert VideoFile(path).frame_times()[:-1] == pytest.approx([time / 25 for time in GAPS], abs=1e-3)


def test_times_end_with_the_last_frames_end(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.avi", "v.mkv", "v.ts"):
        times = VideoFile(write(tmp_path / name, range(10))).frame_times()
        assert times == pytest.approx([number / 25 for number in range(11)], abs=1e-3)
