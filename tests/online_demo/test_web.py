"""The demo's web server: what it serves and what it refuses."""

import asyncio
import contextlib
import http.client
import io
import json
import socket
import time

import numpy as np
import pytest
from PIL import Image

from online_demo.main import parse_address
from online_demo.recognizer import Result
from online_demo.show.draw import BAR_HEIGHT, WIDTH
from online_demo.show.outputs import Shown
from ops.common.errors import InputError
from tests.helpers import PROJECT
from tests.online_demo.helpers import encoded, picture, wait_until

aiohttp = pytest.importorskip("aiohttp")
from online_demo.web import server as web  # noqa: E402
from online_demo.web.server import PageServer  # noqa: E402

HTML = "<img src=x onerror=alert(1)>\"'&</script>"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SHOWN = Shown(0, 0.0, Result(HTML, 0, HTML, ((HTML, 1.0),), 1.0), True, 1.0, 1.0, 1.0)


@contextlib.contextmanager
def asked(server, path, method="GET", headers=None):
    """The answer to a request, its body not yet read."""
    host, port = server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.request(method, path, headers=headers or {})
        yield connection.getresponse()


def status_of(server, path, **options):
    with asked(server, path, **options) as reply:
        return reply.status


def send_frames(server, *streams):
    """Send JPEGs over a WebSocket a stream, in turns; returns the answers of each, None where the server closed it."""

    async def run():
        async with aiohttp.ClientSession() as client, contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(client.ws_connect(f"{server.url}camera")) for _ in streams]
            answers = [[] for _ in streams]
            for frames in zip(*streams, strict=True):
                for browser, frame, got in zip(sockets, frames, answers, strict=True):
                    if not browser.closed:
                        await browser.send_bytes(frame)
                    message = await browser.receive(timeout=20)
                    got.append(message.json() if message.type == aiohttp.WSMsgType.TEXT else None)
            return answers

    return asyncio.run(run())


# --- what it serves and refuses ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("path", "method", "status", "kind", "text"),
    [
        ("/", "GET", 200, "text/html", b"page.js"),
        ("/", "HEAD", 200, "text/html", b""),
        ("/page.js", "GET", 200, "text/javascript", b"getUserMedia"),
        ("/page.css", "GET", 200, "text/css", b"{"),
        ("/", "POST", 405, "text/plain", b""),
        ("/stream.mjpg", "HEAD", 405, "text/plain", b""),
        ("/nothing", "GET", 404, "text/plain", b""),
        ("/camera", "GET", 400, "text/plain", b""),  # no WebSocket
    ],
)
def test_every_answer_has_strict_headers(server, path, method, status, kind, text):
    with asked(server, path, method) as reply:
        assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (status, kind)
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert reply.headers["Server"] == "tsm"
        assert text in reply.read()


@pytest.mark.parametrize(
    "path",
    ["/main.py", "/../main.py", "/page/index.html", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/index.html",
     "/page.js/../../server.py", "file:///etc/passwd", "/page.js/../../../../../etc/passwd"],
)  # fmt: skip
def test_no_file_can_be_reached(server, path):
    assert status_of(server, path) in (400, 404)


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"Host": "evil.example:8000"}, False),  # DNS rebinding
        ({"Host": "localhost.evil.example"}, False),
        ({"Host": "localhost:8000"}, True),
        ({"Host": "192.168.1.7"}, True),
        ({"Host": "[::1]:8000"}, True),
        ({"Host": "[fe80::1%eth0]"}, True),
        ({"Host": socket.gethostname()}, True),
        ({"Host": ""}, False),
        ({"Host": "["}, False),
        ({"Host": "localhost:8000", "Origin": "http://evil.example"}, False),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, True),
        ({"Host": "localhost:8000", "Origin": "null"}, False),
    ],
)
def test_other_sites_pages_are_refused(server, headers, is_allowed):
    with asked(server, "/", headers=headers) as reply:
        assert reply.status == (200 if is_allowed else 403)
        assert "Content-Security-Policy" in reply.headers
    assert status_of(server, "/camera", headers={**headers, **UPGRADE}) == (101 if is_allowed else 403)


# --- browsers' cameras ------------------------------------------------------------------------------------------------


def test_each_browser_has_a_state_of_its_own(server, make_recognizer):
    alone = make_recognizer()
    frame = encoded(picture(1))
    wanted = [alone(np.array(Image.open(io.BytesIO(frame)))) for _ in range(5)]
    first, _ = send_frames(server, [frame] * 5, [encoded(picture(4))] * 5)
    assert [result["label"] for result in first] == [result.label for result in wanted]
    assert [result["top"] for result in first] == [result.to_dict()["top"] for result in wanted]
    assert first[-1]["label"] == "picture 1"
    assert first[-1]["network_ms"] > 0
    wait_until(lambda: server.num_cameras == 0)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (b"no picture", "not a JPEG"),
        (b"", "not a JPEG"),
        (encoded(picture(1))[:2000], "not a JPEG picture, or a damaged one"),
        (encoded(picture(1), "PNG"), "not a JPEG"),
        (encoded(np.zeros((2000, 2000, 3), np.uint8)), "more than the limit"),
    ],
    ids=["text", "nothing", "cut", "png", "huge"],
)
def test_a_bad_frame_ends_its_stream_with_an_error(server, frame, problem):
    good = encoded(picture(1))
    (bad,) = send_frames(server, [good, frame, good])
    assert "label" in bad[0] and problem in bad[1]["error"] and bad[2] is None
    (gray,) = send_frames(server, [encoded(picture(1)[:, :, 0])])
    assert "label" in gray[0]


def test_a_frame_of_too_many_bytes_ends_its_stream(server):
    assert send_frames(server, [bytes(web.MAX_FRAME_BYTES + 1)]) == [[None]]


def test_places_are_limited_and_freed_when_a_browser_leaves(server):
    frame = encoded(picture(1))
    answers = send_frames(server, *[[frame]] * (web.MAX_CAMERAS + 1))
    assert all("label" in answer for (answer,) in answers[:-1])
    assert "try again" in answers[-1][0]["error"]
    wait_until(lambda: server.num_cameras == 0)
    with asked(server, "/camera", headers=UPGRADE):  # its end closes the connection without a word
        wait_until(lambda: server.num_cameras == 1)
    wait_until(lambda: server.num_cameras == 0)


# --- the server's own source ------------------------------------------------------------------------------------------


def test_annotated_stream_and_results(server, playing):
    with asked(server, "/stream.mjpg") as reply:
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
    with asked(server, "/results") as reply:
        lines = [reply.readline() for _ in range(6)]
    results = [json.loads(line.removeprefix(b"data: ")) for line in lines[::2]]
    numbers = [result["frame"] for result in results]
    assert numbers == sorted(set(numbers))
    assert {"capture_ms", "network_ms", "draw_ms", "fps", "top"} <= set(results[0])


def test_labels_with_html_stay_text_on_the_page(server):
    """They travel as JSON and are put in as text; the page's policy forbids scripts in it besides."""
    with asked(server, "/results") as reply:
        server.show(picture(0), SHOWN)
        assert json.loads(reply.readline().removeprefix(b"data: "))["label"] == HTML
        assert reply.headers["Content-Type"] == "text/event-stream"
    for name in ("index.html", "page.js"):
        text = (PROJECT / "online_demo/web/page" / name).read_text()
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("))


def test_pictures_are_encoded_only_while_a_browser_watches(server, monkeypatch):
    encoded = []
    monkeypatch.setattr(web, "encode_jpeg", lambda image: encoded.append(1) or b"jpeg")
    server.show(picture(0), SHOWN)
    assert encoded == []
    with asked(server, "/stream.mjpg"):
        server.show(picture(0), SHOWN)
        assert encoded == [1]
    wait_until(lambda: server.num_viewers == 0)


def test_viewers_are_limited(server):
    with contextlib.ExitStack() as stack:
        for _ in range(web.MAX_VIEWERS):
            stack.enter_context(asked(server, "/results"))
        assert status_of(server, "/stream.mjpg") == 503
    wait_until(lambda: server.num_viewers == 0)
    assert status_of(server, "/stream.mjpg") == 200


def test_server_stops_at_once_while_a_browser_watches():
    with PageServer(("127.0.0.1", 0), lambda: None) as server, contextlib.ExitStack() as stack:
        reply = stack.enter_context(asked(server, "/results"))
        stack.pop_all()
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert b"data" not in reply.read()
