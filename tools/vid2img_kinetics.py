"""Video files in class folders -> folders of JPEG frames, for Kinetics and any data laid out like it.

    VIDEO_ROOT/abseiling/0347ZoDXyP0_000095_000105.mp4
    -> OUT_ROOT/abseiling/0347ZoDXyP0_000095_000105/img_00001.jpg ...

Folders above the videos are kept as they are, so that one run does VIDEO_ROOT/{train,val}/<class>/<video> as well. Run
again after a stop: finished videos are passed over, half-written ones redone. Videos that cannot be read whole are
reported at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import InputError, run_command
from tools.shared.extraction import add_extraction_options, extract_all, frame_folder, print_counts
from tools.shared.jobs import VIDEO_SUFFIXES, existing_folder, find_videos, report, shown


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Extract the frames of all videos below a folder.")
    parser.add_argument("video_root", help="folder of class folders of videos")
    parser.add_argument("out_root", help="folder to write class folders of frame folders to")
    add_extraction_options(parser, height=331)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Extract all videos; returns 1 if any could not be."""
    args = parse_args(argv)
    root, out = existing_folder(args.video_root, "videos"), Path(args.out_root)
    videos = find_videos(root)
    if not videos:
        raise InputError(f"{shown(root)}: no videos ({' '.join(sorted(VIDEO_SUFFIXES))}) in it or its folders")
    results = extract_all(args, [(root / video, out / frame_folder(video)) for video in videos], "img_{:05d}.jpg")
    print_counts(results)
    return report("videos extracted", videos, results)


if __name__ == "__main__":
    run_command(main)
