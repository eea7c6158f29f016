"""Fuse saved scores of several nets: the mean of their weighted scores.

python tools/fuse_scores.py RGB.npz Flow.npz --coeff 1 1.5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ops.common.errors import InputError, counted, run_command
from ops.evaluation.scores import Scores, fuse
from ops.opts import ShowDefaults


def align(members: Sequence[Scores], paths: Sequence[str]) -> list[Scores]:
    """Bring every file's videos into the order of the first's.

    Raises:
        InputError: files of different videos, labels or numbers of classes, with one example.
    """
    first, aligned = members[0], []
    for path, member in zip(paths, members, strict=True):
        if member.num_classes != first.num_classes:
            raise InputError(
                f"{path} has {counted(member.num_classes, 'class', 'classes')}, {paths[0]} has {first.num_classes}"
            )
        ordered = member.in_order_of(first.names)
        if ordered is None:
            odd = sorted(set(member.names) ^ set(first.names))
            example = f"{odd[0]!r} is in one only" if odd else "names occur more than once, in different order"
            raise InputError(f"{path} and {paths[0]} are not scores of the same videos: {example}")
        differ = np.flatnonzero(ordered.labels != first.labels)
        if len(differ):
            index = int(differ[0])
            raise InputError(
                f"{path} and {paths[0]} disagree about labels: {first.names[index]!r} is"
                f" {ordered.labels[index]} in one and {first.labels[index]} in the other"
            )
        aligned.append(ordered)
    return aligned


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("files", nargs="+", metavar="FILE.npz", help="written by test_models.py --scores")
    parser.add_argument("--coeff", nargs="+", type=float, help="weight of each file (default: 1 each)")
    parser.add_argument("--softmax", action="store_true", help="turn each file's scores into probabilities first")
    parser.add_argument("--output", metavar="FILE.npz", help="write the fused scores")
    args = parser.parse_args(argv)

    coeffs = args.coeff or [1.0] * len(args.files)
    if len(coeffs) != len(args.files):
        raise InputError(
            f"--coeff has {counted(len(coeffs), 'value')} for {counted(len(args.files), 'file')}: give one a file"
        )
    if not np.isfinite(coeffs).all():
        raise InputError(f"--coeff {coeffs}: the weights must be finite numbers")
    members = align([Scores.load(path) for path in args.files], args.files)
    scores = fuse([member.scores for member in members], coeffs, softmax=args.softmax)
    fused = Scores(members[0].names, members[0].labels, scores)

    width = max(len("fused"), *(len(path) for path in args.files))
    print(f"{counted(len(fused.names), 'video')}, {counted(fused.num_classes, 'class', 'classes')}")
    print(f"{'file':<{width}}  coeff  Prec@1   Prec@5")
    for path, coeff, member in zip(args.files, coeffs, members, strict=True):
        print(f"{path:<{width}}  {coeff:>5g}  {member.topk_percent(1):>6.2f}%  {member.topk_percent(5):>6.2f}%")
    print(f"{'fused':<{width}}         {fused.topk_percent(1):>6.2f}%  {fused.topk_percent(5):>6.2f}%")
    if args.output:
        fused.save(args.output)
        print(f"wrote {args.output}")


if __name__ == "__main__":
    run_command(main)
