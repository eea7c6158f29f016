"""The demo's window, under a display of its own (Xvfb)."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image, ImageGrab

from online_demo.show.controls import Controls
from online_demo.show.draw import BAR_HEIGHT, MAX_HEIGHT, WIDTH
from online_demo.show.window import Window
from ops.common.errors import InputError
from tests.helpers import PROJECT, make_video
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
        Window(Controls())


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
    command = ["Xvfb", "-displayfd", str(write_fd), "-screen", "0", "1024x768x24", "-noreset", "-nolisten", "tcp"]
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
        return np.abs(image[:480] - expected).mean() < 3 and image[480:500, : WIDTH // 2].max() > 200

    with running(*demo, "--output", out) as process:
        wait_until(shows_picture_and_label, 120)
        image = screen()[:height, :WIDTH]
        Image.fromarray(image).save(screenshots / "window.png")
        # The label's letters: bright on the bar's dark ground, in the left half; the best classes on the right.
        letters = image[480:, :300].max(axis=2) > 150
        assert 0.01 < letters.mean() < 0.2
        assert (image[480:, 400:].max(axis=2) > 100).any()
        press("m")
        wait_until(lambda: np.abs(screen()[36:480, :WIDTH][:, ::-1] - expected[36:]).mean() < 3)
        press("p")
        wait_until(lambda: screen()[:36, :200].max() > 200)  # "paused"
        Image.fromarray(screen()).save(screenshots / "window_paused.png")
        press("Escape")
        assert process.wait(timeout=60) == 0
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 1


def test_full_screen(demo, screenshots):
    """f makes the window fill the screen, and f again gives it its size back."""
    if shutil.which("openbox") is None:
        pytest.skip("openbox is not installed: without a window manager no window fills the screen")

    def fills_screen():
        """From edge to edge, with dark bands beside the picture, which keeps its shape."""
        image = screen()
        bands = image[100, [2, -3]]
        return image.any(axis=2).all() and bands.max() < 40 and image[100, WIDTH // 2].max() > 40

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


def test_keys_answer_while_the_source_is_silent(display, screenshots):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"
        options = ["--threads", "1", "--source", url, "--timeout", "100"]
        with running(sys.executable, PROJECT / "online_demo/main.py", *options) as process:
            wait_until(lambda: screen()[:36, :WIDTH].max() > 200, 120)  # "h shows the keys", then "waiting for ..."
            press("h")
            wait_until(lambda: screen()[46:200, :400].max() > 200)
            Image.fromarray(screen()).save(screenshots / "window_silent.png")
            press("q")
            assert process.wait(timeout=60) == 0


def test_portrait(display, tmp_path, screenshots):
    """A film of a phone fits the screen, between dark bands."""
    film = make_video(tmp_path / "film.mp4", np.full((20, 320, 180, 3), 200, np.uint8))
    options = ["--threads", "1", "--source", film, "--loop"]
    with running(sys.executable, PROJECT / "online_demo/main.py", *options):
        wait_until(lambda: screen()[300, WIDTH // 2].min() > 180, 120)
        image = screen()
        Image.fromarray(image).save(screenshots / "window_portrait.png")
        assert image[300, :100].max() < 40 and image[300, WIDTH - 100 : WIDTH].max() < 40
        assert not image[MAX_HEIGHT + BAR_HEIGHT + 2 :].any()  # the window ends well above the screen's lower edge
