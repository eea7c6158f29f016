"""Which frame is in which packet of a video, so that the packets that no wanted frame needs are not decoded."""

from __future__ import annotations

from collections.abc import Set

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
        shown = [(position, packet) for position, packet in enumerate(packets) if not packet.is_discard]
        times = sorted(packet.pts for _, packet in shown)
        self.ranks = {pts: rank for rank, pts in enumerate(times)}
        starts_with_key = bool(shown) and packets[0].is_keyframe and packets[0].pts == times[0]
        has_empty = skips_unreferenced and any(packet.size < _MIN_PACKET_BYTES for packet in packets)
        if not starts_with_key or has_empty or len(self.ranks) < len(times):
            raise UntrustedPacketsError
        self._keys = [(self.ranks[packet.pts], position) for position, packet in shown if packet.is_keyframe]

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
        """Position and rank of the last packet from which decoding reaches the frame of this rank."""
        key_rank, position = max(key for key in self._keys if key[0] <= rank)
        return position, key_rank

    def decode(
        self, decoder: av.VideoCodecContext, position: int, first_rank: int, wanted: Set[int]
    ) -> list[av.VideoFrame]:
        """Decode the packet at this position; past the last one, drain the decoder.

        Left out are frames shown before first_rank, where decoding started (their references may be missing), and
        frames that are neither wanted nor referred to by others (in a typical H.264 file that is every second one).
        """
        if position > len(self._packets):
            raise UntrustedPacketsError
        if position == len(self._packets):
            return decoder.decode(None)
        packet = self._packets[position]
        rank = self.ranks.get(packet.pts, first_rank)
        if rank < first_rank:
            return []
        decoder.skip_frame = "DEFAULT" if rank in wanted else self._unwanted
        return decoder.decode(packet)


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
