"""Figures and tables that a person looks at: confusion matrices, training curves, a comparison of runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ops.common.errors import InputError
from ops.common.files import atomic_path, check_writable
from ops.common.metrics import per_class_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELLED_CLASSES = 60  # beyond this, class names on the axes are unreadable
_NUMBERED_CLASSES = 20  # beyond this, numbers in the cells are
SHOWN_CLASSES = 10  # that a terminal shows of the best and of the worst


Rows = Sequence[Mapping[str, float | None]]  # a run's epochs, as `ops.training.log.read_epochs` gives them


def class_names_or_numbers(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """`class_names` where there is one for each class, else '0', '1', ..."""
    if class_names is not None and len(class_names) == num_classes:
        return list(class_names)
    return [str(index) for index in range(num_classes)]


def check_can_plot(folder: str | Path) -> None:
    """Find out now, and not after the last epoch, whether figures can be drawn and written.

    Raises:
        InputError: they cannot.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plots needs matplotlib: pip install -r requirements.txt")
    check_writable(Path(folder), "see --plots")


def per_class_table(matrix: np.ndarray, class_names: Sequence[str] | None, *, most: int | None = None) -> str:
    """A line for each class that occurs: videos, right ones, accuracy, and the class it is most often taken for.

    Args:
        matrix: counts (K, K), a row for each true class.
        class_names: K names, or None for numbers.
        most: list only so many of the best and of the worst classes, best first, where that is shorter.
    """
    matrix = np.asarray(matrix)
    names = class_names_or_numbers(class_names, len(matrix))
    accuracy = per_class_accuracy(matrix).numpy()
    width = max([len("class"), *(len(name) for name in names)])

    def line(index: int) -> str:
        wrong = matrix[index].copy()
        wrong[index] = 0
        taken_for = f"{names[int(wrong.argmax())]} ({int(wrong.max())})" if wrong.any() else "-"
        return (
            f"{names[index]:<{width}}  {int(matrix[index].sum()):>6}  {int(matrix[index, index]):>5}"
            f"  {100 * float(accuracy[index]):>7.2f}%  {taken_for}"
        )

    occurring = np.flatnonzero(matrix.sum(axis=1))
    header = f"{'class':<{width}}  videos  right  accuracy  most often taken for"
    if most is None or len(occurring) <= 2 * most:
        return "\n".join([header, *map(line, occurring)])
    ranked = occurring[np.argsort(-accuracy[occurring], kind="stable")]
    left_out = f"... {len(ranked) - 2 * most} classes between ..."
    return "\n".join([header, *map(line, ranked[:most]), left_out, *map(line, ranked[-most:])])


def confusion_png(
    matrix: np.ndarray, class_names: Sequence[str] | None, path: str | Path, *, title: str = "Confusion matrix"
) -> None:
    """Draw counts (K, K), a row for each true class, as shares of the row.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    matrix = np.asarray(matrix)
    side = min(4.0 + 0.3 * len(matrix), 16.0)
    figure = _figure(side + 1.0, side)
    _draw_confusion(figure.add_subplot(), matrix, class_names, title)
    _save(figure, path)


def curves_png(rows: Rows, path: str | Path, *, title: str = "Training") -> None:
    """Draw a run's top-1 accuracy and loss over its epochs.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    figure = _figure(11.0, 4.5)
    figure.suptitle(title)
    _draw_curves(figure.subplots(1, 2), {"": rows})
    _save(figure, path)


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
    figure = _figure(7.5, 5.0)
    axes = figure.add_subplot()
    for number, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(x, y, color=f"C{number}", marker="o", markersize=4, label=name)
    for number, (name, level) in enumerate((levels or {}).items(), start=len(lines)):
        axes.axhline(level, color=f"C{number}", linestyle="--", label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=ylim)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


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
    figure = _figure(6.5 * max(2, len(matrices)), 10.5)
    if title:
        figure.suptitle(title, fontsize=15)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.0, 1.5))
    _draw_curves(upper.subplots(1, 2), runs)
    axes = lower.subplots(1, len(matrices), squeeze=False)[0]
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        matrix = np.asarray(matrix)
        right = 100.0 * np.trace(matrix) / max(matrix.sum(), 1)
        _draw_confusion(ax, matrix, class_names, f"{name}: {right:.1f} % right")
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install -r requirements.txt") from error
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, and leaves no global state behind
    return figure


def _draw_confusion(axes: Axes, matrix: np.ndarray, class_names: Sequence[str] | None, title: str) -> None:
    num_classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04, label="share of the true class")
    axes.set(title=title, xlabel="predicted", ylabel="true")
    if num_classes <= _LABELLED_CLASSES:
        # '$' would start a formula: labels are names of a data set, taken as they are.
        names = [name.replace("$", r"\$") for name in class_names_or_numbers(class_names, num_classes)]
        size = 9 if num_classes <= _NUMBERED_CLASSES else 6
        axes.set_xticks(range(num_classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(num_classes), names, fontsize=size)
    if num_classes <= _NUMBERED_CLASSES:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(int(matrix[row, column])), ha="center", va="center", color=colour, fontsize=8)


def _draw_curves(axes: Sequence[Axes], runs: Mapping[str, Rows]) -> None:
    """Accuracy and loss of each run over its epochs, on two axes; a colour a run, dashes for training."""
    for ax, column, label in ((axes[0], "top1", "top-1 accuracy (%)"), (axes[1], "loss", "loss")):
        for number, (name, rows) in enumerate(runs.items()):
            for phase, word, style in (("train", "training", "--"), ("test", "validation", "-")):
                # An epoch has no validation unless --eval-freq says so.
                points = [(row["epoch"], row[f"{phase}_{column}"]) for row in rows]
                points = [point for point in points if point[1] is not None]
                if points:
                    label_text = f"{name} {word}".strip()
                    marker = "o" if len(points) == 1 else None
                    ax.plot(*zip(*points, strict=True), style, color=f"C{number}", marker=marker, label=label_text)
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if ax.lines:
            ax.legend()


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight")
    except OSError as error:
        raise InputError(f"cannot write the figure {path}: {error.strerror or error}") from error
