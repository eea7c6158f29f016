"""The picture that the demo shows, and the keys that change it."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from online_demo.camera.capture import Captured
from online_demo.recognizer import Result
from online_demo.show.controls import Controls
from online_demo.show.draw import BAR_HEIGHT, MAX_HEIGHT, WIDTH, Canvas, overlaid
from online_demo.show.screen import Screen
from online_demo.show.text import font_for, readable
from tests.online_demo.helpers import picture

DETAILS = "30 frames/s, capture 3.0 ms, network 2.0 ms"


def result(label, certainty=0.5, index=0):
    return Result(label, index, certainty, label, ((label, certainty),), 1.0)


def drawn(image, label, **options):
    canvas = Canvas()
    return canvas.annotate(canvas.frame(image, **options), result(label), DETAILS)


def test_canvas_mirrors_the_picture_not_the_text():
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80, 0] = 255
    plain, mirrored = drawn(image, "left"), drawn(image, "left", mirrored=True)
    assert plain.shape == mirrored.shape == (480 + BAR_HEIGHT, WIDTH, 3)
    assert plain[100, 100].tolist() == [255, 0, 0]
    assert mirrored[100, 100].tolist() == [0, 0, 0]
    assert np.array_equal(plain[480:], mirrored[480:])


def test_long_names_leave_room():
    """The list of the best begins where it does with short names; its numbers keep their places."""
    long_bar, short_bar = (drawn(picture(0), label)[480:] for label in ("W" * 300, "i"))
    assert np.array_equal(long_bar[:, 329:340], short_bar[:, 329:340])
    assert np.array_equal(long_bar[:, -50:], short_bar[:, -50:])


def test_portrait_fits_the_screen_between_dark_bands():
    image = np.full((1280, 720, 3), 200, np.uint8)
    whole = drawn(image, "x")
    assert whole.shape == (MAX_HEIGHT + BAR_HEIGHT, WIDTH, 3)
    width = 2 * round(720 * MAX_HEIGHT / 1280 / 2)
    left = (WIDTH - width) // 2
    row = whole[100].astype(int)
    assert (row[left : left + width] == 200).all()
    assert row[:left].max() < 40 and row[left + width :].max() < 40


def test_unsure_and_certainty_are_seen():
    canvas = Canvas()
    frame = canvas.frame(picture(0))
    sure, less, unsure = (
        canvas.annotate(frame, answer, "")[480:, :300].copy()
        for answer in (result("x", 0.9), result("x", 0.8), result("unsure", 0.4, index=None))
    )
    assert not np.array_equal(sure, less)  # another percentage
    assert sure.max() == 255
    assert unsure.max() < 200  # no class: fainter


def test_overlay_lies_on_the_window_only():
    plain = drawn(picture(0), "x")
    assert overlaid(plain, "", show_help=False) is plain
    help_shown = overlaid(plain, "", show_help=True)
    assert not np.array_equal(help_shown, plain)
    assert np.array_equal(help_shown[480:], plain[480:])


def test_readable():
    assert readable("turns_clockwise") == "turns clockwise"
    assert readable("Swiping Left") == "Swiping Left"


@pytest.mark.parametrize("text", ["größer", "Вверх", "επάνω"])
def test_letters_of_other_scripts_are_no_boxes(text):
    """By a font of the system: fontconfig says whether there is one."""
    charset = " ".join(f"{ord(letter):x}" for letter in text)
    command = ["fc-list", f":charset={charset}:fontformat=TrueType", "file"]
    if shutil.which("fc-list") is None or not subprocess.run(command, capture_output=True).stdout:
        pytest.skip("fontconfig knows no font with these letters")
    font = font_for(text, 24)
    missing = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in text)
    assert font_for("plain", 24).getname()[0] == "Aileron"  # Pillow's own


class Recorder:
    """An output that keeps what it is shown."""

    def __init__(self, view):
        self.view, self.pictures, self.shown = view, [], []

    def show(self, picture, shown):
        self.pictures.append(picture)
        self.shown.append(shown)
        return True


@pytest.fixture
def controls():
    return Controls()


@pytest.fixture
def outputs():
    return [Recorder("window"), Recorder("annotated"), Recorder(None)]


@pytest.fixture
def screen(controls, outputs, tmp_path, monkeypatch):
    """A screen that has shown picture 1."""
    monkeypatch.chdir(tmp_path)
    screen = Screen(outputs, controls)
    screen.show(Captured(picture(1), 0, 0.0, 1.0, 0.0), 0, 0.0, result("x"), is_new=True)
    return screen


def test_screen_is_drawn_again_only_for_a_change(screen, controls, outputs):
    window, video, _ = outputs
    screen.refresh(result("x"), status="")
    assert len(window.pictures) == 1
    controls.press("h")
    screen.refresh(result("x"), status="")
    screen.refresh(result("x"), status="waiting for camera 0")
    screen.refresh(result("x"), status="waiting for camera 0")
    assert len(window.pictures) == 3
    assert [shown.status for shown in window.shown] == ["", "", "waiting for camera 0"]
    assert [shown.is_new for shown in window.shown] == [True, False, False]
    assert np.array_equal(video.pictures[0], video.pictures[2])  # neither help nor banner
    controls.press("m")
    screen.refresh(result("x"), status="")
    assert np.abs(video.pictures[3][:480, ::-1].astype(int) - video.pictures[0][:480]).max() <= 2


def test_screenshot_key(screen, controls, outputs, tmp_path):
    controls.press("s")
    screen.refresh(result("x"), status="")
    (path,) = tmp_path.glob("tsm_*.png")
    assert np.array_equal(np.asarray(Image.open(path)), outputs[1].pictures[0])
    assert controls.notice.startswith("saved tsm_")


def test_screenshot_that_cannot_be_saved_is_said(screen, controls, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    controls.press("s")
    screen.refresh(result("x"), status="")
    assert controls.notice.startswith("no screenshot: ")


def test_keys():
    controls = Controls()
    for key, attribute in (("p", "paused"), ("m", "mirrored"), ("h", "show_help")):
        controls.press(key)
        assert getattr(controls, attribute)
        controls.press(key.upper())
        assert not getattr(controls, attribute)
    controls.press("x")
    assert not controls.take("reset")
    controls.press("r")
    assert controls.take("reset") and not controls.take("reset")
    controls.press("\x1b")
    assert controls.quit
