"""Which frame is in which packet of a video, so that the packets that no wanted frame needs are not decoded."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Set

import av

from ops.data.ffmpeg import Video

# Where each packet is one shown frame and carries its time, the packets give every frame's index.
_ONE_FRAME_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "vp9", "av1"}
_DISPOSABLE_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video"}  # FFmpeg skips frames that no other refers to
_MIN_PACKET_BYTES = 9  # MPEG-4 writes "nothing to decode here" in up to 8 bytes: no frame comes out
_TIMED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


class UntrustedPacketsError(Exception):
    """The packets do not show, or showed wrongly, which frame is which: decode in order instead."""


class PacketTable:
    """A stream's packets, and the presentation index of the frame in each, from the packets' times alone.

    ranks: pts -> 0-based index in presentation order.
    """

    def __init__(self, packets: list[av.Packet], *, skips_unreferenced: bool) -> None:
        self._packets = packets
        self._unwanted = "NONREF" if skips_unreferenced else "DEFAULT"
        shown = sorted((packet.pts, position) for position, packet in enumerate(packets) if not packet.is_discard)
        times = [pts for pts, _ in shown]
        self.ranks = {pts: rank for rank, pts in enumerate(times)}
        self._positions = [position for _, position in shown]
        is_sound = bool(shown) and packets[0].is_keyframe and packets[0].pts <= times[0]
        has_empty = skips_unreferenced and any(packet.size < _MIN_PACKET_BYTES for packet in packets)
        if not is_sound or has_empty or len(self.ranks) < len(shown):
            raise UntrustedPacketsError
        keys = ((position, packet) for position, packet in enumerate(packets) if packet.is_keyframe)
        self._keys = [(bisect.bisect_left(times, packet.pts), position) for position, packet in keys]

    @classmethod
    def read(cls, video: Video, max_bytes: int) -> PacketTable:
        """Read all packets of a video, up to max_bytes together; UntrustedPacketsError if they are of no use.

        Raises InputError where the file is cut short.
        """
        codec = video.decoder.codec.canonical_name
        if video.container.format.name not in _TIMED_CONTAINERS or codec not in _ONE_FRAME_CODECS:
            raise UntrustedPacketsError
        packets, num_bytes = [], 0
        for packet in video.packets():
            num_bytes += packet.size
            if packet.pts is None or packet.is_corrupt or num_bytes > max_bytes:
                raise UntrustedPacketsError
            if codec == "vp9" and not _is_one_vp9_frame(packet):
                raise UntrustedPacketsError
            packets.append(packet)
        table = cls(packets, skips_unreferenced=codec in _DISPOSABLE_CODECS)
        video.check_whole(len(table.ranks))
        return table

    def last_key_before(self, rank: int) -> tuple[int, int]:
        """Rank and position of the last packet from which decoding reaches the frame of this rank."""
        return self._keys[bisect.bisect_left(self._keys, (rank + 1,)) - 1]

    def decode_from(
        self, decoder: av.VideoCodecContext, key: tuple[int, int], wanted: Set[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from a key packet (rank, position) to the last wanted frame; gives (rank, frame), in order.

        Left out are frames shown before the key's (their references may be missing), and frames that are neither wanted
        nor referred to by others (in a typical H.264 file that is every second one).
        """
        first_rank, position = key
        last = max(self._positions[rank] for rank in wanted)
        for packet in self._packets[position : last + 1]:
            rank = self.ranks.get(packet.pts, first_rank)
            if rank >= first_rank:
                decoder.skip_frame = "DEFAULT" if rank in wanted else self._unwanted
                yield from self._ranked(self.decode(decoder, packet))
        yield from self._ranked(self.decode(decoder, None))  # what it holds back comes sooner so than by more packets
        decoder.flush_buffers()

    @staticmethod
    def decode(decoder: av.VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Frames that a packet, or the end of them, brings."""
        return decoder.decode(packet)

    def _ranked(self, frames: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        for frame in frames:
            yield self.ranks.get(frame.pts, -1), frame


def _is_one_vp9_frame(packet: av.Packet) -> bool:
    """Whether a VP9 packet holds one shown frame (hidden ones may be packed with it), a key frame where it says so.

    VP9 bitstream specification 0.6, section 6.2 (uncompressed header) and annex B (superframes).
    """
    data = bytes(packet)
    last, sizes = data[-1], [len(data)]
    if last >> 5 == 0b110:  # a superframe ends with an index of its frames' sizes
        width, num_frames = (last >> 3 & 3) + 1, (last & 7) + 1
        start = len(data) - 1 - width * num_frames
        if start > 0 and data[start - 1] == last:
            index = data[start:-1]
            sizes = [int.from_bytes(index[at : at + width], "little") for at in range(0, len(index), width)]
    num_shown, at, is_key = 0, 0, False
    for size in sizes:
        if not size or at >= len(data):
            return False
        bits = data[at] << (data[at] >> 4 & 3 == 3)  # profile 3 has a reserved bit before the rest
        repeats, is_inter, is_shown = bits >> 3 & 1, bits >> 2 & 1, bits >> 1 & 1
        is_key = is_key or (at == 0 and not repeats and not is_inter)
        num_shown += repeats or is_shown
        at += size
    return num_shown == 1 and is_key == packet.is_keyframe
