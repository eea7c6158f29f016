"""The demo's web page: what it serves, what it refuses, and the page itself in a browser."""

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from online_demo import main as demo
from online_demo.backends.base import TorchBackend
from online_demo.camera.sources import FolderSource
from online_demo.model import load_model
from online_demo.recognizer import Recognizer
from online_demo.show.draw import BAR_HEIGHT, WIDTH
from online_demo.smoothing import SmoothingOptions
from online_demo.web import watching
from online_demo.web.serve import MAX_BODY_BYTES, PageServer, is_own_name, parse_address
from ops.common.errors import InputError
from tests.online_demo.chromium import find_chromium, headless, write_y4m
from tests.online_demo.helpers import picture, save_knowing_pictures


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_knowing_pictures(tmp_path_factory.mktemp("weights") / "pictures.pth.tar"))


@pytest.fixture
def server(model):
    with PageServer(("127.0.0.1", 0), lambda: Recognizer(model, TorchBackend(model), SmoothingOptions())) as server:
        yield server


def jpeg(image, quality=90):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ask(server, method, path, body=None, headers=None):
    """(status, headers, body) of a request."""
    host, port = server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.request(method, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()


def post(server, path, body=b""):
    status, _, text = ask(server, "POST", path, body)
    return status, json.loads(text)


@contextlib.contextmanager
def playing(server, model, folder):
    """The demo's loop over a folder of frames, in a thread, shown on the page."""
    stop = threading.Event()
    options = {"every": 1, "mirrored": False, "paced": True, "loop": True, "max_frames": None, "timeout_s": 20}
    recognizer = Recognizer(model, TorchBackend(model), SmoothingOptions())
    source = FolderSource(folder)

    def run():
        demo.run_source(source, recognizer, [server.page], stopped=stop.is_set, **options)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def save_folder(folder, index, num_frames=6):
    folder.mkdir()
    for number in range(num_frames):
        Image.fromarray(picture(index)).save(folder / f"{number:05d}.png")
    return folder


# --- the server -------------------------------------------------------------------------------------------------------


def test_address():
    assert parse_address("8000") == ("127.0.0.1", 8000)
    assert parse_address(":8000") == ("127.0.0.1", 8000)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:8000") == ("::1", 8000)
    for text in ("", "host", "8000:", "1:2:x", "70000", "-1"):
        with pytest.raises(InputError, match="PORT"):
            parse_address(text)


def test_port_in_use_is_one_line(server):
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(InputError, match="cannot listen there"):
        PageServer(("127.0.0.1", port), lambda: None)


def test_page_comes_with_strict_headers(server):
    for path, kind, text in (
        ("/", "text/html", b"page.js"),
        ("/page.js", "text/javascript", b"getUserMedia"),
        ("/page.css", "text/css", b"{"),
    ):
        status, headers, body = ask(server, "GET", path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert text in body
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    ["/main.py", "/../main.py", "/page/index.html", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/index.html",
     "/frame", "/page.js/../../serve.py", "file:///etc/passwd", "/?x=/etc/passwd/.."],
)  # fmt: skip
def test_no_file_can_be_reached(server, path):
    status, _, body = ask(server, "GET", path)
    if path.startswith("/?"):
        assert b"page.js" in body
    else:
        assert (status, json.loads(body)) == (404, {"error": "no such page"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8000"}, 403),  # DNS rebinding
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "192.168.1.7"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": ""}, 403),
        ({"Host": "localhost:8000", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "null"}, 403),
    ],
)
def test_strange_pages_are_refused(server, headers, status):
    assert ask(server, "GET", "/", headers=headers)[0] == status
    assert ask(server, "POST", "/session", b"", headers=headers)[0] == status


def test_own_names():
    assert is_own_name("127.0.0.1")
    assert is_own_name("fe80::1%eth0")
    assert is_own_name(socket.gethostname())
    assert not is_own_name("localhost.evil.example")
    assert not is_own_name("")


def test_each_browser_has_a_state_of_its_own(server, model):
    first, second = (post(server, "/session")[1]["session"] for _ in range(2))
    assert first != second
    alone = Recognizer(model, TorchBackend(model), SmoothingOptions())
    for _ in range(5):
        body = jpeg(picture(1))
        wanted = alone(np.array(Image.open(io.BytesIO(body))))
        status, result = post(server, f"/frame?session={first}", body)
        assert status == 200
        assert (result["label"], result["top"]) == (wanted.label, wanted.to_dict()["top"])
        assert result["network_ms"] > 0
        post(server, f"/frame?session={second}", jpeg(picture(4)))
    assert result["label"] == "picture 1"
    assert post(server, f"/end?session={first}") == (200, {})
    status, result = post(server, f"/frame?session={first}", body)
    assert (status, result) == (410, {"error": "this session is over; begin another one"})


def test_bad_frames(server):
    session = post(server, "/session")[1]["session"]
    frame = f"/frame?session={session}"
    good = jpeg(picture(1))
    assert post(server, frame, b"no picture")[0] == 400
    assert post(server, frame, b"")[0] == 400
    assert post(server, frame, good[: len(good) // 2])[0] == 400
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "PNG")
    assert post(server, frame, buffer.getvalue())[0] == 400
    huge = jpeg(np.zeros((2000, 2000, 3), np.uint8))
    assert "more than the limit" in post(server, frame, huge)[1]["error"]
    assert post(server, "/frame", good)[0] == 410
    assert post(server, "/elsewhere", good)[0] == 404
    assert post(server, frame, good)[0] == 200
    gray = jpeg(picture(1)[:, :, 0])
    assert post(server, frame, gray)[0] == 200


def test_body_limits(server):
    host, port = server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
    for header, status in ((f"Content-Length: {MAX_BODY_BYTES + 1}", 413), ("X: 1", 411), ("Content-Length: -5", 411)):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"POST /frame HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
            assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_too_many_browsers(server, monkeypatch):
    for _ in range(watching.MAX_SESSIONS):
        assert post(server, "/session")[0] == 200
    status, reply = post(server, "/session")
    assert status == 503
    assert "try again" in reply["error"]
    monkeypatch.setattr(watching, "SESSION_IDLE_S", -1.0)  # all of them have gone silent
    assert post(server, "/session")[0] == 200


def test_annotated_stream_and_results(server, model, tmp_path):
    with playing(server, model, save_folder(tmp_path / "frames", 3)):
        host, port = server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
            connection.request("GET", "/stream.mjpg")
            reply = connection.getresponse()
            assert reply.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            for _ in range(3):
                assert reply.readline() == b"--frame\r\n"
                assert reply.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(reply.readline().split()[1])
                assert reply.readline() == b"\r\n"
                image = np.array(Image.open(io.BytesIO(reply.read(length))))
                assert reply.readline() == b"\r\n"
        assert image.shape == (480 + BAR_HEIGHT, WIDTH, 3)
        shown = np.asarray(Image.fromarray(picture(3)).resize((640, 480), Image.Resampling.BILINEAR), float)
        assert np.abs(image[:480] - shown).mean() < 4
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
            connection.request("GET", "/results")
            reply = connection.getresponse()
            results = []
            while len(results) < 3:
                line = reply.readline()
                if line.startswith(b"data: "):
                    results.append(json.loads(line[6:]))
    numbers = [result["frame"] for result in results]
    assert numbers == sorted(set(numbers))
    assert {"capture_ms", "network_ms", "draw_ms", "fps", "top"} <= set(results[0])


def test_pictures_are_coded_only_while_somebody_watches(server, monkeypatch):
    coded = []
    monkeypatch.setattr(watching, "encode_jpeg", lambda image: coded.append(1) or b"jpeg")
    shown = type("Shown", (), {"is_new": True})()
    server.page.show(picture(0), shown)
    assert coded == []
    with server.page.viewer() as admitted:
        assert admitted
        server.page.show(picture(0), shown)
    assert coded == [1]


def test_viewers_are_limited(server):
    with contextlib.ExitStack() as stack:
        for _ in range(watching.MAX_VIEWERS):
            stack.enter_context(server.page.viewer())
        assert ask(server, "GET", "/stream.mjpg")[0] == 503
        assert ask(server, "GET", "/results")[0] == 503


def test_server_stops_at_once_with_somebody_watching(model):
    with PageServer(("127.0.0.1", 0), lambda: None) as server:
        host, port = server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", "/results")
        reply = connection.getresponse()
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert b"data" not in reply.read()
    connection.close()


# --- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture
def browser_folder(tmp_path):
    find_chromium()
    return tmp_path


def test_page_shows_the_servers_source(server, model, browser_folder):
    with (
        playing(server, model, save_folder(browser_folder / "frames", 3)),
        headless(browser_folder) as browser,
    ):
        browser.open(server.url)
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 3'", 60)
        browser.wait_for("document.getElementById('stream').naturalWidth == 640", 30)
        names = browser.evaluate(
            "[...document.querySelectorAll('#top li span span:first-child')].map(e => e.textContent)"
        )
        assert len(names) == 5
        assert names[0] == "picture 3"
        assert float(browser.evaluate("document.querySelector('#top .bar').style.width").rstrip("%")) > 80
        figures = browser.evaluate("document.getElementById('times').innerText")
        for name in ("Capture", "Network", "Drawing", "Frames a second"):
            assert name in figures
        _keep(browser, "page_server.png")


def test_page_recognises_the_browsers_camera(server, model, browser_folder):
    """The fake camera plays a clip; the label on the page is what the network says of that clip."""
    clip = [picture(1, (320, 240))] * 10
    recognizer = Recognizer(model, TorchBackend(model), SmoothingOptions())
    expected = [recognizer(frame).label for frame in clip][-1]
    assert expected == "picture 1"
    film = write_y4m(browser_folder / "camera.y4m", clip)
    options = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    with (
        playing(server, model, save_folder(browser_folder / "frames", 3)),  # the server's own source says otherwise
        headless(browser_folder, *options) as browser,
    ):
        browser.open(server.url)
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 3'", 60)
        browser.evaluate("document.getElementById('camera').click()")
        browser.wait_for(f"document.getElementById('label')?.textContent == '{expected}'", 60)
        browser.wait_for("document.getElementById('times').innerText.includes('Transfer')", 20)
        assert browser.evaluate("document.getElementById('video').videoWidth") == 320
        assert browser.evaluate("document.getElementById('status')?.textContent") == ""
        _keep(browser, "page_camera.png")
        browser.evaluate("document.getElementById('camera').click()")
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 3'", 60)
        assert browser.evaluate("document.getElementById('video').hidden")


def _keep(browser, name):
    """Screenshots to look at, where TSM_TEST_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("TSM_TEST_SCREENSHOTS")
    if folder:
        browser.screenshot(Path(folder) / name)
