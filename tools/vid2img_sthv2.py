"""The videos of something-something v2 (webm files) -> folders of JPEG frames at height 256.

    python tools/vid2img_sthv2.py 20bn-something-something-v2 data/something/v2/20bn-something-something-v2-frames

    VIDEO_ROOT/78687.webm -> OUT_ROOT/78687/000001.jpg ...

A second run skips finished videos and redoes half-written ones. Videos that cannot be read whole are reported at the
end, and the exit status is 1.
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
    return vid2img(argv, doc=__doc__, height=256, image_tmpl="{:06d}.jpg", flat=True)


if __name__ == "__main__":
    run_command(main)
