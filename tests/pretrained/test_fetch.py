"""The fetcher, against a server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from ops.common.errors import InputError
from pretrained import fetch
from pretrained.download import download
from pretrained.table import load_table, local_path
from tests.helpers import run_cli

NAME = "jester_tsm_mobilenetv2_online"
FILE = "mobilenetv2_jester_online.pth.tar"
DATA = bytes(range(256)) * 4000  # 1,024,000 bytes
RELEASED = [row for row in load_table() if row.file]


class _Handler(BaseHTTPRequestHandler):
    """Serves `server.plan.files`; `plan` says what goes wrong."""

    def do_GET(self) -> None:
        plan = self.server.plan
        plan.requests.append((self.command, self.path))
        data = plan.files.get(self.path, b"")
        if self.path in plan.redirects:
            self.send_response(302)
            self.send_header("Location", plan.redirects[self.path])
        else:
            self.send_response(plan.status if self.path in plan.files else 404)
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # the client has seen enough
                self.wfile.write(data[: plan.cut])
            if plan.hang:
                plan.release.wait(20)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setenv("no_proxy", "*")
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = False  # joined on closing
    http.plan = SimpleNamespace(
        files={f"/{FILE}": DATA},
        requests=[],
        status=200,
        cut=None,
        redirects={},
        hang=False,
        release=threading.Event(),
        url=f"http://127.0.0.1:{http.server_address[1]}",
    )
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http.plan
    http.plan.release.set()
    http.shutdown()
    http.server_close()
    thread.join()


def _fetch(plan: SimpleNamespace, folder: Path, *more: str) -> int:
    return fetch.main([NAME, "--folder", str(folder), "--mirror", plan.url, *more])


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def test_fetched_once_then_checked(server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "new folder"
    assert _fetch(server, folder) == 0
    assert (folder / FILE).read_bytes() == DATA
    assert _names(folder) == ["checksums.json", FILE]
    recorded = json.loads((folder / "checksums.json").read_text())
    assert recorded == {FILE: {"sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA)}}
    server.requests.clear()
    assert _fetch(server, folder) == 0
    assert server.requests == []
    assert fetch.main([NAME, "--folder", str(folder), "--offline"]) == 0
    assert capsys.readouterr().out == f"{NAME}: {folder / FILE}\n" * 3
    (folder / FILE).write_bytes(DATA[:-1] + b"\x00")
    for use in (lambda: _fetch(server, folder), lambda: local_path(NAME, folder), lambda: local_path(folder / FILE)):
        with pytest.raises(InputError, match="is not the file that was recorded"):
            use()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"files": {}}, "HTTP Error 404: Not Found"),
        ({"status": 403}, "HTTP Error 403: Forbidden"),
        ({"cut": 300_000}, rf"broken off after 300000 of {len(DATA)} bytes; run again"),
        ({"cut": 100_000, "hang": True}, "timed out"),
        ({"files": {f"/{FILE}": b"  <!DOCTYPE html><p>Sign in"}}, "a web page, not a checkpoint"),
        ({"files": {f"/{FILE}": b""}}, "an empty file"),
        ({"redirects": {f"/{FILE}": "file:///etc/passwd"}}, "not allowed"),
        ({"redirects": {f"/{FILE}": "ftp://127.0.0.1/x"}}, "only https|cannot be fetched"),
    ],
)
def test_answers_that_are_no_file(server: SimpleNamespace, tmp_path: Path, change: dict, match: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(InputError, match=match) as caught:
        _fetch(server, tmp_path, "--timeout", "0.3")
    assert "\n" not in str(caught.value)
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 5}, rf"recorded: .* .{len(DATA)} bytes. arrived, .* .5 bytes. expected"),
        ({"sha256": "0" * 64}, r"recorded: sha256 [0-9a-f]{64} .* arrived, sha256 0{64} .* expected"),
    ],
)
def test_another_file_than_recorded_is_not_kept(
    server: SimpleNamespace, tmp_path: Path, changes: dict, match: str
) -> None:
    entry = {"sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA), **changes}
    (tmp_path / "checksums.json").write_text(json.dumps({FILE: entry}))
    with pytest.raises(InputError, match=match):
        _fetch(server, tmp_path)
    assert _names(tmp_path) == ["checksums.json"]


@pytest.mark.parametrize("disk_full", [False, True])
def test_a_failed_download_leaves_the_file_in_place(
    server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_full: bool
) -> None:
    (tmp_path / "x").write_bytes(b"old")
    if disk_full:
        full = OSError(28, "No space left on device")
        monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=full))
    else:
        server.cut = 300_000
    with pytest.raises(InputError, match="No space left on device" if disk_full else "broken off"):
        download(f"{server.url}/{FILE}", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old" and _names(tmp_path) == ["x"]


def test_redirects_are_followed(server: SimpleNamespace, tmp_path: Path) -> None:
    server.redirects = {f"/{FILE}": "/other"}
    server.files = {"/other": DATA}
    assert _fetch(server, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == DATA


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=rf"localhost:{port}.* cannot be fetched .*Connection refused.*--mirror"):
        fetch.main([NAME, "--folder", str(tmp_path), "--mirror", f"http://localhost:{port}"])


def test_mirror_may_be_a_folder(tmp_path: Path) -> None:
    source, here = tmp_path / "a mirror", tmp_path / "here"
    source.mkdir()
    (source / FILE).write_bytes(DATA)
    assert fetch.main([NAME, "--folder", str(here), "--mirror", source.as_uri()]) == 0
    assert (here / FILE).read_bytes() == DATA
    with pytest.raises(InputError, match="No such file"):
        fetch.main([NAME, "--folder", str(tmp_path / "there"), "--mirror", (tmp_path / "no").as_uri()])


def test_all_continues_after_a_failure(server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    server.files = {f"/{row.file}": DATA for row in RELEASED[1:]}
    with pytest.raises(InputError, match=rf"1 of 14 not fetched: {RELEASED[0].name}"):
        fetch.main(["--all", "--folder", str(tmp_path), "--mirror", server.url])
    assert capsys.readouterr().err.startswith(f"{RELEASED[0].name}: ")
    assert _names(tmp_path) == sorted([row.file for row in RELEASED[1:]] + ["checksums.json"])


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        ([], "give the names"),
        ([NAME, "--all"], "give the names"),
        ([NAME, "--timeout", "0"], "must be more than 0"),
        (["nothing"], "no published checkpoint"),
        ([NAME, "--offline"], "--offline does not fetch it"),
        *(
            ([NAME, "--mirror", url], "only https")
            for url in ("http://example.com", "ftp://localhost", "file://host/x")
        ),
        *(
            ([NAME, "--mirror", url], "only https|not a URL")
            for url in ("x", "https:///x", "https://a b/", "http://[::1")
        ),
    ],
    ids=str,
)
def test_wrong_arguments(tmp_path: Path, argv: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        fetch.main([*argv, "--folder", str(tmp_path)])
    assert _names(tmp_path) == []


def test_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"checksums\.json is damaged"):
        fetch.main([NAME, "--offline", "--folder", str(tmp_path)])


def test_list_and_errors_of_the_command(tmp_path: Path) -> None:
    listed = run_cli(["-m", "pretrained.fetch", "--list", "--folder", tmp_path])
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [row.name for row in load_table()]
    wrong = run_cli(["-m", "pretrained.fetch", "nothing"])
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
