"""Opening video containers safely, knowing their frames' order from the packets, and converting frames to RGB."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np

from ops.common.errors import InputError
from ops.data.pillow_images import MAX_PIXELS

# Containers that hold one video and lead nowhere else: a playlist or a concat script could open other files, and
# FFmpeg even reads plain text as a video ("tty").
_CONTAINERS = (
    "3g2,3gp,asf,avi,dv,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,vc1,webm,wtv,yuv4mpegpipe"
)
# Where each packet is one shown frame and carries its time, the packets give every frame's index.
_ONE_FRAME_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video", "mjpeg"}
_MIN_PACKET_BYTES = 9  # MPEG-4 writes "nothing to decode here" in up to 8 bytes: no frame comes out
_TIMED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


def open_video(path: str, threads: int = 1) -> av.container.InputContainer:
    """Open a video file for decoding, its first video stream limited to MAX_PIXELS and `threads`; InputError if none.

    Only plain files in known containers: nothing in the file can lead to another file or to the network.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such video file")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    with naming(path):
        container = av.open(f"file:{path}", options=options)  # "file:", or a colon in the name makes it a protocol
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no video")
    decoder = container.streams.video[0].codec_context
    if decoder is None:
        container.close()
        raise InputError(f"{path}: no decoder for its codec")
    # By default FFmpeg paints over damaged parts with the previous frame and says nothing.
    decoder.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
    decoder.thread_count = threads
    return container


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn FFmpeg's errors into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        if isinstance(error, av.error.ArgumentError):
            reason = "not a video in a known container, or with impossible parameters"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot decode the video ({reason})") from None


# Headers of sound files are off by a few frames (edit lists, variable rate); a cut file lacks more.
_SHARE_THAT_MAY_LACK = 0.05
_FRAMES_THAT_MAY_LACK = 2


def check_whole(path: str, container: av.container.InputContainer, num_frames: int, last_s: float | None) -> None:
    """Raise InputError where a video, decoded to its end, has clearly fewer frames or seconds than its header says.

    last_s: time of the last frame.
    """
    if not num_frames:
        raise InputError(f"{path}: holds no frame")
    stream = container.streams.video[0]
    promised = stream.frames
    if num_frames < promised * (1 - _SHARE_THAT_MAY_LACK) - _FRAMES_THAT_MAY_LACK:
        raise InputError(f"{path}: cut short: {num_frames} frames of {promised}")
    end_s, rate = _promised_end_s(container), stream.average_rate
    if not promised and end_s and last_s is not None and rate:
        shown_s = last_s + (1 + _FRAMES_THAT_MAY_LACK) / float(rate)
        if shown_s < end_s * (1 - _SHARE_THAT_MAY_LACK):
            raise InputError(f"{path}: cut short: it ends after {last_s:.2f} s of {end_s:.2f} s")


def _promised_end_s(container: av.container.InputContainer) -> float | None:
    """Where the video ends by its container's header, in seconds; None where the header does not say it of the video.

    Matroska and WebM count no frames, but keep a duration: a tag of the stream, or, of a lone stream, the file's.
    """
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


class UntrustedPacketsError(Exception):
    """The packets do not show, or showed wrongly, which frame is which: decode in order instead."""


class PacketTable:
    """A stream's packets, and the presentation index of the frame in each, from the packets' times alone.

    ranks: pts -> 0-based index in presentation order.
    """

    def __init__(self, packets: list[av.Packet]) -> None:
        self._packets = packets
        shown = [(position, packet) for position, packet in enumerate(packets) if not packet.is_discard]
        times = sorted(packet.pts for _, packet in shown)
        self.ranks = {pts: rank for rank, pts in enumerate(times)}
        starts_with_key = bool(shown) and packets[0].is_keyframe and packets[0].pts == times[0]
        has_empty = any(packet.size < _MIN_PACKET_BYTES for packet in packets)
        if not starts_with_key or has_empty or len(self.ranks) < len(times):
            raise UntrustedPacketsError
        self._keys = [(self.ranks[packet.pts], position) for position, packet in shown if packet.is_keyframe]

    @classmethod
    def read(cls, container: av.container.InputContainer, max_bytes: int) -> PacketTable:
        """Read all packets of the first video stream, up to max_bytes together; UntrustedPacketsError if no use."""
        stream = container.streams.video[0]
        if container.format.name not in _TIMED_CONTAINERS or stream.codec_context.name not in _ONE_FRAME_CODECS:
            raise UntrustedPacketsError
        packets, num_bytes = [], 0
        for packet in container.demux(stream):
            if packet.size == 0 and packet.dts is None:
                break  # the empty packet that ends the stream
            num_bytes += packet.size
            if packet.pts is None or packet.is_corrupt or num_bytes > max_bytes:
                raise UntrustedPacketsError
            packets.append(packet)
        return cls(packets)

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
        decoder.skip_frame = "DEFAULT" if rank in wanted else "NONREF"
        return decoder.decode(packet)


class RgbConverter:
    """Decoded video frame -> uint8 (H, W, 3) RGB array, upright, by the frame's own colour matrix and range.

    The one conversion of the project: frames extracted to files and frames read from the video have the same colours.
    height: scale to this many rows, keeping the aspect ratio (default: as coded).
    """

    def __init__(self, height: int | None = None) -> None:
        self.height = height
        self._graph_key: tuple[object, ...] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        quarter_turns = round(frame.rotation / 90) % 4  # counterclockwise
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, quarter_turns % 2)
        if key != self._graph_key:
            self._build_graph(frame, sideways=quarter_turns % 2 == 1)
            self._graph_key = key
        self._source.push(frame)
        array = self._sink.pull().to_ndarray()
        return np.ascontiguousarray(np.rot90(array, quarter_turns)) if quarter_turns else array

    def _build_graph(self, frame: av.VideoFrame, *, sideways: bool) -> None:
        width, height = frame.width, frame.height
        if self.height is not None:
            shown_width, shown_height = (height, width) if sideways else (width, height)
            width, height = max(1, round(shown_width * self.height / shown_height)), self.height
            if sideways:
                width, height = height, width
        kernel = "bilinear" if self.height is None else "bicubic"
        self._graph = av.filter.Graph()
        self._source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1)
        )
        # Without these flags the result is 1 to 2 levels too dark and repeats chroma over pairs of columns.
        flags = f"{kernel}+accurate_rnd+full_chroma_int"
        scale = self._graph.add("scale", f"w={width}:h={height}:flags={flags}:threads=1")
        rgb = self._graph.add("format", "rgb24")
        self._sink = self._graph.add("buffersink")
        for node, following in ((self._source, scale), (scale, rgb), (rgb, self._sink)):
            node.link_to(following)
        self._graph.configure()


def decoded_frames(
    video: str | os.PathLike[str], *, height: int = 0, max_frames: int = 100_000
) -> Iterator[np.ndarray]:
    """Every frame of a video as uint8 (H, W, 3) RGB, in order: the pictures that training from video files sees.

    height: scale frames to this many rows (0: as coded). Raises InputError, after the frames that can be decoded, for a
    file that is no video, damaged, cut short, or longer than `max_frames`.
    """
    convert = RgbConverter(height or None)
    count, last_s = 0, None
    with open_video(os.fspath(video)) as container, naming(os.fspath(video)):
        for frame in container.decode(container.streams.video[0]):
            if frame.is_corrupt:
                raise InputError(f"{video}: damaged: frame {count + 1} cannot be decoded whole")
            if count == max_frames:
                raise InputError(f"{video}: has more than {max_frames} frames (--max_frames)")
            yield convert(frame)
            count, last_s = count + 1, frame.time
        check_whole(os.fspath(video), container, count, last_s)
