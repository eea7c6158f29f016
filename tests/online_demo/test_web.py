"""The demo's web server: what it serves and what it refuses."""

import asyncio
import contextlib
import http.client
import io
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from online_demo.main import parse_address
from online_demo.recognizer import Result
from online_demo.show.outputs import Shown
from online_demo.web.messages import About
from ops.common.errors import InputError
from tests.helpers import PROJECT
from tests.online_demo.helpers import encoded, picture, wait_until

aiohttp = pytest.importorskip("aiohttp")
from online_demo.web import server as web  # noqa: E402
from online_demo.web.guard import tls_context  # noqa: E402
from online_demo.web.server import PageServer  # noqa: E402

HTML = "<img src=x onerror=alert(1)>\"'&</script>"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SHOWN = Shown(0, 0.0, Result(HTML, 0, 1.0, HTML, ((HTML, 1.0),), 1.0), True, 1.0, 1.0, 1.0)
ABOUT = About("network", None, ("moves_up",), "Do something.")


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
            for browser in sockets:
                assert (await browser.receive_json(timeout=20))["kind"] == "about"
            answers = [[] for _ in streams]
            for frames in zip(*streams, strict=True):
                for browser, frame, got in zip(sockets, frames, answers, strict=True):
                    if not browser.closed:
                        await browser.send_bytes(frame)
                    message = await browser.receive(timeout=20)
                    got.append(message.json() if message.type == aiohttp.WSMsgType.TEXT else None)
            return answers

    return asyncio.run(run())


def watched(server, num_messages, acknowledge=True, act=lambda: None, **options):
    """The first messages that a viewer gets, JSON or bytes; `act` is called when it is connected."""

    async def run():
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{server.url}watch", **options) as browser:
            got = [await browser.receive_json(timeout=20)]
            wait_until(lambda: server.num_viewers > 0)
            act()
            while len(got) < num_messages:
                message = await browser.receive(timeout=20)
                is_text = message.type == aiohttp.WSMsgType.TEXT
                got.append(message.json() if is_text else message.data)
                if acknowledge and not is_text and not browser.closed:
                    await browser.send_str("shown")
            return got

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
        PageServer(("127.0.0.1", port), lambda: None, ABOUT)


def test_url_is_one_to_open():
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost")):
        with PageServer((host, 0), lambda: None, ABOUT) as server:
            assert re.fullmatch(rf"http://{shown}:\d+/", server.url)
            assert status_of(server, "/") == 200


@pytest.mark.parametrize(
    ("path", "method", "status", "kind", "text"),
    [
        ("/", "GET", 200, "text/html", b"page.js"),
        ("/", "HEAD", 200, "text/html", b""),
        ("/page.js", "GET", 200, "text/javascript", b"addEventListener"),
        ("/camera.js", "GET", 200, "text/javascript", b"getUserMedia"),
        ("/page.css", "GET", 200, "text/css", b"{"),
        ("/", "POST", 405, "text/plain", b""),
        ("/watch", "HEAD", 405, "text/plain", b""),
        ("/watch", "GET", 400, "text/plain", b""),  # no WebSocket
        ("/nothing", "GET", 404, "text/plain", b""),
        ("/camera", "GET", 400, "text/plain", b""),  # no WebSocket
    ],
)
def test_every_answer_has_strict_headers(server, path, method, status, kind, text):
    with asked(server, path, method) as reply:
        assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (status, kind)
        check_headers(reply.headers)
        assert text in reply.read()


def check_headers(headers):
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "tsm"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
        (b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
    ],
    ids=["bracket", "zero", "url", "no host", "tls"],
)
def test_malformed_requests_are_answered_with_the_same_headers(server, request_bytes, status, caplog):
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_bytes)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
    assert reply.status == status
    check_headers(reply.headers)
    assert not caplog.records


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


def test_allowed_host():
    with PageServer(("127.0.0.1", 0), lambda: None, ABOUT, allowed_hosts=["Board.example:8000"]) as server:
        for host, status in (("board.EXAMPLE:80", 200), ("board.example.", 200), ("evil.example", 403)):
            assert status_of(server, "/", headers={"Host": host}) == status


def test_https(tmp_path):
    """A certificate of its own, as the README makes one."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    with PageServer(("127.0.0.1", 0), lambda: None, ABOUT, tls=tls_context(cert, key)) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=cert)
        url = server.url.replace("127.0.0.1", "localhost")
        with urllib.request.urlopen(url, context=trusting, timeout=20) as reply:
            assert b"page.js" in reply.read()
        assert watched(server, 1, ssl=False, origin=server.url.rstrip("/"))[0]["kind"] == "about"
    with pytest.raises(InputError, match=r"key\.pem.* give a PEM certificate"):
        tls_context(key, cert)


# --- browsers' cameras ------------------------------------------------------------------------------------------------


def test_each_browser_has_a_state_of_its_own(server, make_recognizer):
    alone = make_recognizer()
    frame = encoded(picture(1))
    wanted = [alone(np.array(Image.open(io.BytesIO(frame))), 0.01 * number) for number in range(5)]
    first, _ = send_frames(server, [frame] * 5, [encoded(picture(4))] * 5)
    assert [result["label"] for result in first] == [result.label for result in wanted]
    assert [result["top"] for result in first] == [result.to_dict()["top"] for result in wanted]
    assert first[-1]["label"] == "picture 1"
    assert first[-1]["certainty"] == first[-1]["top"][0][1]
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
    assert "label" in bad[0] and bad[1]["reason"] == "frame" and problem in bad[1]["text"] and bad[2] is None
    (gray,) = send_frames(server, [encoded(picture(1)[:, :, 0])])
    assert "label" in gray[0]


def test_a_frame_of_too_many_bytes_ends_its_stream(server):
    assert send_frames(server, [bytes(web.MAX_FRAME_BYTES + 1)]) == [[None]]


def test_places_are_limited_and_freed_when_a_browser_leaves(server):
    frame = encoded(picture(1))
    answers = send_frames(server, *[[frame]] * (web.MAX_CAMERAS + 1))
    assert all("label" in answer for (answer,) in answers[:-1])
    assert answers[-1][0]["reason"] == "full"
    wait_until(lambda: server.num_cameras == 0)
    with asked(server, "/camera", headers=UPGRADE):  # its end closes the connection without a word
        wait_until(lambda: server.num_cameras == 1)
    wait_until(lambda: server.num_cameras == 0)


# --- the server's own source ------------------------------------------------------------------------------------------


def test_pictures_and_answers(server, playing):
    about, *pairs = watched(server, 9)
    assert about == {
        "kind": "about", "network": "pictures.pth.tar, 5 classes", "source": "still pictures",
        "classes": [f"picture {index}" for index in range(5)], "todo": "Show one of the pictures.", "rate": None,
    }  # fmt: skip
    shown = np.asarray(Image.fromarray(picture(3)).resize((640, 480), Image.Resampling.BILINEAR), float)
    for answer, jpeg in zip(pairs[::2], pairs[1::2], strict=True):
        assert {"capture_ms", "network_ms", "draw_ms", "fps", "top", "certainty"} <= set(answer)
        assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg)), float) - shown).mean() < 4
    assert 0 < pairs[-2]["delay_ms"] < 20_000


def test_slow_viewer_misses_pictures(server):
    """Without acknowledgements only so many are sent; then the newest."""
    server.show(picture(0), SHOWN)  # while none watches

    def show_many():
        wait_until(lambda: server.num_viewers == 1)
        for number in range(6):
            server.show(picture(0), replace(SHOWN, fps=float(number)))
            time.sleep(0.02)

    got = watched(server, 5, acknowledge=False, act=show_many)
    assert [message["fps"] for message in got[1::2]] == [0.0, 1.0]


def test_names_are_readable_and_stay_text(server):
    """They travel as JSON and are put in as text; the page's policy forbids scripts in it besides."""
    result = Result("moves_up", None, 0.5, "moves_up", (("moves_up", 0.5), (HTML, 0.5)), 1.0)
    got = watched(server, 2, act=lambda: server.show(picture(0), replace(SHOWN, result=result)))
    assert got[1]["label"] == "moves up" and got[1]["unsure"] and got[1]["top"] == [["moves up", 0.5], [HTML, 0.5]]
    for path in (PROJECT / "online_demo/web/page").iterdir():
        text = path.read_text()
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("))


def test_status_reaches_the_viewers(server):
    silent = replace(SHOWN, number=-1, result=None, is_new=False, status="waiting for camera 0")
    got = watched(server, 2, act=lambda: server.show(picture(0), silent))
    assert got[1] == {"kind": "status", "text": "waiting for camera 0"}


def test_pictures_are_encoded_only_while_a_browser_watches(server, monkeypatch):
    encoded = []
    monkeypatch.setattr(web, "encode_jpeg", lambda image: encoded.append(1) or b"jpeg")
    server.show(picture(0), SHOWN)
    assert encoded == []
    assert watched(server, 3, act=lambda: server.show(picture(0), SHOWN))[2] == b"jpeg"
    assert encoded == [1]
    wait_until(lambda: server.num_viewers == 0)


def test_viewers_are_limited(server):
    with contextlib.ExitStack() as stack:
        for _ in range(web.MAX_VIEWERS):
            stack.enter_context(asked(server, "/watch", headers=UPGRADE))
        wait_until(lambda: server.num_viewers == web.MAX_VIEWERS)
        assert watched(server, 2)[1]["reason"] == "full"
    wait_until(lambda: server.num_viewers == 0)
    assert watched(server, 2)[1]["kind"] == "status"


def test_server_tells_its_viewers_when_it_ends_and_stops_at_once():
    server = PageServer(("127.0.0.1", 0), lambda: None, ABOUT).__enter__()
    ender = threading.Thread(target=server.__exit__)
    got = watched(server, 3, act=ender.start)
    assert got[1:] == [{"kind": "ended"}, 1000]
    ender.join(timeout=5)
    assert not ender.is_alive()
