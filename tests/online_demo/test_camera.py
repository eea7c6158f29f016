"""Sources of pictures, and the thread that reads them."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import numpy as np
import pytest

from online_demo.camera import cameras
from online_demo.camera.cameras import CameraOptions, OpenCvSource
from online_demo.camera.capture import Capture
from online_demo.camera.sources import SAMPLE, FolderSource, open_source
from ops.common.errors import InputError
from tests.online_demo.helpers import encoded


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


def test_passwords_of_urls_are_not_shown():
    pytest.importorskip("cv2")
    assert OpenCvSource("rtsp://me:secret@10.0.0.2:554/live?a=@b").name == "rtsp://10.0.0.2:554/live?a=@b"
    assert OpenCvSource("http://10.0.0.2/x@y").name == "http://10.0.0.2/x@y"


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


# --- devices, pipelines, and streams that drop ------------------------------------------------------------------------


class FakeCapture:
    """What OpenCV opens: frames of one gray level each, then False for ever."""

    def __init__(self, levels):
        self.levels, self.set, self.release = list(levels), mock.Mock(), mock.Mock()

    def isOpened(self):
        return bool(self.levels)

    def get(self, key):
        return 30.0

    def read(self):
        return (True, np.full((4, 4, 3), self.levels.pop(0), np.uint8)) if self.levels else (False, None)


@pytest.fixture
def opened(monkeypatch):
    """Plugs in captures, one for each time that OpenCV opens something; returns what it was asked to open."""
    cv2 = pytest.importorskip("cv2")

    def plug_in(*captures):
        left, asked = list(captures), []
        monkeypatch.setattr(cv2, "VideoCapture", lambda *args: asked.append(args) or left.pop(0))
        monkeypatch.setattr(cameras, "_MISSED_S", 0.01)
        monkeypatch.setattr(cameras, "_FIRST_WAIT_S", 0.01)
        return asked

    return plug_in


def test_dropped_camera_is_opened_again_and_says_so(opened, caplog):
    asked = opened(FakeCapture([1, 2]), FakeCapture([]), FakeCapture([3]), FakeCapture([4]))
    source = OpenCvSource("/dev/video0", CameraOptions(retry_s=5))
    frames = source.frames()
    assert [next(frames)[0, 0, 0] for _ in range(2)] == [1, 2]
    notices = []
    with mock.patch.object(cameras.time, "sleep", side_effect=lambda s: notices.append((source.notice, round(s, 3)))):
        assert next(frames)[0, 0, 0] == 3
    waits = [(notice, wait) for notice, wait in notices if notice]
    dropped = "/dev/video0 dropped: opening it again"
    assert waits == [(f"{dropped}, attempt 1", 0.01), (f"{dropped}, attempt 2", 0.02)]  # twice as long each time
    assert source.notice == ""
    assert caplog.messages == [dropped, "/dev/video0 is back"]
    assert next(frames)[0, 0, 0] == 4
    assert len(asked) == 4


def test_camera_that_does_not_come_back(opened):
    opened(FakeCapture([1]), *[FakeCapture([])] * 50)
    frames = OpenCvSource(0, CameraOptions(retry_s=0.05)).frames()
    next(frames)
    with pytest.raises(InputError, match=r"camera 0 dropped, and could not be opened again for 0.05 seconds \(--retry"):
        next(frames)


def test_dropped_source_is_not_silent_to_its_reader():
    source = FakeSource(live=True, num_frames=1, stuck=True)
    with Capture(source, timeout_s=0.05) as capture:
        capture.read()
        source.notice = "opening it again"
        assert capture.read(0.2) is None
        assert capture.status == "opening it again"
        source.notice = ""
        with pytest.raises(InputError, match="gave no frame"):
            while True:
                capture.read(0.2)


class Stream(BaseHTTPRequestHandler):
    """Motion JPEG: each connection sends 3 pictures of its own gray and is cut; the second one is refused."""

    def do_GET(self):
        self.server.count += 1
        if self.server.count == 2:
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        jpeg = encoded(np.full((48, 64, 3), 60 * self.server.count, np.uint8))
        for _ in range(3):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, *args):
        pass


def test_stream_that_is_cut_goes_on(monkeypatch, caplog):
    pytest.importorskip("cv2")
    monkeypatch.setattr(cameras, "_FIRST_WAIT_S", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        server.count = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/stream.mjpg"
        frames = open_source(url, CameraOptions(timeout_s=5, retry_s=10)).frames()
        levels = [int(next(frames)[24, 32, 0]) for _ in range(8)]
        frames.close()
        server.shutdown()
    assert levels == pytest.approx([60] * 3 + [180] * 3 + [240] * 2, abs=2)
    assert caplog.messages == [f"{url} dropped: opening it again", f"{url} is back"] * 2


def test_device_file_size_and_rate(opened):
    cv2 = pytest.importorskip("cv2")
    device = FakeCapture([1])
    asked = opened(device)
    source = open_source("/dev/video7", CameraOptions((640, 480), 25))
    next(source.frames())
    assert asked == [("/dev/video7", cv2.CAP_V4L2)]
    keys = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    assert [call.args for call in device.set.call_args_list] == list(zip(keys, (640, 480, 25), strict=True))
    assert (source.name, source.live, source.mirrored) == ("/dev/video7", True, True)


def test_pipelines(opened, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  Video I/O:\n    GStreamer:   YES (1.22.0)\n")
    for text, parts in (
        ("csi", ["nvarguscamerasrc sensor-id=0 ", "framerate=20/1", "width=640, height=480, format=BGRx"]),
        ("csi:1", ["nvarguscamerasrc sensor-id=1 "]),
        ("picamera", ["libcamerasrc ! ", "width=640, height=480, framerate=20/1"]),
        ("videotestsrc ! videoconvert ! appsink", ["videotestsrc ! videoconvert ! appsink"]),
    ):
        asked = opened(FakeCapture([1]))
        source = open_source(text, CameraOptions((640, 480), 20))
        next(source.frames())
        ((pipeline, backend),) = asked
        assert backend == cv2.CAP_GSTREAMER
        assert pipeline.split(" ! ")[-1].startswith("appsink")
        assert all(part in pipeline for part in parts)
        assert source.name == (text if " ! " not in text else "GStreamer pipeline")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:   NO\n")
    with pytest.raises(InputError, match="built without GStreamer"):
        next(open_source("csi").frames())
