"""Compare a net's answers to the moving digits played forwards and backwards.

    python tools/compare_reversed.py FORWARDS.npz BACKWARDS.npz

The files are those of test_models.py --scores, the second one with --reverse. A net that sees order answers `shrinks`
to a `grows` played backwards; one that does not gives the same answer twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ops.common.errors import InputError, run_command
from ops.evaluation.scores import Scores
from ops.opts import ShowDefaults
from tools.make_moving_digits import CLASSES, TIME_REVERSED

OTHER = np.array([CLASSES.index(TIME_REVERSED[name]) for name in CLASSES])


def count_turned(forwards: Scores, backwards: Scores) -> int:
    """Videos whose answer turns into the pair's other class.

    Raises InputError where the files are not of the same videos or classes.
    """
    for scores in (forwards, backwards):
        if scores.num_classes != len(CLASSES):
            raise InputError(f"the moving digits have {len(CLASSES)} classes, the scores {scores.num_classes}")
    same_order = backwards.in_order_of(forwards.names)
    if same_order is None:
        raise InputError("the two files are not of the same videos: make both from one list")
    before, after = forwards.scores.argmax(axis=1), same_order.scores.argmax(axis=1)
    return int((after == OTHER[before]).sum())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("forwards", metavar="FORWARDS.npz", help="scores of the videos")
    parser.add_argument("backwards", metavar="BACKWARDS.npz", help="scores of the same videos with --reverse")
    args = parser.parse_args(argv)
    forwards = Scores.load(args.forwards)
    turned = count_turned(forwards, Scores.load(args.backwards))
    total = len(forwards.names)
    share = 100 * turned / total
    print(f"Played backwards, {turned} of {total} answers ({share:.1f} %) turn into the pair's other class.")


if __name__ == "__main__":
    run_command(main)
