"""Make a small video data set in which only the order of the frames tells the classes apart.

Real handwritten digits (scikit-learn's) move over textured backgrounds. Eight classes in four pairs; every scene makes
two videos, forwards for one class of its pair and backwards for the other. Both hold the same pictures, so that a
network that does not see order gives both the same answer and is right for half of them at most.

Each frame is coded on its own (key frames only, constant quantiser): a decoded picture depends on its content alone,
and compression does not show the direction.

    OUT/{train,val}/<class>/<number>.mp4        25 frames/s, the folders that tools/vid2img_kinetics.py expects
    OUT/moving_digits.json                      the options it was made with
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, at_least, counted, escaped, run_command
from ops.common.files import atomic_path, write_lines
from ops.opts import ShowDefaults
from tools.shared.files import read_text
from tools.shared.jobs import add_jobs_option, run_jobs
from tools.shared.report import report

# (what happens forwards, the same video backwards)
PAIRS = (
    ("moves_right", "moves_left"),
    ("moves_down", "moves_up"),
    ("grows", "shrinks"),
    ("turns_clockwise", "turns_counterclockwise"),
)
CLASSES = tuple(sorted(name for pair in PAIRS for name in pair))  # in the order of the labels
TIME_REVERSED = {**dict(PAIRS), **{backward: forward for forward, backward in PAIRS}}

FRAMES_PER_SECOND = 25
DIGIT_SOURCE_PX = 40
# load_digits holds 1797 digits in the order of their writers: the last fifth is for validation.
VAL_DIGITS_FROM = 1437
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Scene:
    """What a video shows, forwards. Lengths are in units of the picture's side, angles in radians.

    `start`/`end` are (x, y, log height, angle) of the digit; `ease` bends the way from one to the other, symmetrically
    in time.
    """

    split: str
    digit: int
    num_frames: int
    size: int
    start: tuple[float, float, float, float]
    end: tuple[float, float, float, float]
    ease: float
    colours: np.ndarray  # (2, 3) RGB 0-255 of the digit at its top and bottom
    opacity: float
    background_seed: int
    background_colour: np.ndarray  # (3,)
    background_contrast: float
    photo: bool


@functools.lru_cache(maxsize=1)
def _digits() -> list[Image.Image]:
    """The 1797 digits as smooth grey images with a margin, DIGIT_SOURCE_PX a side."""
    from sklearn.datasets import load_digits

    images = []
    for digit in load_digits().images:  # (8, 8), 0..16
        small = Image.fromarray(np.pad(digit * (255 / 16), 1).astype(np.uint8))
        large = np.asarray(small.resize((DIGIT_SOURCE_PX, DIGIT_SOURCE_PX), Image.Resampling.BICUBIC), np.float32)
        images.append(Image.fromarray(np.clip((large - 70) * 2.2, 0, 255).astype(np.uint8)))
    return images


@functools.lru_cache(maxsize=1)
def _photos() -> list[np.ndarray]:
    """scikit-learn's two sample photographs, uint8 (H, W, 3)."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def split_digits(split: str) -> range:
    """Numbers of the digits that the videos of a split show; no digit is in both."""
    return range(VAL_DIGITS_FROM) if split == "train" else range(VAL_DIGITS_FROM, 1797)


def sample_scene(rng: np.random.Generator, pair: int, split: str, *, size: int, num_frames: int) -> Scene:
    """Draw a scene for a pair of classes: the digit half-way, and start and end at equal distances from there."""
    x, y = rng.uniform(0.32, 0.68, size=2)
    log_height = math.log(rng.uniform(0.42, 0.6))
    angle = rng.uniform(-0.35, 0.35)
    # From start to end: a little of what other classes do, either way.
    change = rng.uniform(-1, 1, size=4) * (0.06, 0.06, 0.08, 0.12)
    kind = PAIRS[pair][0]
    if kind == "moves_right":
        x, change[0] = rng.uniform(0.42, 0.58), rng.uniform(0.35, 0.55)
    elif kind == "moves_down":
        y, change[1] = rng.uniform(0.42, 0.58), rng.uniform(0.35, 0.55)
    elif kind == "grows":
        log_height, change[2] = math.log(rng.uniform(0.4, 0.5)), math.log(rng.uniform(1.9, 2.8))
    else:
        # y points down in a picture, so that a growing angle turns clockwise for the viewer.
        angle, change[3] = rng.uniform(-math.pi, math.pi), rng.uniform(1.8, 3.0)
    middle = np.array([x, y, log_height, angle])

    # Light digits on dark backgrounds: finding the digit is to be easy.
    background = rng.uniform(20, 110, size=3)
    colours = np.clip(rng.uniform(150, 255, size=(1, 3)) + rng.uniform(-30, 30, size=(2, 3)), 0, 255)
    return Scene(
        split=split,
        digit=int(rng.choice(split_digits(split))),
        num_frames=num_frames,
        size=size,
        start=tuple(middle - change / 2),
        end=tuple(middle + change / 2),
        ease=float(rng.uniform(-0.4, 0.4)),
        colours=colours,
        opacity=float(rng.uniform(0.75, 1.0)),
        background_seed=int(rng.integers(2**31)),
        background_colour=background,
        background_contrast=float(rng.uniform(6, 24)),
        photo=bool(rng.random() < 0.5),
    )


def _background(scene: Scene) -> np.ndarray:
    """float32 (size, size, 3): a crop of a photograph (each split has its own half) or noise of several octaves."""
    rng = np.random.default_rng(scene.background_seed)
    size = scene.size
    if scene.photo:
        photo = _photos()[rng.integers(2)]
        half = photo.shape[1] // 2
        photo = photo[:, :half] if scene.split == "train" else photo[:, half:]
        largest = min(photo.shape[:2])
        side = int(rng.integers(min(size, largest), largest + 1))
        top, left = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        texture = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    else:
        texture = np.zeros((size, size, 3), np.float32)
        for cells in (3, 6, 12, 24):
            noise = rng.uniform(-1, 1, size=(cells, cells, 3)).astype(np.float32)
            for channel in range(3):
                layer = Image.fromarray(noise[:, :, channel]).resize((size, size), Image.Resampling.BICUBIC)
                texture[:, :, channel] += np.asarray(layer) / cells**0.5
    texture = (texture - texture.mean((0, 1))) / (texture.std() + 1e-6)
    return scene.background_colour.astype(np.float32) + scene.background_contrast * texture


def render(scene: Scene) -> np.ndarray:
    """The video forwards: uint8 (num_frames, size, size, 3) RGB. The pair's other class is its `[::-1]`."""
    size, digit, centre = scene.size, _digits()[scene.digit], DIGIT_SOURCE_PX / 2
    time = np.linspace(0, 1, scene.num_frames)
    way = time + scene.ease * np.sin(2 * math.pi * time) / (2 * math.pi)  # way(1 - t) = 1 - way(t)
    states = np.outer(1 - way, scene.start) + np.outer(way, scene.end)  # (F, 4)
    masks = np.empty((scene.num_frames, size, size), np.float32)
    for mask, (x, y, log_height, angle) in zip(masks, states, strict=True):
        # From a pixel of the video back to one of the digit: shift to the centre, turn back, scale.
        zoom = DIGIT_SOURCE_PX / (math.exp(log_height) * size)
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        right, down = centre - cos * x * size - sin * y * size, centre + sin * x * size - cos * y * size
        matrix = (cos, sin, right, -sin, cos, down)
        mask[:] = digit.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    masks *= scene.opacity / 255
    below = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    top, bottom = scene.colours.astype(np.float32)
    ink = (1 - below) * top + below * bottom  # (size, 1, 3)
    background = _background(scene)
    frames = background + masks[..., None] * (ink - background)  # (F, size, size, 3)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def video_codec() -> str:
    """The encoder to use: H.264, else MPEG-4."""
    for name in ("libx264", "mpeg4"):
        if name in av.codecs_available:
            return name
    raise InputError("PyAV was built without libx264 and mpeg4: install the av wheel of PyPI (pip install av)")


def write_video(path: Path, frames: np.ndarray, codec: str) -> None:
    """Write uint8 (F, H, W, 3) RGB frames as mp4, whole or not at all, each frame coded on its own; H and W even."""
    options = {"libx264": {"preset": "veryfast", "qp": "18", "bf": "0"}, "mpeg4": {"qmin": "3", "qmax": "3"}}[codec]
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.codec_context.gop_size = 1
        stream.codec_context.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def scene_of(split: str, number: int, *, seed: int, size: int, frames: tuple[int, int]) -> Scene:
    """Scene `number` of a split: everything follows from (seed, split, number)."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    num_frames = int(rng.integers(frames[0], frames[1] + 1))
    return sample_scene(rng, number % len(PAIRS), split, size=size, num_frames=num_frames)


def video_path(split: str, video: int) -> Path:
    """Path of a video below the output folder: videos 2k and 2k+1 are scene k, forwards and backwards."""
    return Path(split) / PAIRS[video // 2 % len(PAIRS)][video % 2] / f"{video:05d}.mp4"


def _make_scene(
    job: tuple[str, int, int], *, out: Path, seed: int, size: int, frames: tuple[int, int], codec: str
) -> int:
    """Write the videos of one scene that are not there yet; returns how many were written."""
    split, number, num_videos = job
    missing = [v for v in (2 * number, 2 * number + 1) if v < num_videos and not (out / video_path(split, v)).exists()]
    if missing:
        forwards = render(scene_of(split, number, seed=seed, size=size, frames=frames))
        for video in missing:
            write_video(out / video_path(split, video), forwards[::-1] if video % 2 else forwards, codec)
    return len(missing)


def _check_options(out: Path, options: dict) -> None:
    """Keep the options beside the videos; refuse to mix two data sets in one folder."""
    path = out / "moving_digits.json"
    text = json.dumps(options, indent=1)
    if path.exists() and read_text(path).strip() != text:
        raise InputError(f"{out} holds moving digits made with other options ({path.name}): give another --out")
    write_lines(path, [text])


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("--out", default="data/moving_digits/videos", help="folder to write")
    parser.add_argument("--train", type=at_least(0), default=2400, metavar="N", help="training videos")
    parser.add_argument("--val", type=at_least(0), default=480, metavar="N", help="validation videos")
    parser.add_argument("--size", type=at_least(16), default=80, help="pixels a side, even")
    # Not 32: where segments divide the frames, the middle of a segment is not its own mirror image.
    parser.add_argument(
        "--frames", type=at_least(2), nargs=2, default=[24, 31], metavar=("MIN", "MAX"), help="frames a video"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of all random choices")
    add_jobs_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data set; a second run only adds what is missing."""
    args = parse_args(argv)
    if args.size % 2:
        raise InputError(f"--size {args.size} is odd: video needs an even side")
    if args.frames[0] > args.frames[1]:
        raise InputError(f"--frames {args.frames[0]} {args.frames[1]}: the first must not be the larger")
    out, codec, frames = Path(args.out), video_codec(), tuple(args.frames)
    num_videos = {"train": args.train, "val": args.val}
    _check_options(out, {"seed": args.seed, "size": args.size, "frames": list(frames), "codec": codec})
    for split, videos in num_videos.items():
        for video in range(min(videos, len(CLASSES))):
            (out / video_path(split, video)).parent.mkdir(parents=True, exist_ok=True)
    jobs = [(split, scene, videos) for split, videos in num_videos.items() for scene in range((videos + 1) // 2)]
    _digits(), _photos()  # loaded once, shared by the workers
    work = functools.partial(_make_scene, out=out, seed=args.seed, size=args.size, frames=frames, codec=codec)
    results = run_jobs(work, jobs, jobs=args.jobs, label="moving digits (scenes)")
    status = report("scenes ready", [f"{split} scene {number}" for split, number, _ in jobs], results)
    videos = f"{counted(args.train, 'training video')}, {counted(args.val, 'validation video')}"
    print(escaped(f"{out}: {videos} of {len(CLASSES)} classes ({codec})"))
    return status


if __name__ == "__main__":
    run_command(main)
