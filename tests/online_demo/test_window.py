"""The demo's window, under a display of its own (Xvfb)."""

import contextlib
import os
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image, ImageGrab

from online_demo.show.draw import BAR_HEIGHT, WIDTH
from online_demo.show.window import Window
from ops.common.errors import InputError
from tests.helpers import PROJECT
from tests.online_demo.helpers import picture, wait_until


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        ("ModuleNotFoundError: No module named 'cv2'", "pip install -r requirements-demo.txt"),
        ("ImportError: libGL.so.1: cannot open shared object file", "libGL.* apt-get install libgl1 .*"),
    ],
)
def test_opencv_that_cannot_be_imported(tmp_path, monkeypatch, problem, advice):
    kind, words = problem.split(": ", 1)
    (tmp_path / "cv2.py").write_text(f"raise {kind}({words!r})\n")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with pytest.raises(InputError, match=f"a window needs OpenCV.*{advice}; or use --no-window"):
        Window()


@pytest.fixture(scope="module")
def display():
    """A display of its own for this process and those that it starts."""
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install {package})")
    cv2 = pytest.importorskip("cv2")
    if any("GUI:" in line and "NONE" in line for line in cv2.getBuildInformation().splitlines()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    read_fd, write_fd = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_fd), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=(write_fd,), stderr=subprocess.DEVNULL)
    os.close(write_fd)
    with os.fdopen(read_fd) as file:
        number = file.readline().strip()
    assert number, "Xvfb did not start"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", f":{number}")
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        yield
    server.terminate()
    server.wait(timeout=20)


@contextlib.contextmanager
def running(*command):
    process = subprocess.Popen([str(part) for part in command], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def demo(display, pictures, still):
    """The command of the demo in a window, showing picture 3 without end."""
    options = ["--backend", "torch", "--threads", "1", "--weights", pictures, "--source", still, "--loop"]
    return [sys.executable, PROJECT / "online_demo/main.py", *options]


def screen():
    return np.array(ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).convert("RGB"))


def press(key):
    command = ["xdotool", "search", "--name", "^TSM$", "windowfocus", "key", key]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def test_window_shows_label_and_obeys_keys(demo, tmp_path, screenshots):
    height, out = 480 + BAR_HEIGHT, tmp_path / "out.mp4"
    expected = np.asarray(Image.fromarray(picture(3)).resize((WIDTH, 480), Image.Resampling.BILINEAR), float)

    def shows_picture_and_label():
        image = screen()[:height, :WIDTH]
        return np.abs(image[:480] - expected).mean() < 3 and image[480:, : WIDTH // 2].max() > 200

    with running(*demo, "--output", out) as process:
        wait_until(shows_picture_and_label, 120)
        image = screen()[:height, :WIDTH]
        Image.fromarray(image).save(screenshots / "window.png")
        # The label's letters: bright on the bar's dark ground, in the left half; frames/s on the right.
        letters = image[480:, :300].max(axis=2) > 150
        assert 0.01 < letters.mean() < 0.2
        assert (image[480:, 400:].max(axis=2) > 100).any()
        press("Escape")
        assert process.wait(timeout=60) == 0
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 1


def test_full_screen(demo, screenshots):
    """f makes the window fill the screen, and f again gives it its size back."""
    if shutil.which("openbox") is None:
        pytest.skip("openbox is not installed: without a window manager no window fills the screen")

    def fills_screen():
        """From its upper to its lower edge, and wider than the window was: the picture keeps its shape."""
        drawn = screen().any(axis=2)
        return drawn[:10].any() and drawn[-10:].any() and drawn[100].sum() > 1.3 * WIDTH

    with running("openbox"), running(*demo) as process:
        wait_until(lambda: screen()[200:400, 400:600].all(axis=2).any(), 120)
        assert not fills_screen()
        press("f")
        wait_until(fills_screen)
        Image.fromarray(screen()).save(screenshots / "window_full_screen.png")
        press("f")
        wait_until(lambda: not fills_screen())
        press("q")
        assert process.wait(timeout=60) == 0
