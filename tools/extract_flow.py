"""Dense optical flow of videos, as the pairs of JPEG channels that --modality Flow reads.

    python tools/extract_flow.py data/kinetics/images data/kinetics/flow --layout kinetics
    python tools/extract_flow.py videos data/UCF101/jpg --layout ucf101 --videos --height 256

SOURCE holds frame folders (with --videos: video files) at any depth; OUT gets a folder of the same path for each, in
the data set's flow layout: x and y packed into one RGB file (x, y, 0), or a grey file each, which may lie beside the
frames.

Flow frame k is the motion from frame k to frame k+1, x to the right and y down, in pixels of the written size: clipped
to +-BOUND and stored as round(255 * (v + BOUND) / (2 * BOUND)), so that 0 is 128. The last frame has no next one and
repeats the flow before it, so that flow and RGB have the same number of frames (--drop_last: one less). Needs OpenCV:
pip install -r requirements-flow.txt.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, at_least, run_command
from ops.common.opencv import import_cv2
from ops.data.rgb import decoded_frames
from ops.data.sources import FrameFolder, num_template_fields
from ops.dataset_config import DATASETS
from ops.opts import ShowDefaults
from tools.shared.extraction import PARTIAL, add_run_options, finished_frames, partial_folder, run_extraction
from tools.shared.files import existing_folder, find_videos, walk
from tools.shared.lists import count_images, example_of, frame_number_pattern
from tools.shared.report import print_counts, report

JPEG_QUALITY = 95
FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class FlowOptions:
    """How the flow of a video is made; templates as in the table of data sets."""

    method: str
    bound: float
    height: int
    image_tmpl: str
    flow_tmpl: str
    videos: bool
    drop_last: bool
    overwrite: bool
    max_frames: int


def flow_function(method: str) -> FlowFunction:
    """Two uint8 (H, W) frames -> float32 (H, W, 2) flow (x, y) in pixels."""
    cv2 = import_cv2("optical flow needs", "requirements-flow.txt")
    cv2.setNumThreads(1)  # the processes are the parallelism
    if method == "dis":
        algorithm = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    elif not hasattr(cv2, "optflow"):
        raise InputError(
            "--method tvl1 needs OpenCV's extra modules: pip uninstall opencv-python, then pip install "
            "opencv-contrib-python; or use --method dis"
        )
    else:
        algorithm = cv2.optflow.DualTVL1OpticalFlow_create()
    return lambda before, after: algorithm.calc(before, after, None)


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Flow in pixels -> uint8: [-bound, bound] on 0..255, clipped. Bound 20: -20, 0, 20 -> 0, 128, 255."""
    return np.rint((np.clip(flow, -bound, bound) + bound) * (255 / (2 * bound))).astype(np.uint8)


def _gray_frames(source: Path, options: FlowOptions) -> Iterator[np.ndarray]:
    """The frames of a video or frame folder as uint8 (H, W)."""
    if options.videos:
        for picture in decoded_frames(source, height=options.height, max_frames=options.max_frames):
            yield np.asarray(Image.fromarray(picture).convert("L"))
        return
    frames = FrameFolder(source, options.image_tmpl, backend="pillow")
    for index in range(count_images(source, options.image_tmpl)):
        image = frames.read([index])[0].convert("L")
        if options.height and image.height != options.height:
            width = max(1, round(image.width * options.height / image.height))
            image = image.resize((width, options.height), Image.Resampling.BICUBIC)
        yield np.asarray(image)


def flows(
    frames: Iterable[np.ndarray], compute: FlowFunction, *, bound: float, drop_last: bool
) -> Iterator[np.ndarray]:
    """uint8 (H, W, 2) for each frame; the last repeats the one before, or is left out. A single frame moves nowhere."""
    before, quantised = None, None
    for number, frame in enumerate(frames, start=1):
        if before is not None:
            if frame.shape != before.shape:
                raise InputError(f"frame {number} has another size than frame {number - 1}")
            quantised = quantise(compute(before, frame), bound)
            yield quantised
        before = frame
    if before is None:
        raise InputError("holds no frame")
    if not drop_last:
        yield quantised if quantised is not None else quantise(np.zeros((*before.shape, 2), np.float32), bound)


def _save(flow: np.ndarray, paths: Sequence[Path]) -> None:
    if len(paths) == 1:
        packed = np.concatenate((flow, np.zeros_like(flow[:, :, :1])), axis=2)
        # Without subsampling: x and y would bleed into each other's neighbours through the colour channels.
        Image.fromarray(packed).save(paths[0], quality=JPEG_QUALITY, subsampling=0)
    else:
        for channel, path in enumerate(paths):
            Image.fromarray(np.ascontiguousarray(flow[:, :, channel])).save(path, quality=JPEG_QUALITY)


def extract_flow(job: tuple[Path, Path], options: FlowOptions) -> int:
    """Write the flow of one video (job[0]) to a folder (job[1]); returns how many frames, 0 if they were there.

    Raises InputError as `decoded_frames` does, and where frames are missing, unreadable or of different sizes.
    """
    source, folder = job
    layout = FrameFolder(folder, options.flow_tmpl, "Flow")
    if all(os.path.exists(path) for path in layout.paths(0)) and not options.overwrite:
        return 0
    scratch = folder / f".flow{PARTIAL}" if folder.is_dir() else partial_folder(folder)
    with finished_frames(folder, options.flow_tmpl, scratch) as partial:
        compute, count = flow_function(options.method), 0
        try:
            for flow in flows(_gray_frames(source, options), compute, bound=options.bound, drop_last=options.drop_last):
                _save(flow, [partial / os.path.basename(path) for path in layout.paths(count)])
                count += 1
        except InputError as error:
            raise InputError(str(error).removeprefix(f"{source}: ")) from None
        if not count:
            raise InputError("has a single frame: there is no flow to write")
    return count


def find_frame_folders(root: Path, image_tmpl: str) -> list[Path]:
    """Folders below `root` that hold frames, sorted, relative to it; InputError if there are none."""
    pattern, found, other = frame_number_pattern(image_tmpl), [], ""
    for folder, files in walk(root):
        if any(pattern.fullmatch(name) for name in files):
            found.append(Path(folder).relative_to(root))
        elif not other and files:
            other = example_of(files)
    if not found:
        raise InputError(f"{root}: no folders with {image_tmpl.format(1)} in it{other}")
    return sorted(found, key=lambda path: path.as_posix())


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("source", help="folder of frame folders, or of video files")
    parser.add_argument("out", help="folder to write the flow to")
    parser.add_argument("--layout", choices=tuple(DATASETS), default="kinetics", help="file names, as of this data set")
    parser.add_argument("--videos", action="store_true", help="SOURCE holds video files")
    parser.add_argument("--image_tmpl", help="name of a frame in SOURCE (default: the layout's)")
    parser.add_argument(
        "--method", choices=("dis", "tvl1"), default="dis", help="DIS (fast) or TV-L1, as in the papers"
    )
    parser.add_argument("--bound", type=float, default=20, help="largest flow kept, in pixels")
    parser.add_argument("--height", type=at_least(0), default=0, help="of the flow, in pixels; 0: SOURCE's")
    parser.add_argument("--drop_last", action="store_true", help="write one flow frame less than there are frames")
    add_run_options(parser, timeout_s=14400)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Extract the flow of all videos; returns 1 if any could not be."""
    args = parse_args(argv)
    spec = DATASETS[args.layout]
    image_tmpl = args.image_tmpl or spec.image_tmpl
    root, out = existing_folder(args.source, "videos" if args.videos else "frame folders"), Path(args.out)
    if not args.bound > 0:
        raise InputError(f"--bound {args.bound:g} must be above 0")
    if num_template_fields(spec.flow_tmpl) == 1 and out.resolve() == root.resolve():
        raise InputError(f"{out}: this layout's flow needs a folder of its own, beside the one of the frames")
    flow_function(args.method)  # say what is missing now, not once a video
    sources = find_videos(root) if args.videos else find_frame_folders(root, image_tmpl)
    if not sources:
        raise InputError(f"{root}: no video files in it")
    given = vars(args) | {"image_tmpl": image_tmpl, "flow_tmpl": spec.flow_tmpl}
    options = FlowOptions(**{field.name: given[field.name] for field in dataclasses.fields(FlowOptions)})
    jobs = [(root / source, out / (source.with_suffix("") if args.videos else source)) for source in sources]
    results = run_extraction(functools.partial(extract_flow, options=options), jobs, args)
    print_counts(results)
    return report("videos with flow", sources, results)


if __name__ == "__main__":
    run_command(main)
