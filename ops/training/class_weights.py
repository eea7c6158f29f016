"""Weights of the classes in the loss, for data sets whose classes differ much in size (`--class_weights`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ops.common.errors import InputError, counted


def class_weights(asked: str, labels: Sequence[int], num_class: int) -> tuple[float, ...] | None:
    """The weight of each class, such that the mean over the training clips is 1: the learning rate need not change.

    Args:
        asked: "" for none; "auto" for the inverse of each class's number of clips, so that all classes count the same;
            or a file with a number for each class, a line each in label order, of which only the ratios matter.
        labels: classes of the training clips.

    Returns:
        num_class weights, or None without. Example: "auto", labels 0 0 0 1 -> (2/3, 2).

    Raises:
        InputError: the file cannot be read, or does not hold a positive number for each class.
    """
    if not asked:
        return None
    counts = np.bincount(labels, minlength=num_class)
    # A class without clips has no part in the loss.
    weights = 1.0 / np.maximum(counts, 1) if asked == "auto" else np.array(_read(asked, num_class))
    return tuple((weights * counts.sum() / (weights * counts).sum()).tolist())


def _read(path: str, num_class: int) -> list[float]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file.read().rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"cannot read --class_weights {path}: {reason} (or give auto)") from error
    weights = []
    for number, line in enumerate(lines, 1):
        try:
            weight = float(line)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise InputError(f"{path}:{number}: {line!r} is not a number above 0, the weight of class {number - 1}")
        weights.append(weight)
    if len(weights) != num_class:
        raise InputError(
            f"{path} has {counted(len(weights), 'weight')} for {counted(num_class, 'class', 'classes')}: "
            "give a line for each, in label order"
        )
    return weights
