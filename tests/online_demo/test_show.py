"""The picture that the demo shows."""

import numpy as np

from online_demo.recognizer import Result
from online_demo.show.draw import BAR_HEIGHT, WIDTH, Canvas
from tests.online_demo.helpers import picture

DETAILS = "30 frames/s\ncapture 3.0 ms, network 2.0 ms"


def result(label):
    return Result(label, 0, 0.5, label, ((label, 0.5),), 1.0)


def test_canvas_mirrors_the_picture_not_the_text():
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80, 0] = 255
    plain = Canvas().draw(image, result("left"), DETAILS)
    mirrored = Canvas(mirrored=True).draw(image, result("left"), DETAILS)
    assert plain.shape == mirrored.shape == (480 + BAR_HEIGHT, WIDTH, 3)
    assert plain[100, 100].tolist() == [255, 0, 0]
    assert mirrored[100, 100].tolist() == [0, 0, 0]
    assert np.array_equal(plain[480:], mirrored[480:])


def test_long_names_leave_room():
    canvas = Canvas()
    long_bar, bare_bar = (canvas.draw(picture(0), result(label), DETAILS)[480:] for label in ("W" * 300, ""))
    details_begin = np.flatnonzero((bare_bar != bare_bar[0, 0]).any(axis=(0, 2)))[0]
    assert np.array_equal(long_bar[:, details_begin - 8 :], bare_bar[:, details_begin - 8 :])
