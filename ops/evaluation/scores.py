"""Scores of the videos of a test set: accuracy, fusion of several nets, the files they are kept in."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ops.common.errors import InputError, is_one_line
from ops.common.files import atomic_path
from ops.common.metrics import confusion_matrix, mean_class_accuracy
from ops.evaluation.tables import class_names_or_numbers
from ops.utils import accuracy


@dataclass(frozen=True)
class Scores:
    """What one net, or a fusion of several, says about M videos.

    Attributes:
        names: M list paths.
        labels: true classes, int64 (M,).
        scores: float32 (M, K), after crops, clips and (in a fusion) nets.
        softmaxed: the scores are means of probabilities, each net's times its coefficient; not kept in the file.
    """

    names: list[str]
    labels: np.ndarray
    scores: np.ndarray
    softmaxed: bool = False

    @property
    def num_classes(self) -> int:
        return self.scores.shape[1]

    def topk_percent(self, k: int) -> float:
        """Share of videos whose class is among the k best; k above K counts as K."""
        return accuracy(torch.from_numpy(self.scores), torch.from_numpy(self.labels), (k,))[0].item()

    def probabilities(self) -> np.ndarray:
        """Scores as probabilities, float32 (M, K): their softmax, or, if they are `softmaxed`, scaled to a sum of 1."""
        if self.softmaxed:
            return self.scores / self.scores.sum(axis=1, keepdims=True)
        return torch.from_numpy(self.scores).softmax(dim=1).numpy()

    def ranks(self) -> np.ndarray:
        """Place of each video's class among its scores, int64 (M,): 1 if it is the best; of equal ones the first."""
        order = np.argsort(-self.scores, axis=1, kind="stable")
        return 1 + np.argmax(order == self.labels[:, None], axis=1)

    def confusion(self) -> np.ndarray:
        """Counts (K, K), a row for each true class."""
        predicted = torch.from_numpy(self.scores.argmax(axis=1))
        return confusion_matrix(predicted, torch.from_numpy(self.labels), self.num_classes).numpy()

    def class_percent(self) -> float:
        """Mean accuracy over the classes that occur, each counting the same."""
        return mean_class_accuracy(torch.from_numpy(self.confusion()))

    def save(self, path: str | Path) -> None:
        """Write an npz file of `names`, `labels` and `scores`; nothing half-written is left behind."""
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, names=np.array(self.names, dtype=str), labels=self.labels, scores=self.scores)
        except OSError as error:
            raise InputError(f"cannot write the scores {path}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, not a scores file, or arrays that do not belong together.
        """
        try:
            with open(path, "rb") as stream:
                _check_archive(stream)
                with np.load(stream, allow_pickle=False) as file:  # pickles could run code
                    names, labels, scores = file["names"], file["labels"], file["scores"]
        except KeyError as error:
            raise InputError(f"{path}: no array {error} in it; test_models.py --scores writes such files") from error
        except OSError as error:
            raise InputError(f"cannot read the scores {path}: {error.strerror or error}") from error
        except Exception as error:  # zipfile and numpy raise a dozen kinds for damaged files
            # numpy's own words advise unpickling whatever it does not know, text files included: not repeated.
            raise InputError(
                f"{path} is not a scores file (npz of names, labels, scores), or it is damaged;"
                " test_models.py --scores writes such files"
            ) from error
        problem = _problem(names, labels, scores)
        if problem:
            raise InputError(f"{path}: {problem}; test_models.py --scores writes such files")
        return cls(names.tolist(), labels.astype(np.int64), scores.astype(np.float32))

    def in_order_of(self, names: Sequence[str]) -> Scores | None:
        """The same scores with the videos in the order of `names`; None if the videos are not the same."""
        if list(names) == self.names:
            return self
        place = {name: index for index, name in enumerate(self.names)}
        if len(place) != len(self.names) or len(set(names)) != len(names) or place.keys() != set(names):
            return None
        order = np.array([place[name] for name in names])
        return Scores(list(names), self.labels[order], self.scores[order])


def _check_archive(stream: BinaryIO) -> None:
    """Compare all checksums before anything is taken from the file: numpy reads an array only as far as its (perhaps
    damaged) shape says, and zipfile compares only what is read to its end. Leaves the stream at its start.

    Raises:
        zipfile.BadZipFile: damaged.
    """
    with zipfile.ZipFile(stream) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("a checksum does not match")
    stream.seek(0)


def _problem(names: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> str | None:
    """What is wrong with the arrays of a scores file, or None."""
    if names.dtype.kind != "U" or labels.dtype.kind not in "iu" or scores.dtype.kind != "f":
        return f"names, labels, scores are {names.dtype}, {labels.dtype}, {scores.dtype}, not text, integers, floats"
    if names.ndim != 1 or labels.shape != names.shape or scores.ndim != 2 or scores.shape[:1] != names.shape:
        return f"names {names.shape}, labels {labels.shape} and scores {scores.shape} are not (M,), (M,) and (M, K)"
    if not scores.size:
        return "no scores in it"
    if not all(is_one_line(name) for name in names.tolist()):
        return "a name with control characters"  # it would become more than one line of a submission
    if not np.isfinite(scores).all():
        return "scores that are not finite"
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        return f"labels outside of [0, {scores.shape[1]})"
    return None


def fuse(members: Sequence[np.ndarray], coeffs: Sequence[float] | None = None, *, softmax: bool = False) -> np.ndarray:
    """Mean over nets of coefficient-weighted scores.

    Args:
        members: float32 (M, K) of each net, the same videos in the same order.
        coeffs: one a net; default 1 for each.
        softmax: turn each net's scores into probabilities first.

    Returns:
        float32 (M, K). Example: scores 2 and 4 with coefficients 1 and 1.5 give (2 + 6) / 2 = 4.
    """
    coeffs = [1.0] * len(members) if coeffs is None else list(coeffs)
    total = np.zeros(members[0].shape, dtype=np.float32)
    for scores, coeff in zip(members, coeffs, strict=True):
        if softmax:
            scores = torch.from_numpy(scores).softmax(dim=1).numpy()
        total += np.float32(coeff) * scores
    return total / np.float32(len(members))


def submission_lines(result: Scores, class_names: Sequence[str] | None, *, top5: bool) -> list[str]:
    """The published text formats: `name;category`, or, for somethingv2, `id;c1;c2;c3;c4;c5` (indices, best first).

    The name is the list's path.
    """
    lines = []
    for name, scores in zip(result.names, result.scores, strict=True):
        best = np.argsort(-scores, kind="stable")
        if top5:
            lines.append(";".join([name, *(str(index) for index in best[:5])]))
        else:
            lines.append(f"{name};{class_names[best[0]] if class_names else best[0]}")
    return lines


def prediction_lines(result: Scores, class_names: Sequence[str] | None) -> list[str]:
    """A table for spreadsheets and pandas, comma-separated, a line for each video below one of column names.

    Columns: path, truth, rank (of the truth: 1 is right), then class1, probability1, ... of the five best, best first.
    """
    names = class_names_or_numbers(class_names, result.num_classes)
    shown = min(5, result.num_classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["path", "truth", "rank", *(f"{what}{k}" for k in range(1, shown + 1) for what in ("class", "probability"))]
    )
    rows = zip(result.names, result.labels, result.ranks(), result.scores, result.probabilities(), strict=True)
    for path, label, rank, scores, probabilities in rows:
        best = np.argsort(-scores, kind="stable")[:shown]
        cells = [cell for index in best for cell in (names[index], f"{probabilities[index]:.6f}")]
        writer.writerow([path, names[label], rank, *cells])
    return text.getvalue().removesuffix("\n").split("\n")
