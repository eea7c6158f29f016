"""Comparing runs, and forwards with backwards."""

import numpy as np
import pytest

from ops.common.errors import InputError
from ops.evaluation.scores import Scores
from tools.compare_reversed import OTHER, count_turned
from tools.make_moving_digits import CLASSES


def scores_of(answers: list[int], names: list[str]) -> Scores:
    scores = np.zeros((len(answers), len(CLASSES)), np.float32)
    scores[np.arange(len(answers)), answers] = 1
    return Scores(names, np.zeros(len(answers), np.int64), scores)


def test_pairs_are_mutual_and_never_the_class_itself():
    assert (OTHER[OTHER] == np.arange(8)).all()
    assert (np.arange(8) != OTHER).all()


def test_turned_answers_are_counted_whatever_the_order_of_the_videos():
    grows, shrinks, up = (CLASSES.index(name) for name in ("grows", "shrinks", "moves_up"))
    forwards = scores_of([grows, shrinks, up], ["a", "b", "c"])
    backwards = scores_of([up, shrinks, shrinks], ["c", "b", "a"])  # a turned; b and c stayed
    assert count_turned(forwards, backwards) == 1


def test_other_videos_are_refused():
    with pytest.raises(InputError, match="same videos"):
        count_turned(scores_of([0], ["a"]), scores_of([0], ["b"]))
