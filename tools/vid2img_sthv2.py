"""The webm files of something-something v2 -> folders of JPEG frames at height 256.

    python tools/vid2img_sthv2.py 20bn-something-something-v2 data/something/v2/20bn-something-something-v2-frames

    VIDEO_ROOT/78687.webm -> OUT_ROOT/78687/000001.jpg ...

Run again after a stop: finished videos are passed over, half-written ones redone. Videos that cannot be read whole are
reported at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.extraction import add_extraction_options, extract_all, print_counts
from tools.shared.jobs import existing_folder, find_videos, report, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Extract all webm files; returns 1 if any could not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video_root", help="folder of the webm files")
    parser.add_argument("out_root", help="folder to write a folder of frames for each video to")
    add_extraction_options(parser, height=256)
    args = parser.parse_args(argv)
    root, out = existing_folder(args.video_root, "webm files"), Path(args.out_root)
    videos = [video for video in find_videos(root) if video.suffix.lower() == ".webm"]
    if not videos:
        raise InputError(f"{shown(root)}: no .webm files in it")
    results = extract_all(args, [(root / video, out / video.stem) for video in videos], "{:06d}.jpg")
    print_counts(results)
    return report("videos extracted", videos, results)


if __name__ == "__main__":
    run_command(main)
