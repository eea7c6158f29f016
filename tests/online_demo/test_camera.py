"""Sources of pictures, and the thread that reads them."""

import json
import threading
import time
from unittest import mock

import numpy as np
import pytest

from online_demo.camera.cameras import CameraOptions, OpenCvSource
from online_demo.camera.capture import Capture
from online_demo.camera.sources import SAMPLE, FolderSource, open_source
from ops.common.errors import InputError


class FakeSource:
    """A source whose frames are their own numbers."""

    name, fps, mirrored, notice = "fake", 30.0, False, ""

    def __init__(self, live, num_frames, wait_s=0.0, stuck=False):
        self.live, self.num_frames, self.wait_s, self.stuck = live, num_frames, wait_s, stuck

    def frames(self):
        for number in range(self.num_frames):
            time.sleep(self.wait_s)
            yield np.full((2, 2, 3), number % 256, np.uint8)
        if self.stuck:
            threading.Event().wait(5)


def read_all(source, pause_s):
    """Numbers of the frames that a reader gets who takes `pause_s` for each."""
    with Capture(source) as capture:
        seen = []
        while (frame := capture.read()) is not None:
            assert frame.image[0, 0, 0] == frame.number
            seen.append(frame.number)
            time.sleep(pause_s)
    return seen


def test_only_the_newest_frame_of_a_live_source_is_kept_every_one_of_a_file():
    seen = read_all(FakeSource(live=True, num_frames=40, wait_s=0.005), 0.04)
    assert seen == sorted(seen)
    assert len(seen) < 25
    assert read_all(FakeSource(live=False, num_frames=30), 0.005) == list(range(30))


def test_silent_source_is_given_up():
    began = time.monotonic()
    with (
        Capture(FakeSource(live=True, num_frames=1, stuck=True), timeout_s=0.3) as capture,
        pytest.raises(InputError, match=r"fake gave no frame for 0\.3 seconds"),
    ):
        while True:
            capture.read()
    assert time.monotonic() - began < 5


def test_source_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(str(tmp_path / "nothing.mp4"))
    with pytest.raises(InputError, match="holds no frames"):
        FolderSource(tmp_path)


def test_sample_shows_every_class():
    spans = json.loads(SAMPLE.with_suffix(".json").read_text())
    frames = list(open_source("sample").frames())
    assert spans[0]["first"] == 0
    assert [span["stop"] for span in spans[:-1]] == [span["first"] for span in spans[1:]]
    assert spans[-1]["stop"] == len(frames)
    assert len({span["class"] for span in spans}) == 8
    assert SAMPLE.stat().st_size < 300_000


def test_camera_and_url_that_cannot_be_opened(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "plain").write_text("nothing")
    for source in (OpenCvSource(97), open_source(f"file://{tmp_path}/plain")):
        with Capture(source) as capture, pytest.raises(InputError, match="cannot be opened"):
            capture.read()


def test_camera_that_is_unplugged(monkeypatch):
    """OpenCV answers False from then on."""
    cv2 = pytest.importorskip("cv2")

    image = np.zeros((240, 320, 3), np.uint8) + np.uint8([1, 2, 3])
    device = mock.Mock(**{"get.return_value": 30.0, "read.side_effect": [(True, image)] * 3 + [(False, None)] * 1000})
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: device)
    frames = []
    with pytest.raises(InputError, match="camera 0 broke off after 3 frames: was it unplugged"):
        frames.extend(OpenCvSource(0, CameraOptions(retry_s=0)).frames())
    device.read.side_effect = [(True, image)]
    frames = OpenCvSource(0).frames()
    assert next(frames)[0, 0].tolist() == [3, 2, 1]  # RGB
    device.release.reset_mock()
    frames.close()
    device.release.assert_called_once()
