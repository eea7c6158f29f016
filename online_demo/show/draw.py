"""The picture that the demo shows: the frame, and a bar below it with the answer, the best classes and latencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from online_demo.recognizer import Result
from online_demo.show.controls import KEYS
from online_demo.show.text import font_for, readable

WIDTH, MAX_HEIGHT = 640, 560  # of the frame, which is made to fit with its shape kept
BAR_HEIGHT = 96
NUM_LISTED = 3
_BACKGROUND, _TEXT, _FAINT, _METER = (24, 26, 30), (255, 255, 255), (165, 172, 182), (47, 84, 150)
_MARGIN, _LIST_LEFT, _ROW_HEIGHT = 12, 340, 28
_ROOM_LEFT = _LIST_LEFT - 2 * _MARGIN
_LABEL_SIZES = (26, 21, 17)  # the largest that has room
_BLANK_SIZE = (640, 480)  # where no frame has come yet


class Canvas:
    """Draws the frames of one stream; all pictures have the size of the first."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None  # of the frame in the picture
        self._bar_key: object = None
        self._bar = np.zeros((0, 0, 3), np.uint8)

    def frame(self, image: np.ndarray | None, *, mirrored: bool = False) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> RGB uint8 that fits into WIDTH x MAX_HEIGHT, both sides even; None is a dark one."""
        if image is None:
            width, height = self._size or _BLANK_SIZE
            return np.full((height, width, 3), _BACKGROUND, np.uint8)
        if self._size is None:
            height, width = image.shape[:2]
            scale = min(WIDTH / width, MAX_HEIGHT / height)
            self._size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
        if mirrored:
            image = image[:, ::-1]
        picture = Image.fromarray(np.ascontiguousarray(image)).resize(self._size, Image.Resampling.BILINEAR)
        return np.asarray(picture)

    def annotate(self, frame: np.ndarray, result: Result | None, details: str) -> np.ndarray:
        """What `frame` gives -> RGB uint8 (height + BAR_HEIGHT, WIDTH, 3), with dark bands beside a narrow frame.

        details: the small text at the lower left of the bar.
        """
        height, width = frame.shape[:2]
        if width < WIDTH:
            picture = np.full((height, WIDTH, 3), _BACKGROUND, np.uint8)
            left = (WIDTH - width) // 2
            picture[:, left : left + width] = frame
            frame = picture
        shown = () if result is None else _percentages(result.top[:NUM_LISTED])
        key = (None if result is None else (result.label, round(100 * (result.certainty or 0))), shown, details)
        if key != self._bar_key:
            self._bar, self._bar_key = _draw_bar(result, shown, details), key
        return np.concatenate((frame, self._bar))


def _percentages(top: Sequence[tuple[str, float]]) -> tuple[tuple[str, int], ...]:
    return tuple((name, round(100 * probability)) for name, probability in top)


def _draw_bar(result: Result | None, best: Sequence[tuple[str, int]], details: str) -> np.ndarray:
    bar = Image.new("RGB", (WIDTH, BAR_HEIGHT), _BACKGROUND)
    pen = ImageDraw.Draw(bar)
    if result is not None and result.label:
        colour = _FAINT if result.index is None else _TEXT  # no class: unsure
        label = readable(result.label)
        fitting = (size for size in _LABEL_SIZES if pen.textlength(label, font=font_for(label, size)) <= _ROOM_LEFT)
        _write(pen, (_MARGIN, 22), label, _ROOM_LEFT, colour, next(fitting, _LABEL_SIZES[-1]))
        if result.certainty is not None:
            _write(pen, (_MARGIN, 54), f"{100 * result.certainty:.0f} %", _ROOM_LEFT, colour, 20)
    _write(pen, (_MARGIN, BAR_HEIGHT - 15), details, _ROOM_LEFT, _FAINT, 13)
    for number, (name, percentage) in enumerate(best):
        top, right = 6 + number * _ROW_HEIGHT, WIDTH - _MARGIN
        length = round((right - _LIST_LEFT) * percentage / 100)
        if length:
            pen.rectangle((_LIST_LEFT, top, _LIST_LEFT + length - 1, top + _ROW_HEIGHT - 5), fill=_METER)
        middle = top + _ROW_HEIGHT // 2 - 2
        _write(pen, (_LIST_LEFT + 6, middle), readable(name), right - _LIST_LEFT - 60, _TEXT, 14)
        pen.text((right - 6, middle), f"{percentage} %", fill=_TEXT, font=font_for("0 %", 14), anchor="rm")
    return np.asarray(bar)


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, room: int, colour: tuple[int, int, int], size: int
) -> None:
    """Write a line that begins at `place`, vertically centred there; what has no room is left out at its end."""
    font = font_for(text + "…", size)
    if pen.textlength(text, font=font) > room:
        while text and pen.textlength(text + "…", font=font) > room:
            text = text[:-1].rstrip()
        text += "…"
    pen.text(place, text, fill=colour, font=font, anchor="lm")


def overlaid(picture: np.ndarray, banner: str, *, show_help: bool) -> np.ndarray:
    """What `annotate` gives, with a dark strip across its top that holds the banner, and the list of keys below it."""
    if not (banner or show_help):
        return picture
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image, "RGBA")
    strip = (*_BACKGROUND, 215)
    if banner:
        pen.rectangle((0, 0, WIDTH, 36), fill=strip)
        _write(pen, (_MARGIN, 18), banner, WIDTH - 2 * _MARGIN, _TEXT, 17)
    if show_help:
        top, row = 46, 26
        pen.rectangle((_MARGIN, top, 400, top + row * len(KEYS) + 12), fill=strip)
        for number, (keys, meaning) in enumerate(KEYS):
            middle = top + 6 + row * number + row // 2
            pen.text((2 * _MARGIN, middle), keys, fill=_TEXT, font=font_for(keys, 16), anchor="lm")
            pen.text((150, middle), meaning, fill=_TEXT, font=font_for(meaning, 16), anchor="lm")
    return np.asarray(image)
