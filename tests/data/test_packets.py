"""Which packets are decoded: VP9 and AV1 skip by key frames where each packet shows one frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ops.data.packets import UntrustedPacketsError, _is_one_vp9_frame
from ops.data.sources import VideoFile
from tests.data.test_sources import as_array, decode_plainly, fed_packets, write_video

# First bytes of VP9 frames: frame marker 10, profile 00, show_existing_frame, frame_type (0: key), show_frame, error.
KEY, HIDDEN_KEY, INTER, HIDDEN, REPEAT = 0b10000010, 0b10000000, 0b10000110, 0b10000100, 0b10001000


def vp9_packet(*frames: int, is_key: bool = False, size: int = 20) -> av.Packet:
    """A packet of frames of `size` bytes that begin so; several make a superframe."""
    data = b"".join(bytes([first]) + bytes(size - 1) for first in frames)
    if len(frames) > 1:
        marker = bytes([0b11000000 | len(frames) - 1])
        data += marker + bytes([size]) * len(frames) + marker
    packet = av.Packet(data)
    packet.is_keyframe = is_key
    return packet


@pytest.mark.parametrize(
    "frames, is_key, expected",
    [
        ([KEY], True, True),
        ([INTER], False, True),
        ([REPEAT], False, True),
        ([HIDDEN, INTER], False, True),
        ([HIDDEN, HIDDEN, REPEAT], False, True),
        ([HIDDEN], False, False),
        ([INTER, INTER], False, False),
        ([HIDDEN_KEY], True, False),
        ([KEY], False, False),
        ([INTER], True, False),
    ],
)
def test_vp9_packets_of_one_shown_frame(frames: list[int], is_key: bool, expected: bool) -> None:
    assert _is_one_vp9_frame(vp9_packet(*frames, is_key=is_key)) is expected


def test_profile_3_has_one_bit_more() -> None:
    assert _is_one_vp9_frame(vp9_packet(0b10110001, is_key=True))  # marker 10, profile 11, reserved 0, then as KEY
    assert not _is_one_vp9_frame(vp9_packet(0b10110010, is_key=True))


VIDEOS = {
    "VP9": ("v.webm", {"codec": "libvpx-vp9", "g": "10", "deadline": "realtime", "lag-in-frames": "8"}),
    "AV1": ("v.mp4", {"codec": "libsvtav1", "g": "10", "preset": "13", "svtav1-params": "lookahead=0"}),
}


@pytest.mark.parametrize("kind", sorted(VIDEOS))
def test_vp9_and_av1_skip_by_key_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name, options = VIDEOS[kind]
    path = write_video(tmp_path / name, 30, **options)
    with av.open(str(path)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert len(keys) > 1
    wanted = [2, keys[1], 29]
    fed = fed_packets(monkeypatch, path, wanted)
    assert fed and set(fed) == {*range(3), keys[1], *range(keys[-1], 30)}
    frames = decode_plainly(path)
    for index, frame in zip(wanted, VideoFile(path).read(wanted), strict=True):
        assert np.array_equal(as_array(frame), frames[index])


def test_a_group_is_decoded_no_further_than_its_last_wanted_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", g="10", bf="2", sc_threshold="0")  # the decoder holds frames back
    fed = fed_packets(monkeypatch, path, [10, 20])
    assert fed == [10, 20]


def test_frames_that_an_edit_list_hides_are_skipped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", g="10", bf="0", sc_threshold="0")
    with av.open(str(path), "r") as source, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = source.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - 15 * 512, packet.dts - 15 * 512, copy
                cut.mux(packet)
    frames = decode_plainly(tmp_path / "cut.mp4")
    assert len(frames) == 35
    fed = fed_packets(monkeypatch, tmp_path / "cut.mp4", [1, 20])  # FFmpeg drops the packets before the key frame 10
    assert fed == [*range(7), *range(20, 26)]
    for index, frame in zip([1, 20], VideoFile(tmp_path / "cut.mp4").read([1, 20]), strict=True):
        assert np.array_equal(as_array(frame), frames[index])


def test_a_codec_with_frames_between_packets_is_decoded_through(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.webm", 20, codec="libvpx", g="10", **{"auto-alt-ref": "1", "lag-in-frames": "8"})
    with pytest.raises(UntrustedPacketsError):
        list(VideoFile(path)._decode_from_keys([3]))
