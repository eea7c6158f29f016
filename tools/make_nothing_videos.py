"""Add a class `nothing` to moving digits: videos in which no digit does what the other classes are about.

    python tools/make_moving_digits.py --out data/digits/videos
    python tools/make_nothing_videos.py --out data/digits/videos      # the same folder

Digits that stay where they are; photographs (scikit-learn's two, and the portrait that matplotlib ships), still and as
a hand-held camera sees them; pieces of photographs that move over others; noise; cuts and fades from one to another. A
network that never saw such pictures gives one of the eight movements to each of them, with certainty.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ops.common.errors import InputError, at_least, counted, run_command
from ops.opts import ShowDefaults
from tools.make_moving_digits import PAIRS, SPLITS, render, sample_scene, video_codec, write_video
from tools.shared.files import read_text
from tools.shared.jobs import add_jobs_option, run_jobs
from tools.shared.report import report

NOTHING = "nothing"
_PHOTO_SIDE = 200  # pixels of a photograph's short side
_PIECE_SIDE = 60


@functools.lru_cache(maxsize=2)
def _photos(split: str) -> list[np.ndarray]:
    """Photographs uint8 (H, W, 3), mirrored at their sides: left halves and the portrait, or right halves."""
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(photo) for photo in load_sample_images().images]
    edges = [(0, photo.width // 2) if split == "train" else (photo.width // 2, photo.width) for photo in whole]
    images = [photo.crop((left, 0, right, photo.height)) for photo, (left, right) in zip(whole, edges, strict=True)]
    if split == "train":
        with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
            images.append(portrait.convert("RGB"))
    small = []
    for image in images:
        scale = _PHOTO_SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        small.append(np.pad(np.asarray(image), ((100, 100), (100, 100), (0, 0)), mode="symmetric"))
    return small


def _window(picture: np.ndarray, x: float, y: float, side: float, angle: float, size: int) -> np.ndarray:
    """A turned square of a picture around (x, y), all in its pixels: uint8 (size, size, 3)."""
    zoom = side / size
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix = (cos, -sin, x - (cos - sin) * size / 2, sin, cos, y - (sin + cos) * size / 2)
    image = Image.fromarray(picture)
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _change_colours(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Another exposure: contrast, brightness and tint, the same for all frames; float32 (F, H, W, 3)."""
    gain, offset = rng.uniform(0.35, 1.2), rng.uniform(-30, 40)
    mixed = frames.astype(np.float32)
    if rng.random() < 0.3:
        mixed = mixed.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return mixed * gain * rng.uniform(0.85, 1.15, size=3).astype(np.float32) + np.float32(offset)


def camera(rng: np.random.Generator, split: str, size: int, num_frames: int) -> np.ndarray:
    """A photograph, still or seen by a moving camera: float32 (F, size, size, 3)."""
    photo = _photos(split)[rng.integers(len(_photos(split)))]
    height, width = photo.shape[:2]
    x, y = rng.uniform(80, width - 80), rng.uniform(80, height - 80)
    moves = rng.choice([0.0, 0.3, 1.0])  # a tripod, a hand, a swing
    end = moves * rng.uniform(-1, 1, size=4) * (60, 60, 0.5, 0.4)
    log_side = math.log(rng.uniform(50, 150))
    shake = np.cumsum(rng.normal(0, 0.7, size=(num_frames, 2)), axis=0) * (moves > 0)
    way = np.linspace(-0.5, 0.5, num_frames)
    frames = [
        _window(photo, x + t * end[0] + dx, y + t * end[1] + dy, math.exp(log_side + t * end[2]), t * end[3], size)
        for t, (dx, dy) in zip(way, shake, strict=True)
    ]
    return _change_colours(rng, np.stack(frames))


def _piece(rng: np.random.Generator) -> Image.Image:
    """The shape of a thing: a soft ellipse, or a polygon of 5 to 9 corners."""
    shape = Image.new("L", (_PIECE_SIDE, _PIECE_SIDE))
    pen, half = ImageDraw.Draw(shape), _PIECE_SIDE / 2
    if rng.random() < 0.5:
        wide, high = rng.uniform(0.3, 0.8, size=2) * half
        pen.ellipse((half - wide, half - high, half + wide, half + high), fill=255)
    else:
        angles = np.sort(rng.uniform(0, 2 * math.pi, size=rng.integers(5, 10)))
        radii = rng.uniform(0.3, 0.9, size=len(angles)) * half
        pen.polygon([(half + r * math.cos(a), half + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)], 255)
    return shape.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2)))


def things(rng: np.random.Generator, split: str, size: int, num_frames: int) -> np.ndarray:
    """One to three pieces of photographs that move over another one: float32 (F, size, size, 3)."""
    frames = camera(rng, split, size, num_frames)
    for _ in range(rng.integers(1, 4)):
        mask, texture = _piece(rng), camera(rng, split, size, 2)[0]
        # As far as digits move: shifts of half the picture, sizes times 2.5, turns by 2.5 radians.
        change = rng.uniform(-1, 1, size=4) * (0.5, 0.5, 0.9, 2.5) * (rng.random(4) < 0.5)
        x, y, log_side = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), math.log(rng.uniform(0.4, 1.0))
        for frame, t in zip(frames, np.linspace(-0.5, 0.5, num_frames), strict=True):
            zoom = _PIECE_SIDE / (size * math.exp(log_side + t * change[2]))
            cos, sin = zoom * math.cos(t * change[3]), zoom * math.sin(t * change[3])
            right, down = size * (x + t * change[0]), size * (y + t * change[1])
            half = _PIECE_SIDE / 2
            matrix = (cos, -sin, half - cos * right + sin * down, sin, cos, half - sin * right - cos * down)
            place = mask.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
            cover = np.asarray(place, np.float32)[..., None] / 255
            frame += cover * (texture - frame)
    return frames


def unmoving_digit(rng: np.random.Generator, split: str, size: int, num_frames: int) -> np.ndarray:
    """A digit as the other classes show it, that stays where it is: float32 (F, size, size, 3)."""
    scene = sample_scene(rng, int(rng.integers(len(PAIRS))), split, size=size, num_frames=num_frames)
    return render(dataclasses.replace(scene, end=scene.start)).astype(np.float32)


def noise(rng: np.random.Generator, split: str, size: int, num_frames: int) -> np.ndarray:
    """Noise of one grain, the same or another one in every frame, or one colour: float32 (F, size, size, 3)."""
    cells = int(rng.choice([1, 2, 5, 12, 30, size]))
    count = num_frames if rng.random() < 0.5 else 1
    pictures = []
    for _ in range(count):
        grain = Image.fromarray(rng.integers(0, 256, size=(cells, cells, 3), dtype=np.uint8))
        pictures.append(np.asarray(grain.resize((size, size), Image.Resampling.BICUBIC), np.float32))
    colour, contrast = rng.uniform(10, 230, size=3), rng.uniform(0.02, 0.8)
    flicker = 1 + rng.uniform(0, 0.2) * rng.standard_normal((num_frames, 1, 1, 1))
    frames = (np.stack(pictures) - 128) * contrast + colour
    return (np.broadcast_to(frames, (num_frames, *frames.shape[1:])) * flicker).astype(np.float32)


def cut(rng: np.random.Generator, split: str, size: int, num_frames: int) -> np.ndarray:
    """A cut or a fade from one of the others to another one: float32 (F, size, size, 3)."""
    first, second = (KINDS[rng.integers(len(KINDS) - 1)](rng, split, size, num_frames) for _ in range(2))
    length = rng.choice([0.01, 0.5])  # of the video
    share = (np.linspace(0, 1, num_frames) - rng.uniform(0.2, 0.8)) / length + 0.5
    share = np.clip(share, 0, 1)[:, None, None, None].astype(np.float32)
    return (1 - share) * first + share * second


KINDS = (unmoving_digit, camera, things, noise, cut)


def nothing_video(split: str, number: int, *, seed: int, size: int, frames: tuple[int, int]) -> np.ndarray:
    """Video `number` of a split, uint8 (F, size, size, 3): everything follows from (seed, split, number)."""
    rng = np.random.default_rng([seed, len(SPLITS) + SPLITS.index(split), number])  # other numbers than the digits'
    num_frames = int(rng.integers(frames[0], frames[1] + 1))
    video = KINDS[number % len(KINDS)](rng, split, size, num_frames)
    return np.clip(video + 0.5, 0, 255).astype(np.uint8)


def _make_video(job: tuple[str, int], *, out: Path, seed: int, size: int, frames: tuple[int, int], codec: str) -> None:
    """Write one video, unless it is there."""
    split, number = job
    path = out / split / NOTHING / f"{number:05d}.mp4"
    if not path.exists():
        write_video(path, nothing_video(split, number, seed=seed, size=size, frames=frames), codec)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ShowDefaults)
    parser.add_argument("--out", default="data/moving_digits/videos", type=Path, help="folder with the moving digits")
    parser.add_argument("--train", type=at_least(0), default=900, metavar="N", help="training videos")
    parser.add_argument("--val", type=at_least(0), default=120, metavar="N", help="validation videos")
    add_jobs_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Add the class; a second run only adds what is missing."""
    args = parse_args(argv)
    options = args.out / "moving_digits.json"
    if not options.is_file():
        raise InputError(f"{args.out}: holds no moving digits: first run tools/make_moving_digits.py --out {args.out}")
    made = json.loads(read_text(options))
    for split in SPLITS:
        (args.out / split / NOTHING).mkdir(parents=True, exist_ok=True)
    jobs = [("train", number) for number in range(args.train)] + [("val", number) for number in range(args.val)]
    same = {"seed": made["seed"], "size": made["size"], "frames": tuple(made["frames"])}
    work = functools.partial(_make_video, out=args.out, **same, codec=video_codec())
    results = run_jobs(work, jobs, jobs=args.jobs, label="nothing")
    status = report("videos ready", [f"{split} video {number}" for split, number in jobs], results)
    print(f"{args.out}: {counted(args.train, 'training video')}, {counted(args.val, 'validation video')} of {NOTHING}")
    return status


if __name__ == "__main__":
    run_command(main)
