"""Frame sources: every folder layout, image oddities, video files read by index, and what damage does."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ops.common.errors import InputError
from ops.data import ffmpeg, images, pillow_images
from ops.data.images import jpeg_shape
from ops.data.packets import PacketTable
from ops.data.rgb import RgbConverter, decoded_frames
from ops.data.sources import FrameFolder, VideoFile, num_template_fields
from tests.helpers import make_frame_folder, make_frames, make_packed_flow

BACKENDS = ("torchvision", "pillow")


def as_array(frame) -> np.ndarray:
    """Any frame -> (H, W, C)."""
    if isinstance(frame, torch.Tensor):
        return frame.permute(1, 2, 0).numpy()
    if isinstance(frame, tuple):
        return np.stack([np.asarray(channel) for channel in frame], axis=2)
    return np.asarray(frame)


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("modality", ["RGB", "RGBDiff"])
@pytest.mark.parametrize("tmpl", ["img_{:05d}.jpg", "{:05d}.jpg", "{:06d}.jpg"])
def test_rgb_folder(tmp_path: Path, backend: str, modality: str, tmpl: str) -> None:
    make_frame_folder(tmp_path / "a b", 4, tmpl=tmpl)
    frames = FrameFolder(tmp_path / "a b", tmpl, modality, backend).read([2, 0])
    expected = [Image.open(tmp_path / "a b" / tmpl.format(number)).convert("RGB") for number in (3, 1)]
    for frame, image in zip(frames, expected, strict=True):
        assert np.array_equal(as_array(frame), np.asarray(image))
    if backend == "torchvision":
        assert frames[0].dtype == torch.uint8
        assert frames[0].permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tmpl, folder", [("flow_{}_{:05d}.jpg", "v"), ("{:06d}-{}_{:05d}.jpg", "137")])
def test_flow_in_a_file_a_channel(tmp_path: Path, backend: str, tmpl: str, folder: str) -> None:
    make_frame_folder(tmp_path / folder, 3, tmpl=tmpl)
    source = FrameFolder(tmp_path / folder, tmpl, "Flow", backend)
    name = "000137-{}_00002.jpg" if folder == "137" else "flow_{}_00002.jpg"
    assert source.paths(1) == [str(tmp_path / folder / name.format(axis)) for axis in "xy"]
    expected = [np.asarray(Image.open(path).convert("L")) for path in source.paths(1)]
    assert np.array_equal(as_array(source.read([1])[0]), np.stack(expected, axis=2))
    assert source.count_frames() == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_flow_is_red_and_green(tmp_path: Path, backend: str) -> None:
    make_frame_folder(tmp_path / "rgb", 2)
    make_packed_flow(tmp_path / "rgb", tmp_path / "flow")
    frame = FrameFolder(tmp_path / "flow", "img_{:05d}.jpg", "Flow", backend).read([1])[0]
    expected = np.asarray(Image.open(tmp_path / "flow" / "img_00002.jpg").convert("RGB"))[:, :, :2]
    assert np.array_equal(as_array(frame), expected)
    if backend == "pillow":
        assert [image.mode for image in frame] == ["L", "L"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_pictures_are_no_packed_flow(tmp_path: Path, backend: str) -> None:
    make_frame_folder(tmp_path, 1)  # a video's own frames
    Image.fromarray(np.full((30, 40), 128, np.uint8)).save(tmp_path / "img_00002.jpg")  # one axis, gray: no motion
    Image.fromarray(np.full((30, 40, 3), 255, np.uint8)).save(tmp_path / "img_00003.jpg")  # a colour wheel's: no motion
    for index in range(3):
        with pytest.raises(InputError, match=rf"img_0000{index + 1}\.jpg: not packed flow .*blue empty.*--root_path"):
            FrameFolder(tmp_path, "img_{:05d}.jpg", "Flow", backend).read([index])


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_flow_may_be_compressed_strongly(tmp_path: Path, backend: str) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (240, 320, 3), dtype=np.uint8)  # no flow is harder to compress
    noise[..., 2] = 0
    Image.fromarray(noise).save(tmp_path / "img_00001.jpg", quality=50, subsampling=2)
    assert len(FrameFolder(tmp_path, "img_{:05d}.jpg", "Flow", backend).read([0])) == 1


@pytest.mark.parametrize("tmpl, fields", [("{:05d}.jpg", 1), ("flow_{}_{:05d}.jpg", 2), ("{:06d}-{}_{:05d}.jpg", 3)])
def test_template_fields(tmpl: str, fields: int) -> None:
    assert num_template_fields(tmpl) == fields


@pytest.mark.parametrize("tmpl", ["img.jpg", "{}{}{}{}.jpg", "{:05d", "{name}.jpg", "{:q}.jpg", "{0.real.x}.jpg", ""])
def test_bad_templates(tmp_path: Path, tmpl: str) -> None:
    with pytest.raises(InputError, match="is no frame file template"):
        FrameFolder(tmp_path, tmpl)


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names x and y files: RGB takes names like img_"):
        FrameFolder(tmp_path, "flow_{}_{:05d}.jpg", "RGB")
    with pytest.raises(InputError, match="needs a folder whose name is a number"):
        FrameFolder(tmp_path / "clip", "{:06d}-{}_{:05d}.jpg", "Flow").read([0])
    with pytest.raises(InputError, match="'opencv' is unknown: choose from torchvision, pillow"):
        FrameFolder(tmp_path, backend="opencv")


@pytest.mark.parametrize("backend", BACKENDS)
def test_flow_files_of_different_size(tmp_path: Path, backend: str) -> None:
    Image.new("L", (8, 6)).save(tmp_path / "flow_x_00001.jpg")
    Image.new("L", (8, 7)).save(tmp_path / "flow_y_00001.jpg")
    with pytest.raises(InputError, match=r"flow_y_00001.jpg: .*but its x file has"):
        FrameFolder(tmp_path, "flow_{}_{:05d}.jpg", "Flow", backend).read([0])


def test_counting_stops_at_a_gap(tmp_path: Path) -> None:
    make_frame_folder(tmp_path, 7)
    (tmp_path / "img_00005.jpg").unlink()
    assert FrameFolder(tmp_path).count_frames() == 4
    with pytest.raises(InputError, match="cannot list the frames"):
        FrameFolder(tmp_path / "not there").count_frames()


# --- images -----------------------------------------------------------------------------------------------------------


def odd_images() -> dict[str, bytes]:
    """Files called .jpg that are not plain RGB JPEGs."""
    array = texture(21, 17)
    rgb = Image.fromarray(array)
    alpha = Image.fromarray(np.dstack([array, array[:, :, 0]]))
    kinds = {
        "gray JPEG": (rgb.convert("L"), "JPEG", {}),
        "CMYK JPEG": (rgb.convert("CMYK"), "JPEG", {}),
        "progressive JPEG": (rgb, "JPEG", {"progressive": True}),
        "4:4:4 JPEG": (rgb, "JPEG", {"subsampling": 0, "quality": 98}),
        "RGB JPEG": (rgb, "JPEG", {"keep_rgb": True}),
        "restart JPEG": (rgb, "JPEG", {"restart_marker_blocks": 1}),
        "EXIF-turned JPEG": (
            rgb,
            "JPEG",
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
        ),
        "PNG": (rgb, "PNG", {}),
        "palette PNG": (rgb.quantize(16), "PNG", {}),
        "alpha PNG": (alpha, "PNG", {}),
        "1-bit PNG": (rgb.convert("1"), "PNG", {}),
        "BMP": (rgb, "BMP", {}),
    }
    files = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


@pytest.mark.parametrize("kind", sorted(odd_images()))
@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_images_are_read_as_pillow_does(tmp_path: Path, backend: str, kind: str) -> None:
    path = tmp_path / "img_00001.jpg"
    path.write_bytes(odd_images()[kind])
    frame = FrameFolder(tmp_path, backend=backend).read([0])[0]
    assert np.array_equal(as_array(frame), np.asarray(Image.open(path).convert("RGB")))
    for axis in "xy":
        (tmp_path / f"flow_{axis}_00001.jpg").write_bytes(odd_images()[kind])
    flow = FrameFolder(tmp_path, "flow_{}_{:05d}.jpg", "Flow", backend).read([0])[0]
    assert np.array_equal(as_array(flow)[:, :, 1], np.asarray(Image.open(path).convert("L")))


def test_a_torchvision_that_decodes_no_jpegs_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_frame_folder(tmp_path, 2)
    frames = FrameFolder(tmp_path).read([0, 1])
    monkeypatch.setattr(images, "_HAS_JPEG_DECODER", False)
    for one, other in zip(FrameFolder(tmp_path).read([0, 1]), frames, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_cut_jpeg_is_an_error_wherever_it_is_cut(tmp_path: Path, backend: str, progressive: bool, mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(texture(70, 50)).convert(mode).save(buffer, "JPEG", quality=90, progressive=progressive)
    data = buffer.getvalue()
    path = tmp_path / "img_00001.jpg"
    folder = FrameFolder(tmp_path, backend=backend)
    path.write_bytes(data)
    folder.read([0])
    near_the_end = range(len(data) - 40, len(data))
    for length in [*range(0, 30), *range(30, len(data), 97), *near_the_end]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"img_00001.jpg: "):
            folder.read([0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_or_broken_png_is_an_error(tmp_path: Path, backend: str) -> None:
    data = odd_images()["PNG"]
    folder = FrameFolder(tmp_path, backend=backend)
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0x55  # its checksum is wrong now
    for content in (data[:20], data[: len(data) // 2], data[:-20], bytes(broken)):
        (tmp_path / "img_00001.jpg").write_bytes(content)
        with pytest.raises(InputError, match=r"img_00001\.jpg: "):
            folder.read([0])


def huge_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    assert jpeg_shape(data) == (width, height, 3)
    return bytes(data)


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [huge_jpeg, huge_png])
@pytest.mark.parametrize("width, height", [(60_000, 60_000), (10_001, 10_000), (65_000, 2_000)])
def test_enormous_images_are_refused_by_their_header(tmp_path: Path, backend: str, make, width, height) -> None:
    (tmp_path / "img_00001.jpg").write_bytes(make(width, height))
    start = time.perf_counter()
    with pytest.raises(InputError, match=rf"img_00001.jpg: .*({width} x {height}|more pixels than)"):
        FrameFolder(tmp_path, backend=backend).read([0])
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"hello\n" * 100, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch /tmp/x) (w) file\n", "not an image"),
        (b"GIF89a" + bytes(100), "not an image"),
        (b"\xff\xd8\xff\xd9", "not an image"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50, "not an image|damaged"),
    ],
)
def test_what_is_no_image(tmp_path: Path, backend: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "img_00001.jpg").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}/img_00001.jpg: .*({reason})"):
        FrameFolder(tmp_path, backend=backend).read([0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_in_a_frames_place(tmp_path: Path, backend: str) -> None:
    (tmp_path / "img_00001.jpg").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        FrameFolder(tmp_path, backend=backend).read([0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, backend: str) -> None:
    rng = np.random.RandomState(0)
    path = tmp_path / "img_00001.jpg"
    for kind in ("progressive JPEG", "gray JPEG", "palette PNG", "BMP", "CMYK JPEG", "restart JPEG"):
        data = odd_images()[kind]
        for _ in range(60):
            damaged = bytearray(data)
            for position in rng.randint(len(data), size=rng.randint(1, 6)):
                damaged[position] = rng.randint(256)
            path.write_bytes(damaged)
            try:
                frame = FrameFolder(tmp_path, backend=backend).read([0])[0]
            except InputError as error:
                assert str(error).startswith(str(path))
            else:
                assert as_array(frame).shape[2] == 3


# --- video files ------------------------------------------------------------------------------------------------------


def write_video(path: Path, num_frames: int = 50, *, codec: str = "libx264", **options: str) -> Path:
    """Frames that all differ, 64 x 48, 25 fps."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    frames = make_frames(num_frames, (64, 48), seed=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def decode_plainly(path: Path) -> list[np.ndarray]:
    """Every frame in the order in which FFmpeg gives them out."""
    with av.open(str(path)) as container:
        return [RgbConverter()(frame) for frame in container.decode(video=0)]


KINDS = {
    "H.264 with B-frames": ("v.mp4", {"codec": "libx264", "g": "12", "bf": "3"}),
    "H.264, one key frame": ("v.mp4", {"codec": "libx264", "bf": "2"}),
    "H.264, open GOP": ("v.mkv", {"codec": "libx264", "g": "10", "bf": "3", "x264-params": "open-gop=1"}),
    "H.264, intra refresh": ("v.mkv", {"codec": "libx264", "g": "10", "x264-params": "intra-refresh=1"}),
    "MPEG-4": ("v.mp4", {"codec": "mpeg4", "g": "12", "bf": "2"}),
    "MPEG-4 in AVI": ("v.avi", {"codec": "mpeg4", "g": "12"}),
    "MPEG-2 stream": ("v.ts", {"codec": "mpeg2video", "g": "12", "bf": "2"}),
    "motion JPEG": ("v.mov", {"codec": "mjpeg"}),
    "VP9": ("v.webm", {"codec": "libvpx-vp9", "g": "12", "deadline": "realtime", "auto-alt-ref": "1"}),
    "VP8": ("v.webm", {"codec": "libvpx", "g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}),
    "HEVC": ("v.mp4", {"codec": "libx265", "g": "12", "x265-params": "log-level=none"}),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_reading_by_index_is_picking_from_all_frames(tmp_path: Path, kind: str) -> None:
    name, options = KINDS[kind]
    path = write_video(tmp_path / name, **options)
    frames = decode_plainly(path)
    assert len(frames) == VideoFile(path).count_frames() == 50
    rng = np.random.RandomState(0)
    choices = [[49], [0], [24, 25], [12, 36], [40, 3, 17], list(range(50))]
    choices += [rng.choice(50, rng.randint(1, 10), replace=False).tolist() for _ in range(25)]
    for indices in choices:
        for index, frame in zip(indices, VideoFile(path).read(indices), strict=True):
            assert np.array_equal(as_array(frame), frames[index]), (indices, index)


def test_frames_are_those_of_extraction_in_both_backends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", g="12", bf="3")
    for number, frame in enumerate(decode_plainly(path), start=1):
        Image.fromarray(frame).save(tmp_path / f"img_{number:05d}.png")
    indices = [4, 11, 30, 47]
    for backend in BACKENDS:
        extracted = FrameFolder(tmp_path, "img_{:05d}.png", backend=backend).read(indices)
        read = VideoFile(path, backend=backend).read(indices)
        assert type(read[0]) is type(extracted[0])
        for one, other in zip(read, extracted, strict=True):
            assert np.array_equal(as_array(one), as_array(other))


def test_decoding_a_whole_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20, g="12", bf="3")
    assert np.array_equal(list(decoded_frames(path)), decode_plainly(path))
    assert {frame.shape for frame in decoded_frames(path, height=24)} == {(24, 32, 3)}
    assert len(list(decoded_frames(path, max_frames=20))) == 20
    with pytest.raises(InputError, match=r"v\.mp4: has more than 19 frames"):
        list(decoded_frames(path, max_frames=19))


@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_a_video_that_is_cut_short_is_an_error_after_its_frames(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, 50, codec="mpeg4", g="1")
    whole, frames = decode_plainly(path), []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"{name}: (cut short: .* of|cannot decode)"):
        for frame in decoded_frames(path):
            frames.append(frame)
    assert 0 < len(frames) < 30
    assert np.array_equal(frames, whole[: len(frames)])


def fed_packets(monkeypatch: pytest.MonkeyPatch, path: Path, indices: list[int]) -> list[int]:
    """Positions of the packets that a read decodes."""
    with av.open(str(path)) as container:
        positions = {packet.dts: position for position, packet in enumerate(container.demux(video=0)) if packet.size}
    fed = []
    decode = PacketTable.decode

    def spy(decoder, packet):
        fed.extend([] if packet is None else [positions[packet.dts]])
        return decode(decoder, packet)

    with monkeypatch.context() as patch:
        patch.setattr(PacketTable, "decode", staticmethod(spy))
        VideoFile(path).read(indices)
    return fed


def test_packets_that_no_wanted_frame_needs_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", g="10", bf="0", sc_threshold="0")
    assert fed_packets(monkeypatch, path, [3]) == [0, 1, 2, 3]
    assert fed_packets(monkeypatch, path, [3, 32]) == [0, 1, 2, 3, 30, 31, 32]
    assert fed_packets(monkeypatch, path, [9, 10]) == list(range(11))


def test_frames_that_nothing_refers_to_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", bf="3", **{"b-pyramid": "0"})
    decoded = []
    decode = PacketTable.decode

    def spy(*args):
        frames = decode(*args)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(PacketTable, "decode", staticmethod(spy))
    VideoFile(path).read([0, 49])
    assert len(decoded) < 35


def test_files_too_large_to_hold_are_decoded_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", g="10")
    expected = VideoFile(path).read([45, 2])
    monkeypatch.setattr(VideoFile, "max_packet_bytes", 100)
    for one, other in zip(VideoFile(path).read([45, 2]), expected, strict=True):
        assert torch.equal(one, other)


def edit_box(path: Path, name: bytes, offset: int, fmt: str, value: int) -> None:
    """Overwrite one field of the first MP4 box of this name; offset counts from the box's contents."""
    data = bytearray(path.read_bytes())
    at = data.index(name) + 4 + offset
    struct.pack_into(fmt, data, at, value)
    path.write_bytes(data)


def test_frames_that_an_edit_list_hides_have_no_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", g="10", bf="2")
    whole = decode_plainly(path)
    data = path.read_bytes()
    media_time = struct.unpack_from(">i", data, data.index(b"elst") + 4 + 12)[0]
    edit_box(path, b"elst", 12, ">i", media_time + 3 * 512)  # 12800 ticks a second, 25 frames
    frames = decode_plainly(path)
    assert len(frames) == VideoFile(path).count_frames() == 47
    assert np.array_equal(frames[0], whole[3])
    for indices in ([0], [5, 40], [46], [20, 21]):
        for index, frame in zip(indices, VideoFile(path).read(indices), strict=True):
            assert np.array_equal(as_array(frame), frames[index])


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_frames_are_upright(tmp_path: Path, quarter_turns: int) -> None:
    path = write_video(tmp_path / "v.mp4", 3)
    coded = decode_plainly(path)[1]
    # tkhd holds the matrix that the picture is shown through, 16.16 fixed point: clockwise quarter turns.
    a, b = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns]
    for offset, value in ((40, a), (44, b), (52, -b), (56, a)):
        edit_box(path, b"tkhd", offset, ">i", value << 16)
    frame = as_array(VideoFile(path).read([1])[0])
    assert np.array_equal(frame, np.rot90(coded, -quarter_turns))


def test_height_scales_upright_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    assert next(decoded_frames(path, height=33)).shape == (33, 44, 3)
    for offset, value in ((40, 0), (44, 1), (52, -1), (56, 0)):
        edit_box(path, b"tkhd", offset, ">i", value << 16)
    assert next(decoded_frames(path)).shape == (64, 48, 3)
    assert next(decoded_frames(path, height=32)).shape == (32, 24, 3)


@pytest.mark.parametrize(
    "colorspace, red_weight, blue_weight",
    [(None, 0.299, 0.114), (1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)],  # unsaid, BT.709, 601, 2020
)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("yuv", [(100, 90, 200), (16, 128, 128), (235, 128, 128), (180, 140, 60)])
def test_colours_follow_the_videos_own_matrix_and_range(
    colorspace: int | None, red_weight: float, blue_weight: float, full_range: bool, yuv: tuple[int, int, int]
) -> None:
    frame = av.VideoFrame(32, 16, "yuv420p")
    for plane, value in zip(frame.planes, yuv, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    if colorspace is not None:
        frame.colorspace = colorspace
    frame.color_range = 2 if full_range else 1
    y, u, v = yuv
    luma = y / 255 if full_range else (y - 16) / 219
    blue_difference, red_difference = ((c - 128) / (255 if full_range else 224) for c in (u, v))
    red = luma + 2 * (1 - red_weight) * red_difference
    blue = luma + 2 * (1 - blue_weight) * blue_difference
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    expected = np.clip(255 * np.array([red, green, blue]), 0, 255)
    assert np.abs(RgbConverter()(frame)[8, 16] - expected).max() <= 1


def test_indices_that_are_not_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20)
    assert VideoFile(path).read([]) == []
    with pytest.raises(InputError, match=r"v.mp4: frame 21 is asked for, but the video has 20 frames"):
        VideoFile(path).read([3, 20, 30])
    with pytest.raises(InputError, match="frame index -1 is negative"):
        VideoFile(path).read([-1])
    with pytest.raises(InputError, match="a video file has no Flow: extract it"):
        VideoFile(path, "Flow")


HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.mp4\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "name, content",
    [
        ("text.mp4", b"hello world\n" * 50),
        ("text.txt", b"hello world\n" * 50),
        ("empty.mp4", b""),
        ("list.m3u8", HLS),
        ("list.mp4", HLS),
        ("concat.mp4", b"ffconcat version 1.0\nfile v.mp4\n"),
        ("image.jpg", odd_images()["4:4:4 JPEG"]),
        ("image.mp4", odd_images()["PNG"]),
        ("noise.mp4", texture(64, 64).tobytes()),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, name: str, content: bytes) -> None:
    write_video(tmp_path / "v.mp4", 3)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: "):
        VideoFile(tmp_path / name).read([0])


def test_missing_files_and_sound_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such video file"):
        VideoFile(tmp_path / "v.mp4").read([0])
    with pytest.raises(InputError, match="no such video file"):
        VideoFile(tmp_path).read([0])
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="holds no video"):
        VideoFile(path).read([0])


def test_odd_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:v.mp4", "concat:a|b.mp4", "$(touch x) 'q\" é.mp4", "-i.mp4", "%03d.mp4"):
        path = write_video(tmp_path / "v.mp4", 2).rename(tmp_path / name)
        assert len(VideoFile(name).read([0, 1])) == 2
        assert VideoFile(path).count_frames() == 2
    assert not (tmp_path / "x").exists()


def test_claims_of_length_do_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20, g="10", bf="0")
    expected = VideoFile(path).read([3, 15])
    for box, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):  # durations
        edit_box(path, box, offset, ">I", 0xFFFFFFF0)
    for one, other in zip(VideoFile(path).read([3, 15]), expected, strict=True):
        assert torch.equal(one, other)
    edit_box(path, b"stsz", 8, ">I", 1_000_000_000)  # number of frames
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"v\.mp4: "):
        VideoFile(path).read([10**6])
    assert time.perf_counter() - start < 5


def test_videos_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 3)
    monkeypatch.setattr(ffmpeg, "MAX_PIXELS", 64 * 48)
    VideoFile(path).read([0])
    monkeypatch.setattr(ffmpeg, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match=r"v\.mp4: cannot decode the video"):
        VideoFile(path).read([0])
    assert pillow_images.MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.ts"])
def test_a_cut_video_gives_true_frames_or_an_error(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, 30, codec="mpeg4", g="10")
    frames = decode_plainly(path)
    data = path.read_bytes()
    failures = 0
    for share in np.linspace(0.02, 0.99, 25):
        path.write_bytes(data[: int(share * len(data))])
        try:
            first, last = VideoFile(path).read([0, 29])
        except InputError as error:
            assert str(error).startswith(str(path))
            failures += 1
        else:
            assert np.array_equal(as_array(first), frames[0])
            assert np.array_equal(as_array(last), frames[29])
    assert failures >= 20


def test_damaged_video_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 30, g="10", bf="2")
    frames = decode_plainly(path)
    data = path.read_bytes()
    rng = np.random.RandomState(0)
    silent = 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.randint(len(data), size=rng.randint(1, 4)):
            damaged[position] = rng.randint(256)
        path.write_bytes(damaged)
        try:
            found = VideoFile(path).read([5, 14, 27])
        except InputError as error:
            assert str(error).startswith(str(path))
        else:
            silent += not all(np.array_equal(as_array(f), frames[i]) for i, f in zip((5, 14, 27), found, strict=True))
    assert silent <= 20  # a stream without checksums does not show all damage; concealed frames would be some 100
