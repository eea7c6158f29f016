"""Video files in class folders -> folders of JPEG frames, for Kinetics and any data laid out like it.

    python tools/vid2img_kinetics.py VIDEO_ROOT OUT_ROOT

    VIDEO_ROOT/abseiling/0347ZoDXyP0_000095_000105.mp4
    -> OUT_ROOT/abseiling/0347ZoDXyP0_000095_000105/img_00001.jpg ...

Folders above the videos are kept as they are, so that one run does VIDEO_ROOT/{train,val}/<class>/<video> as well. A
second run skips finished videos and redoes half-written ones. Videos that cannot be read whole are reported at the end,
and the exit status is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import run_command
from tools.shared.extraction import vid2img


def main(argv: Sequence[str] | None = None) -> int:
    """Extract all videos; returns 1 if any failed."""
    return vid2img(argv, doc=__doc__, height=331, image_tmpl="img_{:05d}.jpg")


if __name__ == "__main__":
    run_command(main)
