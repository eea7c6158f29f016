"""The demo's page in a browser: what it shows, each state that it can be in, and whether people can read and use it."""

import subprocess
from dataclasses import replace

import pytest

from online_demo.recognizer import Result
from online_demo.show.outputs import Shown
from tests.online_demo.chromium import headless
from tests.online_demo.helpers import encoded, picture, wait_until

SIZES = ((1280, 800), (390, 844), (320, 640))


def text_of(identifier):
    return f"document.getElementById('{identifier}')?.textContent"


def click(browser, identifier):
    browser.evaluate(f"document.getElementById('{identifier}').click()")


def wait_for_text(browser, identifier, text, timeout_s=60):
    browser.wait_for(f"{text_of(identifier)} == {text!r}", timeout_s)


def wait_for_notice(browser, words):
    browser.wait_for(f"{text_of('notice')}.includes({words!r})", 60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser without a camera. Pages of http://board.test are pages of this machine, but not to the browser."""
    with headless(tmp_path_factory.mktemp("browser"), "--host-resolver-rules=MAP board.test 127.0.0.1") as browser:
        yield browser
        browser.open("about:blank")


@pytest.fixture(scope="module")
def camera_browser(tmp_path_factory):
    """A browser whose camera plays picture 1, which the server's own source never shows."""
    folder = tmp_path_factory.mktemp("camera_browser")
    (folder / "camera.mjpeg").write_bytes(encoded(picture(1, (320, 240))) * 10)
    options = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with headless(folder, *options, f"--use-file-for-fake-video-capture={folder / 'camera.mjpeg'}") as browser:
        yield browser
        browser.open("about:blank")


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The script of axe-core, which finds what people with disabilities could not use."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--offline", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        subprocess.run([*command, "axe-core@4"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("npm's cache holds no axe-core (npm cache add axe-core@4)")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


# --- the server's source ----------------------------------------------------------------------------------------------


def test_what_it_shows(server, playing, browser, screenshots):
    browser.open(server.url)
    wait_for_text(browser, "label", "picture 3")
    browser.wait_for("document.getElementById('picture').naturalWidth == 640", 30)
    wait_for_text(browser, "badge", "live")
    assert int(browser.evaluate(text_of("certainty")).rstrip("\xa0%")) > 80
    assert browser.evaluate(text_of("about")) == "still pictures · pictures.pth.tar, 5 classes"
    assert browser.evaluate(text_of("todo")) == "Show one of the pictures."
    chips = browser.evaluate("[...document.querySelectorAll('#classes li')].map(e => [e.textContent, e.className])")
    assert [name for name, _ in chips] == [f"picture {index}" for index in range(5)]
    assert [name for name, mark in chips if mark == "now"] == ["picture 3"]
    assert browser.evaluate("document.querySelectorAll('#top li').length") == 5
    first, when = browser.evaluate("[...document.querySelector('#history li').children].map(e => e.textContent)")
    assert first.startswith("picture 3, ") and when.count(":") == 2
    browser.wait_for("document.querySelectorAll('#times tr').length == 4", 20)
    rows = browser.evaluate(
        "[...document.querySelectorAll('#times tr')].map(e => [...e.children].map(e => e.innerText))"
    )
    assert [name for name, *_ in rows] == ["Capture", "Network", "Drawing", "Camera to answer"]
    assert all(0 <= float(mean) < 20_000 and float(p95) > 0 for _, mean, p95 in rows)
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    for width, height in SIZES:
        for name, options in (("light", {}), ("dark", {"dark": True}), ("forced", {"forced_colors": True})):
            browser.look(width, height, **options)
            browser.screenshot(screenshots / f"page_{width}_{name}.png")


def test_it_can_be_read_and_used(server, playing, browser, axe):
    browser.open(server.url)
    wait_for_text(browser, "badge", "live")
    browser.evaluate(axe)
    for (width, height), dark in zip((*SIZES, *SIZES), (False, True, False, True, False, True), strict=True):
        browser.look(width, height, dark=dark)
        problems = browser.evaluate(
            "axe.run().then(({violations}) => violations.filter(({impact}) => /serious|critical/.test(impact))"
            ".map(({id, nodes}) => id + ': ' + nodes.map(({html}) => html).join(', ')))"
        )
        assert problems == []


def test_small_screens_and_keys(server, playing, browser):
    browser.look(320, 640)
    browser.open(server.url)
    wait_for_text(browser, "label", "picture 3")
    targets = "[...document.querySelectorAll('button, select')].filter(e => e.offsetParent)"
    sizes = browser.evaluate(f"{targets}.map(e => [e.offsetWidth, e.offsetHeight])")
    assert sizes and all(width >= 44 and height >= 44 for width, height in sizes)
    click(browser, "pause")
    name = "Donaudampfschifffahrt" * 9
    for selector in ("#label", "#top li span", "#history li span", "#classes li", "#about", "#notice"):
        browser.evaluate(f"document.querySelector('{selector}').textContent = '{name}'")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), selector
    browser.open(server.url)
    wait_for_text(browser, "badge", "live")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "camera"
    browser.press("Tab")
    browser.press("Enter")
    wait_for_text(browser, "badge", "paused")
    assert browser.evaluate(text_of("pause")) == "Continue"
    assert browser.evaluate("document.body.classList.contains('stale')")
    wait_until(lambda: server.num_viewers == 0)
    browser.press("Enter")
    wait_for_text(browser, "badge", "live")


def test_screen_readers_hear_changes_only(server, playing, browser):
    browser.open(server.url)
    wait_for_text(browser, "spoken", "picture 3")
    changes = browser.evaluate(
        "new Promise(done => { let count = 0; const seen = new MutationObserver(() => count++); "
        "for (const node of document.querySelectorAll('[aria-live], [role=status]'))"
        " seen.observe(node, {childList: true, characterData: true, subtree: true});"
        "setTimeout(() => done(count), 1500); })"
    )
    assert changes == 0


def test_unsure_and_a_source_that_drops(server, browser, screenshots):
    unsure = Result("unsure", None, 0.4, "picture 1", (("picture 1", 0.4), ("picture 2", 0.3)), 1.0)
    shown = Shown(0, 0.0, unsure, True, 1.0, 1.0, 30.0)
    browser.look(1280, 800)
    browser.open(server.url)
    wait_for_text(browser, "badge", "live")
    server.show(picture(1), shown)
    wait_for_text(browser, "label", "unsure")
    assert browser.evaluate(text_of("certainty")) == "40\xa0%"
    assert browser.evaluate("document.body.classList.contains('unsure')")
    assert browser.evaluate("document.querySelectorAll('#history li, #classes .now').length") == 0
    browser.screenshot(screenshots / "page_unsure.png")
    server.show(picture(1), replace(shown, is_new=False, status="camera 0 dropped: opening it again, attempt 1"))
    wait_for_notice(browser, "Camera 0 dropped: opening it again, attempt 1.")
    assert browser.evaluate(text_of("badge")) == "reconnecting"
    assert browser.evaluate("document.body.classList.contains('stale')")
    browser.screenshot(screenshots / "page_source_dropped.png")
    server.show(picture(1), replace(shown, number=1))
    wait_for_text(browser, "badge", "live")


def test_full_screen(server, playing, browser, screenshots):
    browser.look(1280, 800)
    browser.open(server.url)
    wait_for_text(browser, "label", "picture 3")
    click(browser, "full")
    browser.wait_for("document.fullscreenElement?.id == 'stage'", 20)
    whole = browser.evaluate(
        "['picture', 'answer'].map(id => document.getElementById(id).getBoundingClientRect().bottom)"
    )
    assert 0 < whole[0] <= whole[1] <= browser.evaluate("innerHeight")
    browser.screenshot(screenshots / "page_full_screen.png")
    browser.evaluate("document.exitFullscreen()")


# --- connections ------------------------------------------------------------------------------------------------------


def test_it_connects_again_by_itself(make_recognizer, about, browser, screenshots):
    from online_demo.web import messages
    from online_demo.web.server import PageServer

    browser.look(390, 844)
    with PageServer(("127.0.0.1", 0), make_recognizer, about) as server:
        browser.open(server.url)
        wait_for_text(browser, "badge", "live")
        address = ("127.0.0.1", int(server.url.rstrip("/").rsplit(":", 1)[1]))
    wait_for_text(browser, "badge", "ended")
    wait_for_notice(browser, "The demo has ended. Start it again")
    browser.screenshot(screenshots / "page_ended.png")
    with pytest.MonkeyPatch.context() as patch, PageServer(address, make_recognizer, about):
        wait_for_text(browser, "badge", "live")
        assert browser.evaluate(text_of("notice")) == ""
        patch.setattr(messages, "ENDED", {"kind": "status", "text": ""})  # as of a server that is killed
    wait_for_notice(browser, "The server does not answer. Check that the demo is still running")
    assert browser.evaluate(text_of("badge")) == "reconnecting"
    browser.screenshot(screenshots / "page_reconnecting.png")
    with PageServer(address, make_recognizer, about):
        wait_for_text(browser, "badge", "live")


def test_full_server(server, browser, monkeypatch, screenshots):
    from online_demo.web import server as web

    monkeypatch.setattr(web, "MAX_VIEWERS", 0)
    browser.open(server.url)
    wait_for_notice(browser, "which is the limit. Close the page on another device")
    browser.screenshot(screenshots / "page_full.png")
    monkeypatch.undo()
    wait_for_text(browser, "badge", "live")
    wait_until(lambda: server.num_viewers == 1)
    browser.open("about:blank")
    wait_until(lambda: server.num_viewers == 0)


# --- this device's camera ---------------------------------------------------------------------------------------------


def test_camera(server, playing, camera_browser, screenshots):
    browser = camera_browser
    browser.look(390, 844)
    browser.open(server.url)
    wait_for_text(browser, "label", "picture 3")
    click(browser, "camera")
    wait_for_text(browser, "label", "picture 1")
    browser.wait_for("document.getElementById('times').innerText.includes('Transfer')", 20)
    assert "Camera to answer" in browser.evaluate("document.getElementById('times').innerText")
    assert browser.evaluate("document.getElementById('video').videoWidth") == 320
    assert browser.evaluate(text_of("notice")) == ""
    assert (server.num_cameras, server.num_viewers) == (1, 0)
    browser.screenshot(screenshots / "page_camera.png")
    click(browser, "pause")
    wait_for_text(browser, "badge", "paused")
    wait_until(lambda: server.num_cameras == 0)
    click(browser, "pause")
    wait_for_text(browser, "badge", "live")
    click(browser, "camera")
    wait_for_text(browser, "label", "picture 3")
    assert browser.evaluate("video.hidden")
    wait_until(lambda: server.num_cameras == 0)
    browser.open("about:blank")
    browser.open(f"{server.url}#camera")
    wait_for_text(browser, "label", "picture 1")
    browser.open("about:blank")
    wait_until(lambda: (server.num_cameras, server.num_viewers) == (0, 0))


def test_camera_chooser(server, playing, camera_browser, screenshots):
    """A phone's cameras by their usual names, of which the second is gone when it is chosen."""
    browser = camera_browser
    browser.look(390, 844)
    browser.open(server.url)
    wait_for_text(browser, "label", "picture 3")
    assert browser.evaluate("document.getElementById('chooser').hidden")
    browser.evaluate(
        "navigator.mediaDevices.enumerateDevices = async () => ['camera2 1, facing front', 'camera2 0, facing back']"
        ".map((label) => ({kind: 'videoinput', deviceId: label, label}))"
    )
    click(browser, "camera")
    wait_for_text(browser, "label", "picture 1")
    names = browser.evaluate("[...document.getElementById('device').options].map(e => e.textContent)")
    assert names == ["Front camera", "Back camera"]
    browser.screenshot(screenshots / "page_camera_chooser.png")
    browser.evaluate("(e => { e.selectedIndex = 1; e.dispatchEvent(new Event('change')); })(device)")
    wait_for_notice(browser, "That camera is gone. Choose another one")
    wait_for_text(browser, "label", "picture 3")


def test_camera_problems_have_a_next_step(server, playing, browser, screenshots):
    browser.look(390, 844)

    def problem(name, url=server.url, prepare="null"):
        browser.open("about:blank")
        browser.open(url)
        wait_for_text(browser, "label", "picture 3")
        browser.evaluate(prepare)
        click(browser, "camera")
        notice = browser.wait_for(text_of("notice"), 20)
        wait_for_text(browser, "badge", "live")  # the server's source is still shown
        browser.screenshot(screenshots / f"page_camera_{name}.png")
        return notice

    assert problem("missing").startswith("This device has no camera that the browser can see. Plug one in,")
    fails = "navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{}'); }}"
    assert "in use by another program or page. Close" in problem("in_use", prepare=fails.format("NotReadableError"))
    assert "not allowed to use the camera. Allow it" in problem("denied", prepare=fails.format("NotAllowedError"))
    port = server.url.rstrip("/").rsplit(":", 1)[1]
    insecure = problem("insecure", url=f"http://board.test:{port}/")
    assert f"ssh -L {port}:localhost:{port} board.test" in insecure and "--cert" in insecure


def test_camera_that_is_not_allowed(server, playing, tmp_path):
    """Refused by the browser itself, as after a user's no."""
    with headless(tmp_path, "--use-fake-device-for-media-stream") as browser:
        browser.deny_camera(server.url.rstrip("/"))
        browser.open(server.url)
        wait_for_text(browser, "label", "picture 3")
        click(browser, "camera")
        wait_for_notice(browser, "not allowed to use the camera")
