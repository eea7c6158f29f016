"""Draw what the temporal shift does, channels against time: the figure of README.md, made by the shift itself.

python tools/draw_shift.py benchmarks/figures/shift.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from ops.common.errors import run_command
from ops.evaluation.plots import new_figure, save_png
from ops.opts import ShowDefaults
from ops.temporal_shift import TemporalShift

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES, CHANNELS = 5, 8  # with shift_div 8, one channel moves each way


def frame_numbers() -> Tensor:
    """Activations (T, C, 1, 1) whose every value is the number of its frame, from 1 (0 is the shift's padding)."""
    return torch.arange(1.0, FRAMES + 1).view(-1, 1, 1, 1).expand(-1, CHANNELS, 1, 1)


def panels() -> dict[str, Tensor]:
    """Title of each panel -> the frame (C, T) that each channel holds then."""
    x = frame_numbers()
    shifted = {
        "TSN: no shift": x,
        "TSM: both directions": TemporalShift.shift(x, FRAMES, fold_div=8),
        "online TSM: from the past only": TemporalShift.shift(x, FRAMES, fold_div=8, online=True),
    }
    return {title: y[:, :, 0, 0].T for title, y in shifted.items()}


def draw_panel(axes: Axes, origin: Tensor, title: str) -> None:
    """Colour each cell by the frame that its value comes from; what moved is outlined, what is padded is white."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps["viridis"].resampled(FRAMES)
    for channel, row in enumerate(origin.tolist()):
        for frame, number in enumerate(map(int, row), start=1):
            corner = (frame - 0.5, channel - 0.5)
            face = colours(number - 1) if number else "white"
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
            dark = 0 < number < 0.7 * FRAMES
            axes.text(frame, channel, str(number), ha="center", va="center", color="white" if dark else "black")
        if any(number != frame for frame, number in enumerate(row, start=1)):
            axes.add_patch(
                Rectangle((0.5, channel - 0.5), FRAMES, 1, fill=False, edgecolor="crimson", linewidth=2, zorder=3)
            )
    axes.set(xlim=(0.4, FRAMES + 0.6), ylim=(CHANNELS - 0.4, -0.6), title=title, xlabel="frame")
    axes.set_xticks(range(1, FRAMES + 1))
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("png", type=Path, help="file to write")
    args = parser.parse_args(argv)
    figure = new_figure(9.0, 3.6)
    axes = figure.subplots(1, 3)
    for ax, (title, origin) in zip(axes, panels().items(), strict=True):
        draw_panel(ax, origin, title)
    axes[0].set_ylabel("channels, in eighths")
    figure.supxlabel("The number in a cell is the frame that its value comes from; 0 is padding.", fontsize=10)
    save_png(figure, args.png)


if __name__ == "__main__":
    run_command(main)
