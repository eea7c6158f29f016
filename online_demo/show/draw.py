"""The picture that the demo shows: the frame, and a bar below it with the label, frames/s and latencies."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from online_demo.recognizer import Result

WIDTH = 640
BAR_HEIGHT = 56
_BACKGROUND, _TEXT, _FAINT = (24, 26, 30), (255, 255, 255), (165, 172, 182)
_MAX_HEIGHT = 1280  # of very tall pictures


class Canvas:
    """Draws the frames of one stream; all pictures have the size of the first."""

    def __init__(self, *, mirrored: bool = False) -> None:
        self._mirrored = mirrored
        self._size: tuple[int, int] | None = None
        self._bar_key: tuple[str, str] | None = None
        self._bar = np.zeros((0, 0, 3), np.uint8)
        self._large, self._small = ImageFont.load_default(24), ImageFont.load_default(13)

    def draw(self, image: np.ndarray, result: Result | None, details: str) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> RGB uint8 (height, WIDTH, 3), both sides even.

        details: the small text at the right of the bar, one or two lines.
        """
        if self._size is None:
            height = round(image.shape[0] * WIDTH / image.shape[1])
            self._size = (WIDTH, max(2, min(_MAX_HEIGHT, height) // 2 * 2))
        if self._mirrored:
            image = image[:, ::-1]
        picture = Image.fromarray(np.ascontiguousarray(image)).resize(self._size, Image.Resampling.BILINEAR)
        key = ("" if result is None else result.label, details)
        if key != self._bar_key:
            self._bar, self._bar_key = self._draw_bar(*key), key
        return np.concatenate((np.asarray(picture), self._bar))

    def _draw_bar(self, label: str, details: str) -> np.ndarray:
        bar = Image.new("RGB", (WIDTH, BAR_HEIGHT), _BACKGROUND)
        pen = ImageDraw.Draw(bar)
        lines = details.split("\n")[:2]
        right = max((pen.textlength(line, font=self._small) for line in lines), default=0)
        room = WIDTH - 36 - right
        while label and pen.textlength(label, font=self._large) > room:
            label = label[:-2].rstrip() + "…" if len(label) > 2 else ""
        pen.text((12, BAR_HEIGHT // 2), label, fill=_TEXT, font=self._large, anchor="lm")
        for number, line in enumerate(lines):
            place = (WIDTH - 12, (BAR_HEIGHT * (2 * number + 1)) // (2 * len(lines)))
            pen.text(place, line, fill=_FAINT, font=self._small, anchor="rm")
        return np.asarray(bar)
