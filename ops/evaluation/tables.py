"""Tables of what was taken for what, for the terminal and for text files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ops.common.files import write_lines
from ops.common.metrics import per_class_accuracy

SHOWN_CLASSES = 10  # that a terminal shows of the best and of the worst, and of the pairs


def write_tables(matrix: np.ndarray, class_names: Sequence[str] | None, folder: Path) -> str:
    """Write per_class.txt and confused_pairs.txt; return the shorter form of both, for the terminal."""
    tables = {"per_class.txt": per_class_table, "confused_pairs.txt": confused_pairs_table}
    for name, table in tables.items():
        write_lines(folder / name, [table(matrix, class_names)])
    return "\n\n".join(table(matrix, class_names, most=SHOWN_CLASSES) for table in tables.values())


def class_names_or_numbers(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """`class_names` where there is one for each class, else '0', '1', ..."""
    if class_names is not None and len(class_names) == num_classes:
        return list(class_names)
    return [str(index) for index in range(num_classes)]


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


def confused_pairs_table(matrix: np.ndarray, class_names: Sequence[str] | None, *, most: int | None = None) -> str:
    """A line for each pair of a class and another that it was taken for, the most videos first.

    "of class" is their share of the class's videos; "reverse" counts the videos of the second class that were taken for
    the first.

    Args:
        matrix: counts (K, K), a row for each true class.
        class_names: K names, or None for numbers.
        most: list only so many pairs.
    """
    matrix = np.asarray(matrix)
    names = class_names_or_numbers(class_names, len(matrix))
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    shares = wrong / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Sorting is stable: first by share, then by number.
    order = np.argsort(-shares, axis=None, kind="stable")
    order = order[np.argsort(-wrong.flat[order], kind="stable")][: np.count_nonzero(wrong)]
    width = max([len("taken for"), *(len(name) for name in names)])
    lines = [f"{'class':<{width}}  {'taken for':<{width}}  videos  of class  reverse"]
    for true, answer in zip(*np.unravel_index(order[:most], wrong.shape), strict=True):
        lines.append(
            f"{names[true]:<{width}}  {names[answer]:<{width}}  {wrong[true, answer]:>6}"
            f"  {100 * shares[true, answer]:>7.2f}%  {wrong[answer, true]:>7}"
        )
    left_out = len(order) - (len(lines) - 1)
    return "\n".join(lines + ([f"... {left_out} more ..."] if left_out else []))
