"""Small data for tests: frame folders, video files, whole data set trees, and the commands as a user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]


def make_frames(num_frames: int, size: tuple[int, int] = (40, 30), seed: int = 0) -> np.ndarray:
    """Smooth coloured frames, uint8 (F, H, W, 3), every one different; size is (width, height)."""
    rng = np.random.RandomState(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    phase, slope = rng.uniform(0, 6.28, 3), rng.uniform(1, 3, (3, 2))
    frames = []
    for f in range(num_frames):
        waves = [np.sin(phase[c] + slope[c, 0] * x / width + slope[c, 1] * y / height + 0.3 * f) for c in range(3)]
        frames.append(np.stack(waves, axis=-1) * 100 + 128)
    return np.stack(frames).astype(np.uint8)


def make_frame_folder(
    path: Path,
    num_frames: int,
    size: tuple[int, int] = (40, 30),
    tmpl: str = "img_{:05d}.jpg",
    seed: int = 0,
) -> np.ndarray:
    """Write frames 1 to F as files; returns them, uint8 (F, H, W, 3).

    A template with a field for the axis (`flow_{}_{:05d}.jpg`, `{:06d}-{}_{:05d}.jpg`) gets one grey file an axis: the
    red channel as x, the green one as y. A .png template keeps the values exactly.
    """
    path.mkdir(parents=True, exist_ok=True)
    frames = make_frames(num_frames, size, seed)
    num_fields = tmpl.count("{")
    for number, frame in enumerate(frames, start=1):
        if num_fields == 1:
            Image.fromarray(frame).save(path / tmpl.format(number), quality=95)
            continue
        for channel, axis in enumerate("xy"):
            values = (axis, number) if num_fields == 2 else (int(path.name), axis, number)
            Image.fromarray(frame[:, :, channel]).save(path / tmpl.format(*values), quality=95)
    return frames


def make_packed_flow(frames: Path, flow: Path) -> None:
    """Copy the frame folders below `frames` to `flow`, as packed flow: red as x, green as y, blue empty."""
    for path in frames.rglob("img_*"):
        picture = np.array(Image.open(path))
        picture[..., 2] = 0
        target = flow / path.relative_to(frames)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target, quality=95)


def make_list(path: Path, lines: Sequence[tuple[str, int, int]]) -> Path:
    """Write a list of (path, num_frames, label)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {num_frames} {label}\n" for name, num_frames, label in lines), encoding="utf-8")
    return path


def make_kinetics_tree(
    root: Path,
    num_videos: int = 4,
    num_frames: int = 6,
    size: tuple[int, int] = (40, 30),
    num_classes: int = 2,
    seed: int = 0,
) -> Path:
    """A data set root with `kinetics/images` and `kinetics/labels`: `num_videos` a subset, labels in turn.

    Use with `--root_dataset ROOT --num_class NUM_CLASSES`. Video v of a subset is `{subset}/class {c}/video_{v}`.
    """
    for offset, subset in enumerate(("train", "val")):
        lines = []
        for video in range(num_videos):
            label = video % num_classes
            name = f"{subset}/class {label}/video_{video}"
            folder = root / "kinetics" / "images" / name
            make_frame_folder(folder, num_frames, size, seed=seed + offset * num_videos + video)
            lines.append((name, num_frames, label))
        make_list(root / "kinetics" / "labels" / f"{subset}_videofolder.txt", lines)
    names = "".join(f"class {label}\n" for label in range(num_classes))
    (root / "kinetics" / "labels" / "category.txt").write_text(names, encoding="utf-8")
    return root


def make_video(path: Path, frames: np.ndarray, fps: int = 25, codec: str = "mpeg4") -> Path:
    """Write uint8 (F, H, W, 3) as a video file; width and height must be even."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def run_cli(
    args: Sequence[str | Path],
    *,
    cwd: Path = PROJECT,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands, such as ["main.py", "kinetics", "RGB", ...], with this Python, one thread."""
    script, *rest = [str(arg) for arg in args]
    command = [sys.executable, script if script.startswith("-") else str(PROJECT / script), *rest]
    full_env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=full_env, capture_output=True, text=True, timeout=timeout)


def torchrun_worker(agent: int, local_rank: int = 0) -> int:
    """Process id of a worker of the torchrun whose process id is `agent` (found through /proc)."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int(re.search(r"PPid:\s+(\d+)", (path / "status").read_text())[1])
            if parent == agent and f"\0LOCAL_RANK={local_rank}\0".encode() in (path / "environ").read_bytes():
                return int(path.name)
    raise AssertionError(f"torchrun {agent} has no worker of local rank {local_rank}")
