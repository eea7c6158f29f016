"""Make the clip that the online demo shows where there is no camera: python tools/make_demo_sample.py

Two videos of each class of the moving digits (tools/make_moving_digits.py), one after the other, of scenes that are in
neither the default training nor the default validation set, at the speed that suits a network which sees every second
frame. Beside the clip, sample.json lists the frames of each class.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ops.common.errors import run_command
from ops.common.files import atomic_path, atomic_write_text
from tools.make_moving_digits import FRAMES_PER_SECOND, PAIRS, render, scene_of, video_codec

SAMPLE = Path(__file__).resolve().parents[1] / "online_demo" / "sample.mp4"
FIRST_SCENE = 100_000  # far beyond those of the data set
NUM_FRAMES = 27  # of a video, as many as those of the data set have on average
VIDEOS_PER_CLASS = 2
SIZE = 160


def make_videos() -> list[tuple[str, np.ndarray]]:
    """(class, uint8 (F, SIZE, SIZE, 3)) of each video, in the order of the clip."""
    videos = []
    for pair, names in enumerate(PAIRS):
        for backwards, name in enumerate(names):
            for number in range(VIDEOS_PER_CLASS):
                scene = FIRST_SCENE + len(PAIRS) * (VIDEOS_PER_CLASS * backwards + number) + pair
                video = render(scene_of("val", scene, seed=0, size=SIZE, frames=(NUM_FRAMES, NUM_FRAMES)))
                videos.append((name, video[::-1] if backwards else video))
    return videos


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Write uint8 (F, H, W, 3) as a small mp4."""
    import av

    codec = video_codec()
    options = {"libx264": {"preset": "slow", "crf": "24"}, "mpeg4": {"qmin": "4", "qmax": "6"}}[codec]
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.codec_context.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SAMPLE, help="default: %(default)s")
    out = parser.parse_args(argv).out
    videos = make_videos()
    write_clip(out, np.concatenate([video for _, video in videos]))
    spans, start = [], 0
    for name, video in videos:
        spans.append({"class": name, "first": start, "stop": start + len(video)})
        start += len(video)
    atomic_write_text(out.with_suffix(".json"), json.dumps(spans, indent=1) + "\n")
    print(f"wrote {out}: {start} frames, {len(videos)} videos, {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    run_command(main)
