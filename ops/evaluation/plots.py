"""Figures: confusion matrices, training curves, a comparison of runs, the worst clips."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ops.common.errors import InputError
from ops.common.files import atomic_path, check_writable
from ops.evaluation.tables import class_names_or_numbers, write_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERED_CLASSES = 20  # beyond this, numbers in the cells are unreadable
_DPI = 110

Rows = Sequence[Mapping[str, float | None]]  # a run's epochs, as `ops.training.log.read_epochs` gives them


def check_can_plot(folder: str | Path) -> None:
    """Find out now, and not after the last epoch, whether figures can be drawn and written.

    Raises:
        InputError: they cannot.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plots needs matplotlib: pip install -r requirements.txt")
    check_writable(Path(folder), "see --plots")


def confusion_png(
    matrix: np.ndarray, class_names: Sequence[str] | None, path: str | Path, *, title: str = "Confusion matrix"
) -> None:
    """Draw counts (K, K), a row for each true class, as shares of the row; the figure grows with K, so that every class
    can be named.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    matrix = np.asarray(matrix)
    side = _confusion_side(len(matrix))
    figure = new_figure(side + 3.0, side + 2.0)
    _draw_confusion(figure.add_subplot(), matrix, class_names, title, side)
    save_png(figure, path)


def write_confusion(matrix: np.ndarray, class_names: Sequence[str] | None, folder: Path) -> str:
    """Write confusion.png, per_class.txt and confused_pairs.txt; return the tables for the terminal."""
    confusion_png(matrix, class_names, folder / "confusion.png")
    return write_tables(matrix, class_names, folder)


def curves_png(rows: Rows, path: str | Path, *, title: str = "Training") -> None:
    """Draw a run's top-1 accuracy and loss over its epochs.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(11.0, 4.5)
    figure.suptitle(title)
    _draw_curves(figure.subplots(1, 2), {"": rows})
    save_png(figure, path)


def lines_png(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | Path,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw named lines, (x, y) each, and named levels as dashed horizontal ones; `ylim` is the range of y to show.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(7.5, 5.0)
    axes = figure.add_subplot()
    for number, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(x, y, color=f"C{number}", marker="o", markersize=4, label=name)
    for number, (name, level) in enumerate((levels or {}).items(), start=len(lines)):
        axes.axhline(level, color=f"C{number}", linestyle="--", label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=ylim)
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path)


def comparison_png(
    runs: Mapping[str, Rows],
    matrices: Mapping[str, np.ndarray],
    class_names: Sequence[str] | None,
    path: str | Path,
    *,
    title: str = "",
) -> None:
    """Draw the curves of several runs above their confusion matrices, in one figure.

    Args:
        runs: name of the net -> rows of its epochs.
        matrices: name of the net -> counts (K, K), a row for each true class.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(6.5 * max(2, len(matrices)), 10.5)
    if title:
        figure.suptitle(title, fontsize=15)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.0, 1.5))
    _draw_curves(upper.subplots(1, 2), runs)
    axes = lower.subplots(1, len(matrices), squeeze=False)[0]
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        matrix = np.asarray(matrix)
        right = 100.0 * np.trace(matrix) / max(matrix.sum(), 1)
        _draw_confusion(ax, matrix, class_names, f"{name}: {right:.1f} % right", side=4.5)
    save_png(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; InputError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install -r requirements.txt") from error
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, and leaves no global state behind
    return figure


def _confusion_side(num_classes: int) -> float:
    """Inches of a matrix in which each class has room for its number, or, of many, for a small line of text."""
    return max(3.0, min(0.35 * num_classes, 7.0), 0.1 * num_classes)


def _draw_confusion(axes: Axes, matrix: np.ndarray, class_names: Sequence[str] | None, title: str, side: float) -> None:
    """side: of the matrix, in inches; names are left out where it has no room for them."""
    num_classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root: a confusion of 4 % is a fifth of the way to black, and can be seen.
    image = axes.imshow(np.sqrt(shares), vmin=0.0, vmax=1.0, cmap="Blues", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, aspect=40, label="share of the true class")
    ticks = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    bar.set_ticks(np.sqrt(ticks), labels=[f"{100 * tick:g} %" for tick in ticks])
    axes.set(title=title, xlabel="predicted", ylabel="true")
    points = 72 * side / num_classes  # height of a row
    if points >= 5:
        size = min(9.0, 0.85 * points)
        names = class_names_or_numbers(class_names, num_classes)
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=size, parse_math=False)
    if num_classes > _NUMBERED_CLASSES:
        # Lines lead the eye from a dark cell to its names.
        axes.set_xticks(np.arange(-0.5, num_classes), minor=True)
        axes.set_yticks(np.arange(-0.5, num_classes), minor=True)
        axes.grid(which="minor", color="0.85", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
        return
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, str(int(matrix[row, column])), ha="center", va="center", color=colour, fontsize=8)


def _draw_curves(axes: Sequence[Axes], runs: Mapping[str, Rows]) -> None:
    """Accuracy and loss of each run over its epochs, on two axes; training and validation in colours of their own."""
    for ax, column, label in ((axes[0], "top1", "top-1 accuracy (%)"), (axes[1], "loss", "loss")):
        for number, (name, rows) in enumerate(runs.items()):
            for phase, word, style, shade in (("test", "validation", "-", 0), ("train", "training", "--", 1)):
                # An epoch has no validation unless --eval-freq says so.
                points = [(row["epoch"], row[f"{phase}_{column}"]) for row in rows]
                points = [point for point in points if point[1] is not None]
                if points:
                    label_text = f"{name} {word}".strip()
                    marker = "o" if phase == "test" or len(points) == 1 else None
                    colour = f"C{2 * number + shade}"
                    ax.plot(
                        *zip(*points, strict=True), style, color=colour, marker=marker, markersize=4, label=label_text
                    )
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if ax.lines:
            ax.legend()


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure, whole or not at all; a missing folder is made. InputError if that cannot be done."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight")
    except OSError as error:
        raise InputError(f"cannot write the figure {path}: {error.strerror or error}") from error
