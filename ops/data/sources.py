"""Where frames come from: a folder of images, or a video file."""

from __future__ import annotations

import functools
import itertools
import os
import string
from collections.abc import Iterator, Sequence
from typing import Protocol

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ops.common.errors import InputError, counted
from ops.data.ffmpeg import naming, open_video
from ops.data.frame_ops import image_size
from ops.data.images import check_backend, read_tensor
from ops.data.packets import PacketTable, UntrustedPacketsError
from ops.data.pillow_images import read_image
from ops.data.rgb import RgbConverter

IO_KINDS = ("frames", "video")
DEFAULT_TMPL = "img_{:05d}.jpg"
# Mean of packed flow's third channel. JPEG leaves up to 3 of it in real flow and 21 in pure noise; pictures have 90.
MAX_PACKED_BLUE = 24
DEFAULT_FPS = 25  # of a folder, or of a file that does not say its rate

# One decoded frame. torchvision: uint8 (C, H, W), C = 3 or, for flow, 2 (x, y). pillow: an RGB image, or for flow a
# pair of L images.
Frame = Tensor | Image.Image | tuple[Image.Image, Image.Image]


class FrameSource(Protocol):
    """Anything that frames are read from."""

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Decode the frames at these 0-based indices, in their order."""


def check_io(io: str, modality: str) -> str:
    """Return `io`, or raise InputError where it is unknown or has no frames of this modality."""
    if io not in IO_KINDS:
        raise InputError(f"unknown --io {io!r}: choose one of {', '.join(IO_KINDS)}")
    if io == "video" and modality == "Flow":
        raise InputError("a video file has no Flow: extract it (tools/extract_flow.py) and read it with --io frames")
    return io


@functools.lru_cache
def num_template_fields(image_tmpl: str) -> int:
    """Number of fields of a frame file template; InputError unless it is 1, 2 or 3 and the template is sound."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(image_tmpl) if field is not None]
        sample = {1: (1,), 2: ("x", 1), 3: (1, "x", 1)}.get(len(fields))
        if sample is not None:
            image_tmpl.format(*sample)
            return len(sample)
        reason = f"{len(fields)} fields"
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        reason = str(error)
    raise InputError(
        f"image_tmpl {image_tmpl!r} is no frame file template ({reason}): use the like of 'img_{{:05d}}.jpg', "
        "'flow_{}_{:05d}.jpg' or '{:06d}-{}_{:05d}.jpg'"
    )


def check_image_tmpl(image_tmpl: str, modality: str) -> int:
    """Return the template's number of fields, or raise InputError where it cannot name a frame of this modality."""
    fields = num_template_fields(image_tmpl)
    if fields > 1 and modality != "Flow":
        raise InputError(f"--image_tmpl {image_tmpl!r} names x and y files: {modality} takes names like {DEFAULT_TMPL}")
    return fields


def numbered_folder(path: str) -> str:
    """Folder of a video named by its number: `7` or, where the published program looks for its flow, `000007`."""
    parent, name = os.path.split(os.path.normpath(path))
    padded = os.path.join(parent, name.zfill(6))
    return padded if name.isdecimal() and os.path.isdir(padded) and not os.path.isdir(path) else path


class FrameFolder:
    """A video as a folder of image files, numbered from 1 in their names.

    The template's fields give the layout: `img_{:05d}.jpg` (frame) is an RGB image, or for modality Flow the two
    flow channels packed as RGB (x, y, 0); `flow_{}_{:05d}.jpg` (x or y, frame) and `{:06d}-{}_{:05d}.jpg` (folder
    name as a number, x or y, frame) are one gray file a flow channel.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_tmpl: str = DEFAULT_TMPL,
        modality: str = "RGB",
        backend: str = "torchvision",
    ) -> None:
        self.directory = os.fspath(directory)
        self.image_tmpl = image_tmpl
        self.is_flow = modality == "Flow"
        self.is_pillow = check_backend(backend) == "pillow"
        self.num_fields = check_image_tmpl(image_tmpl, modality)

    def paths(self, index: int) -> list[str]:
        """Files of the frame at a 0-based index: one, or the x and the y file of a flow."""
        if self.num_fields == 1:
            names = [self.image_tmpl.format(index + 1)]
        elif self.num_fields == 2:
            names = [self.image_tmpl.format(axis, index + 1) for axis in "xy"]
        else:
            names = [self.image_tmpl.format(self._folder_number(), axis, index + 1) for axis in "xy"]
        return [f"{self.directory}{os.sep}{name}" for name in names]

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Decode the frames at these 0-based indices, in their order (see `Frame`)."""
        return [self._read_frame(self.paths(int(index))) for index in indices]

    def count_frames(self) -> int:
        """Number of frames there without a gap, from the first on."""
        try:
            present = set(os.listdir(self.directory))
        except OSError as error:
            raise InputError(f"{self.directory}: cannot list the frames ({error.strerror})") from None
        count = 0
        while all(os.path.basename(path) in present for path in self.paths(count)):
            count += 1
        return count

    def _folder_number(self) -> int:
        name = os.path.basename(os.path.normpath(self.directory))
        if not name.isdecimal():
            raise InputError(f"{self.directory}: {self.image_tmpl!r} needs a folder whose name is a number")
        return int(name)

    def _read_frame(self, paths: list[str]) -> Frame:
        read = read_image if self.is_pillow else read_tensor
        if not self.is_flow:
            return read(paths[0])
        if len(paths) == 1:
            packed = read(paths[0])  # (x, y, 0)
            channels = packed.split() if self.is_pillow else packed
            _check_packed(paths[0], channels[2])
            return channels[:2]
        x, y = (read(path, "L") for path in paths)
        if image_size([x]) != image_size([y]):
            raise InputError(f"{paths[1]}: {image_size([y])} pixels, but its x file has {image_size([x])}")
        # Tensors: (2, H, W), channels-last as every frame.
        return (x, y) if self.is_pillow else torch.stack((x[0], y[0]), dim=2).permute(2, 0, 1)


def _check_packed(path: str, blue: Image.Image | Tensor) -> None:
    """Refuse a picture that is no packed flow: a network would read its red and green as motion, without an error."""
    if np.asarray(blue)[::8, ::8].mean() > MAX_PACKED_BLUE:
        raise InputError(
            f"{path}: not packed flow (x and y as red and green, blue empty) but some other picture: give the folder "
            "of the flow (--root_path; an ensemble takes one for each net) or its file names (--image_tmpl)"
        )


class VideoFile:
    """A video file, read through FFmpeg's libraries (PyAV).

    A frame's index is its place in presentation order among the decoded frames, from 0: frame 0 is what extraction
    writes as file 1. Reading does not rely on what the header says of length or frame count.
    threads: of the decoder (0: one a core).
    """

    # Compressed packets are kept in memory up to this size; longer videos are decoded straight through.
    max_packet_bytes = 256 * 1024 * 1024

    def __init__(
        self,
        path: str | os.PathLike[str],
        modality: str = "RGB",
        backend: str = "torchvision",
        *,
        threads: int = 1,
    ) -> None:
        check_io("video", modality)
        self.path = os.fspath(path)
        self.is_pillow = check_backend(backend) == "pillow"
        self.threads = threads

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Decode the frames at these 0-based indices, in their order (see `Frame`)."""
        wanted = sorted({int(index) for index in indices})
        if not wanted:
            return []
        if wanted[0] < 0:
            raise InputError(f"{self.path}: frame index {wanted[0]} is negative")
        try:
            found = dict(self._decode_from_keys(wanted))
        except (UntrustedPacketsError, av.error.FFmpegError, MemoryError):
            found = dict(self.read_through(wanted))  # damage, or a key frame that decoding cannot start at?
        return [found[int(index)] for index in indices]

    def frames(self) -> Iterator[Frame]:
        """Decode every frame, in presentation order."""
        convert = RgbConverter()
        with open_video(self.path, self.threads) as video:
            for frame in video.frames():
                yield self._wrap(frame, convert)

    def count_frames(self) -> int:
        """Number of frames, by decoding them all."""
        with open_video(self.path, self.threads) as video:
            return sum(1 for _ in video.frames())

    def frame_times(self) -> list[float]:
        """Seconds from the first frame to each of the N frames and to the end of the last one, by decoding all.

        N + 1 times: the frames' own; where the file keeps only the packets' (AVI), those; else by the average rate.
        """
        with open_video(self.path, self.threads) as video:
            frames = [(frame.pts, frame.duration) for frame in video.frames()]
            rate, base = video.stream.guessed_rate or DEFAULT_FPS, video.stream.time_base
            is_avi = video.container.format.name == "avi"
        ticks, last = [pts for pts, _ in frames], frames[-1][1]
        if is_avi or None in ticks or ticks != sorted(ticks):  # FFmpeg makes up times for AVI
            ticks, last = video.shown_dts, None
        if None in ticks or ticks != sorted(ticks) or len(ticks) != len(frames):
            return [float(number / rate) for number in range(len(frames) + 1)]
        seconds = [(tick - ticks[0]) * base for tick in ticks]
        return [float(second) for second in (*seconds, seconds[-1] + (last * base if last else 1 / rate))]

    def read_through(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Decode straight through, giving (index, frame) for these ascending 0-based indices as they come by."""
        convert = RgbConverter()
        remaining = iter(wanted)
        target, count = next(remaining, None), 0
        with open_video(self.path, self.threads) as video:
            for frame in video.frames() if target is not None else ():
                if count == 0:
                    convert.fit(frame)
                if count == target:
                    yield target, self._wrap(frame, convert)
                    target = next(remaining, None)
                    if target is None:
                        video.skip_rest()
                        return
                count += 1
        if target is not None:
            raise InputError(
                f"{self.path}: frame {target + 1} is asked for, but the video has {counted(count, 'frame')}"
            )

    def _decode_from_keys(self, wanted: list[int]) -> Iterator[tuple[int, Frame]]:
        """Skip the packets that no wanted frame needs, by the packets' times; check these on every frame that comes."""
        with open_video(self.path, self.threads) as video:
            table = PacketTable.read(video, self.max_packet_bytes)
            if wanted[-1] >= len(table.ranks):
                raise UntrustedPacketsError
            convert = RgbConverter()
            for key, group in itertools.groupby(wanted, table.last_key_before):
                targets, last_rank = set(group), -1
                for rank, frame in table.decode_from(video.decoder, key, targets):
                    if rank <= last_rank or (frame.width, frame.height) != video.size:
                        raise UntrustedPacketsError  # where the size changes, the first frame's is needed
                    last_rank = rank
                    if rank in targets:
                        targets.remove(rank)
                        yield rank, self._wrap(frame, convert)
                if targets:
                    raise UntrustedPacketsError

    def _wrap(self, frame: av.VideoFrame, convert: RgbConverter) -> Frame:
        if frame.is_corrupt:
            raise InputError(f"{self.path}: damaged video (a frame cannot be decoded whole)")
        with naming(self.path):
            array = convert(frame)
        return Image.fromarray(array) if self.is_pillow else torch.from_numpy(array).permute(2, 0, 1)
