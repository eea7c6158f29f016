"""One stream through the network: what is shown, and when the stream begins anew."""

import numpy as np
import pytest

from online_demo.gestures import JESTER, JESTER_CLASSES
from online_demo.network import NetworkInfo
from online_demo.recognizer import Recognizer
from online_demo.smoothing import SmoothingOptions

INFO = NetworkInfo(JESTER_CLASSES, 2, 2, {"mean": [0.0], "std": [1.0]}, (), frame_rate=10)
IMAGE = np.zeros((2, 2, 3), np.uint8)


class Model:
    info, class_names = INFO, JESTER_CLASSES


class Backend:
    """Gives the scores that it is told, and counts the frames of each stream in its state."""

    name = "told"

    def __init__(self, *scores):
        self.scores, self.counts = list(scores), []

    def init_state(self):
        return 0

    def step(self, frame, state):
        self.counts.append(state)
        return self.scores[min(len(self.counts), len(self.scores)) - 1], state + 1


def scores(**probabilities):
    """Scores whose softmax is this, the rest shared by all others."""
    values = np.full(27, (1 - sum(probabilities.values())) / (27 - len(probabilities)))
    for name, value in probabilities.items():
        values[JESTER_CLASSES.index(name.replace("_", " "))] = value
    return np.log(values).astype(np.float32)


def test_masked_classes_are_not_in_the_list():
    told = scores(Rolling_Hand_Forward=0.4, Thumb_Up=0.3, Doing_other_things=0.15, No_gesture=0.1)
    masking = Recognizer(Model, Backend(told), SmoothingOptions(rules=JESTER))(IMAGE, 0)
    assert masking.label == "No gesture"  # held: the best class is masked
    assert masking.certainty == pytest.approx(0.25)  # both of its classes
    assert [name for name, _ in masking.top[:2]] == ["Thumb Up", "No gesture"]
    assert [value for _, value in masking.top[:2]] == pytest.approx([0.3, 0.25])
    assert len(masking.top) == 5
    assert not {JESTER_CLASSES[i] for i in (*JESTER.masked, 0)} & {name for name, _ in masking.top}
    plain = Recognizer(Model, Backend(told), SmoothingOptions())(IMAGE, 0)
    assert [name for name, _ in plain.top[:3]] == ["Rolling Hand Forward", "Thumb Up", "Doing other things"]


def test_unsure_below_the_threshold():
    backend = Backend(scores(Thumb_Up=0.55), scores(Thumb_Up=0.65))
    recognizer = Recognizer(Model, backend, SmoothingOptions(window_s=0, threshold=0.6))
    unsure, sure = recognizer(IMAGE, 0), recognizer(IMAGE, 0.1)
    assert (unsure.label, unsure.index, unsure.is_unsure) == ("unsure", None, True)
    assert unsure.certainty == pytest.approx(0.55)
    assert (sure.label, sure.index, sure.is_unsure) == ("Thumb Up", 20, False)


def test_a_gap_of_more_than_two_windows_begins_another_stream():
    backend = Backend(scores(Thumb_Up=0.9), scores(Stop_Sign=0.9))
    recognizer = Recognizer(Model, backend, SmoothingOptions(window_s=0.5, threshold=0.2))
    for number, time_s in enumerate((0, 0.1, 1.1, 2.11, 2.12, 2.21)):
        if recognizer.takes(number, time_s):
            result = recognizer(IMAGE, time_s)
    assert backend.counts == [0, 1, 2, 0, 1]  # 1.0 s is two windows, 1.01 s more
    assert result.certainty == pytest.approx(0.9)
    recognizer.reset()
    assert recognizer.takes(6, 2.22)
    recognizer(IMAGE, 2.22)
    assert backend.counts[-1] == 0


def test_frames_far_apart_on_purpose_are_one_stream():
    for options in ({"every": 100}, {"rate": 0.25}):
        backend = Backend(scores(Thumb_Up=0.9))
        recognizer = Recognizer(Model, backend, SmoothingOptions(), **options)
        for number in range(0, 401):
            if recognizer.takes(number, number / 25):
                recognizer(IMAGE, number / 25)
        assert backend.counts == [0, 1, 2, 3, 4]


def test_own_rate_and_every():
    options = SmoothingOptions()
    times = [n / 20 for n in range(20)]
    for recognizer, wanted in (
        (Recognizer(Model, Backend(), options), range(0, 20, 2)),
        (Recognizer(Model, Backend(), options, rate=5), range(0, 20, 4)),
        (Recognizer(Model, Backend(), options, rate=5, every=1), range(20)),
    ):
        assert [n for n, time_s in enumerate(times) if recognizer.takes(n, time_s)] == list(wanted)
