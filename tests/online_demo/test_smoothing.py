"""Smoothing of the demo's results, against the published rules written out over the whole history."""

import numpy as np
import pytest

from online_demo.gestures import JESTER, JESTER_CLASSES, PLAIN, rules_for
from online_demo.smoothing import Smoother, SmoothingOptions

NO_GESTURE = 2
MASKED = (7, 8, 21, 22, 3)


def plain_smoothing(scores, *, window=12, masks=True, vote=True):
    """Labels of a whole stream (F, 27), rule by rule."""
    history = [NO_GESTURE, NO_GESTURE] if masks else [None, None]
    for t in range(len(scores)):
        label = int(np.argmax(scores[max(0, t - window + 1) : t + 1].sum(axis=0)))
        if masks and label in MASKED:
            label = history[-1]
        if masks and label == 0:
            label = 2
        if vote and label != history[-1] and history[-1] != history[-2]:
            label = history[-1]
        history.append(label)
    return history[2:]


def slow_scores(rng, num_frames, num_class=27):
    """Scores in which every few frames another class leads, with enough noise for disputes."""
    leaders = np.repeat(rng.integers(0, num_class, num_frames), rng.integers(1, 9, num_frames))[:num_frames]
    return (3 * np.eye(num_class)[leaders] + rng.standard_normal((num_frames, num_class))).astype(np.float32)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("vote", [True, False])
@pytest.mark.parametrize("window", [1, 3, 12])
def test_smoothing_equals_plain_form(window, vote, masks):
    rng = np.random.default_rng(window)
    smoother = Smoother(SmoothingOptions(window_s=window / 15, rules=JESTER if masks else PLAIN, vote=vote))
    for _ in range(10):
        scores = slow_scores(rng, 120)
        smoother.reset()
        labels = [smoother(frame, t / 15).label for t, frame in enumerate(scores)]
        assert labels == plain_smoothing(scores, window=window, masks=masks, vote=vote)
        assert not masks or not set(labels) & {*MASKED, 0}
        assert len(set(labels)) > 3


def one_hot(*labels, num_class=27):
    return np.eye(num_class, dtype=np.float32)[list(labels)]


def kept(labels, **options):
    smoother = Smoother(SmoothingOptions(window_s=0, **options))
    return [smoother(frame, t / 15).label for t, frame in enumerate(one_hot(*labels))]


def test_change_needs_two_kept_results_that_agree():
    # 2 2 | 5 is taken; 6 is not, as 2 and 5 disagree; now 5 and 5 agree, so the second 6 is.
    assert kept([5, 6, 6, 5, 5], rules=JESTER) == [5, 5, 6, 6, 5]
    assert kept([5, 6, 6, 5, 5], rules=JESTER, vote=False) == [5, 6, 6, 5, 5]


def test_masked_actions_repeat_and_other_things_are_no_gesture():
    assert kept([7, 14, 14, 22, 3, 21, 8, 0, 0], rules=JESTER) == [2, 14, 14, 14, 14, 14, 14, 2, 2]
    assert kept([7, 7, 0, 0], rules=PLAIN) == [7, 7, 0, 0]


def test_masked_classes_are_the_published_ones():
    assert {JESTER_CLASSES[index] for index in JESTER.masked} == {
        "Rolling Hand Backward", "Rolling Hand Forward", "Turning Hand Clockwise", "Turning Hand Counterclockwise",
        "Pulling Hand In",
    }  # fmt: skip
    assert (JESTER_CLASSES[0], JESTER_CLASSES[2]) == ("Doing other things", "No gesture")


def test_window_forgets():
    smoother = Smoother(SmoothingOptions(window_s=0.3, vote=False))
    # A single strong frame leads for 0.3 s, then is gone.
    stream = np.float32([[0, 9], [1, 0], [1, 0], [1, 0]])
    assert [smoother(frame, t / 10).label for t, frame in enumerate(stream)] == [1, 1, 1, 0]


def test_scores_shown_are_the_mean_of_the_window():
    smoother = Smoother(SmoothingOptions(window_s=0.2))
    for t, (frame, mean) in enumerate((([1.0, 4.0], [1.0, 4.0]), ([3.0, 0.0], [2.0, 2.0]), ([5.0, 2.0], [4.0, 1.0]))):
        smoothed = smoother(np.float32(frame), t / 10)
        assert smoothed.scores.tolist() == mean
        assert smoothed.frame_label == int(np.argmax(frame))


def test_rules_are_for_jesters_classes_only():
    assert rules_for(list(JESTER_CLASSES)) is JESTER
    assert rules_for([f"class {index}" for index in range(27)]) is PLAIN
    assert rules_for(sorted(JESTER_CLASSES, reverse=True)) is PLAIN
