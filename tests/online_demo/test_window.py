"""The demo's window, under a display of its own (Xvfb)."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageGrab

from online_demo.show.draw import BAR_HEIGHT, WIDTH
from online_demo.show.window import Window
from ops.common.errors import InputError
from tests.helpers import PROJECT
from tests.online_demo.helpers import picture

SCREEN = (1024, 768)


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
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with pytest.raises(InputError, match=f"a window needs OpenCV.*{advice}; or use --no-window"):
        Window()


@pytest.fixture(scope="module")
def display():
    """The name of a display of its own."""
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install {package})")
    cv2 = pytest.importorskip("cv2")
    if any("GUI:" in line and "NONE" in line for line in cv2.getBuildInformation().splitlines()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    read_fd, write_fd = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_fd), "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24", "-nolisten", "tcp"],
        pass_fds=(write_fd,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_fd)
    with os.fdopen(read_fd) as file:
        number = file.readline().strip()
    assert number, "Xvfb did not start"
    yield f":{number}"
    server.terminate()
    server.wait(timeout=20)


@contextlib.contextmanager
def demo_in_window(display, *options):
    """The demo as a process with that display."""
    env = {**os.environ, "DISPLAY": display, "OMP_NUM_THREADS": "1", "QT_LOGGING_RULES": "*=false"}
    env.pop("WAYLAND_DISPLAY", None)
    command = [sys.executable, PROJECT / "online_demo/main.py", "--backend", "torch", "--threads", "1", *options]
    process = subprocess.Popen(
        [str(part) for part in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(look, process, timeout_s=180):
    """The first result of `look` that is not None."""
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.2)
    return found


def screen(display):
    return np.array(ImageGrab.grab(xdisplay=display).convert("RGB"))


def press(display, key):
    subprocess.run(
        ["xdotool", "search", "--name", "^TSM$", "windowfocus", "key", key],
        env={**os.environ, "DISPLAY": display}, check=True, capture_output=True, timeout=30,
    )  # fmt: skip


@pytest.fixture
def demo(pictures, tmp_path):
    """Options of the demo that show picture 3 without end."""
    for number in range(4):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(picture(3)).save(tmp_path / "frames" / f"{number}.png")
    return ["--weights", pictures, "--source", tmp_path / "frames", "--loop"]


def test_window_shows_label_and_obeys_keys(display, demo, tmp_path):
    height, out = 480 + BAR_HEIGHT, tmp_path / "out.mp4"
    expected = np.asarray(Image.fromarray(picture(3)).resize((WIDTH, 480), Image.Resampling.BILINEAR), float)
    with demo_in_window(display, *demo, "--output", out) as process:

        def window():
            image = screen(display)[:height, :WIDTH]
            good = np.abs(image[:480] - expected).mean() < 3 and image[480:, : WIDTH // 2].max() > 200
            return image if good else None

        image = wait_until(window, process)
        _keep(image, "window.png")
        # The label's letters: bright on the bar's dark ground, in the left half; frames/s on the right.
        letters = image[480:, :300].max(axis=2) > 150
        assert 0.01 < letters.mean() < 0.2
        assert (image[480:, 400:].max(axis=2) > 100).any()
        quit_with(display, "Escape", process)
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 1


def test_full_screen(display, demo):
    """f makes the window fill the screen, and f again gives it its size back."""
    if shutil.which("openbox") is None:
        pytest.skip("openbox is not installed: without a window manager no window fills the screen")
    env = {**os.environ, "DISPLAY": display}
    manager = subprocess.Popen(["openbox"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with demo_in_window(display, *demo) as process:
            wait_until(lambda: _if(screen(display), lambda image: image[200:400, 400:600].all(axis=2).any()), process)
            assert not fills_screen(screen(display))
            press(display, "f")
            full = wait_until(lambda: _if(screen(display), fills_screen), process)
            _keep(full, "window_full_screen.png")
            press(display, "f")
            wait_until(lambda: _if(screen(display), lambda image: not fills_screen(image)), process)
            quit_with(display, "q", process)
    finally:
        manager.terminate()
        manager.wait(timeout=20)


def quit_with(display, key, process):
    press(display, key)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def fills_screen(image):
    """From its upper to its lower edge, and wider than the window was: the picture keeps its shape."""
    drawn = image.any(axis=2)
    return drawn[:10].any() and drawn[-10:].any() and drawn[100].sum() > 1.3 * WIDTH


def _if(value, condition):
    return value if condition(value) else None


def _keep(image, name):
    """Screenshots to look at, where TSM_TEST_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("TSM_TEST_SCREENSHOTS")
    if folder:
        Image.fromarray(image).save(Path(folder) / name)
