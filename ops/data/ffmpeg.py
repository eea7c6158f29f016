"""Opening video files safely, and reading their packets and frames from the first whole frame to the promised end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.stream import Discard, Disposition

from ops.common.errors import InputError
from ops.data.pillow_images import MAX_PIXELS

# Containers that hold one video and lead nowhere else: a playlist or a concat script could open other files, and
# FFmpeg even reads plain text as a video ("tty").
_CONTAINERS = (
    "3g2,3gp,asf,avi,dv,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,vc1,webm,wtv,yuv4mpegpipe"
)
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
# Streams that may be cut anywhere, as a recording that was started between two key frames.
_STREAMS = {"mpegts", "mpeg"}
# Headers of sound files are off by a few frames (edit lists, variable rate); a cut file lacks more.
_SHARE_THAT_MAY_LACK = 0.05
_FRAMES_THAT_MAY_LACK = 2


class Video:
    """An open video file: its first video stream (a cover picture is none), read packet by packet."""

    def __init__(self, path: str, container: av.container.InputContainer, threads: int) -> None:
        self.path = path
        self.container = container
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise InputError(f"{path}: holds no video{', only a cover picture' if container.streams.video else ''}")
        self.stream = streams[0]
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise InputError(f"{path}: no decoder for its codec")
        # By default FFmpeg paints over damaged parts with the previous frame and says nothing.
        self.decoder.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
        self.decoder.thread_count = threads
        self.decoder.thread_type = "AUTO"  # by frames as well: most videos have a single slice a frame
        self.size = self.decoder.width, self.decoder.height  # as the header says
        self._num_indexed = len(self.stream.index_entries)  # by the file's index; without one, what opening has read
        self._num_read = 0  # packets
        self.shown_dts: list[int | None] = []  # decoding times of the packets read, less those that an edit list hides
        self._end_s: float | None = None  # of the last packet, in any stream
        self._packets = self._read_packets()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def packets(self) -> Iterator[av.Packet]:
        """The stream's packets in decoding order, from the first frame that can be decoded whole; each comes once.

        Left out are empty packets, by which AVI repeats a frame: FFmpeg shows nothing new for them.
        """
        return self._packets

    def _read_packets(self) -> Iterator[av.Packet]:
        ends: dict[int, int] = {}
        num_keys, whole_from = (0, None) if self.container.format.name in _STREAMS else (2, None)
        if self.stream.frames:  # else the end of the other streams shows whether the file is whole
            for stream in self.container.streams:
                stream.discard = Discard.default if stream is self.stream else Discard.all
        for packet in self.container.demux():
            index, pts = packet.stream_index, packet.pts
            if pts is not None:
                ends[index] = max(ends.get(index, 0), pts + (packet.duration or 0))
            if index != self.stream.index or not packet.size:
                continue
            self._num_read += 1
            if num_keys < 2 and packet.is_keyframe:
                num_keys, whole_from = num_keys + 1, pts
            # Frames around the first key frame may refer to others before it; those that are shown after it do not.
            if num_keys > 1 or (num_keys == 1 and (pts is None or whole_from is None or pts >= whole_from)):
                if not packet.is_discard:
                    self.shown_dts.append(packet.dts)
                yield packet
        streams = self.container.streams
        self._end_s = max((float(end * (streams[index].time_base or 0)) for index, end in ends.items()), default=None)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode every frame in presentation order.

        Raises InputError at a frame that is damaged, and after the last one where the file is cut short.
        """
        count = 0
        with naming(self.path):
            for packet in itertools.chain(self.packets(), [None]):  # None gets the decoder's last frames
                for frame in self.decoder.decode(packet):
                    if frame.is_corrupt:
                        raise InputError(f"{self.path}: damaged: frame {count + 1} cannot be decoded whole")
                    count += 1
                    yield frame
        self.check_whole(count)

    def skip_rest(self) -> None:
        """Read what packets are left without decoding them; InputError where the file is cut short."""
        with naming(self.path):
            for _ in self.packets():
                pass
        self.check_whole(len(self.shown_dts))

    def check_whole(self, num_frames: int) -> None:
        """Raise InputError where a file, read to its end, has clearly fewer frames or seconds than its header says."""
        if not num_frames:
            raise InputError(f"{self.path}: holds no frame")
        if _clearly_less(num_frames, self.stream.frames) and _clearly_less(num_frames, self._num_indexed_shown()):
            raise InputError(f"{self.path}: cut short: {num_frames} frames of {self._num_indexed_shown()}")
        end_s, rate = self._promised_end_s(), self.stream.average_rate
        if end_s and rate and _clearly_less(self._end_s * rate, end_s * rate):
            raise InputError(f"{self.path}: cut short: it ends after {self._end_s:.2f} s of {end_s:.2f} s")

    def _num_indexed_shown(self) -> int:
        """Number of frames shown by the file's index, else by its header.

        The header counts frames that an edit list hides (`-c copy` cuts), and in AVI those that repeat another.
        """
        if max(2, self._num_read) > self._num_indexed:  # a cut file has no index, or one with fewer packets in it
            return self.stream.frames
        entries = itertools.islice(self.stream.index_entries, self._num_indexed)
        return sum(1 for entry in entries if entry.size and not entry.is_discard)

    def _promised_end_s(self) -> float | None:
        """Where the last stream ends by the header, in seconds; None where it does not count.

        Matroska and WebM count no frames, but keep a duration.
        """
        container = self.container
        if self.stream.frames or self._end_s is None:
            return None
        if container.duration and (container.format.name == "matroska,webm" or len(container.streams) == 1):
            return container.duration / av.time_base
        return None


def _clearly_less(num_frames: float, promised: float) -> bool:
    return num_frames < promised * (1 - _SHARE_THAT_MAY_LACK) - _FRAMES_THAT_MAY_LACK


def open_video(path: str, threads: int = 1) -> Video:
    """Open a video file for decoding, limited to MAX_PIXELS and to `threads` (0: one a core); InputError if it is none.

    Only plain files in known containers: nothing in the file can lead to another file or to the network.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such video file")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    with naming(path):
        # MP4's header says all that is needed; decoding a frame for more would take longer than the rest of opening.
        is_mov = path.lower().endswith((".mp4", ".m4v", ".mov"))
        container = _open(path, options | ({"skip_frame": "all", "analyzeduration": "1"} if is_mov else {}))
        if is_mov and container.format.name != _MOV:  # another container under its name
            container.close()
            container = _open(path, options)
    try:
        return Video(path, container, threads)
    except InputError:
        container.close()
        raise


def _open(path: str, options: dict[str, str]) -> av.container.InputContainer:
    # "file:", or a colon in the name makes it a protocol. A title need not be UTF-8.
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


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
