"""The demo's page in a browser."""

from tests.online_demo.chromium import headless
from tests.online_demo.helpers import encoded, picture, wait_until


def test_page_shows_the_servers_source(server, playing, tmp_path, screenshots):
    with headless(tmp_path) as browser:
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
        browser.screenshot(screenshots / "page_server.png")


def test_page_recognises_the_browsers_camera(server, playing, tmp_path, screenshots):
    """The fake camera plays picture 1, which the server's own source never shows."""
    (tmp_path / "camera.mjpeg").write_bytes(encoded(picture(1, (320, 240))) * 10)
    options = ("device-for-media-stream", "ui-for-media-stream")
    clip = f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}"
    with headless(tmp_path, *(f"--use-fake-{option}" for option in options), clip) as browser:
        browser.open(server.url)
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 3'", 60)
        browser.evaluate("document.getElementById('camera').click()")
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 1'", 60)
        browser.wait_for("document.getElementById('times').innerText.includes('Transfer')", 20)
        assert browser.evaluate("document.getElementById('video').videoWidth") == 320
        assert browser.evaluate("document.getElementById('status')?.textContent") == ""
        assert server.num_cameras == 1
        browser.screenshot(screenshots / "page_camera.png")
        browser.evaluate("document.getElementById('camera').click()")
        browser.wait_for("document.getElementById('label')?.textContent == 'picture 3'", 60)
        assert browser.evaluate("document.getElementById('video').hidden")
        wait_until(lambda: server.num_cameras == 0)
