"""The published checkpoints: table, fetcher against a server that misbehaves, reproduction, and every row's file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ops.checkpoint.file import load_checkpoint, load_into, options_from_name
from ops.checkpoint.weights import canonical_key
from ops.common.errors import InputError
from ops.models import build_model
from pretrained import fetch, reproduce, transfer
from pretrained.download import download
from pretrained.table import FOLDER, Row, find_row, load_table, local_path
from tests.helpers import PROJECT

ROOT = PROJECT
NAME = "jester_tsm_mobilenetv2_online"
FILE = "mobilenetv2_jester_online.pth.tar"
DATA = bytes(range(256)) * 4000  # 1,024,000 bytes
RELEASED = [row for row in load_table() if row.file]


# ----------------------------------------------------------------------------------------------------------- table


def test_the_table_is_the_published_one() -> None:
    assert len(load_table()) == 15 and len(RELEASED) == 14
    assert len({row.name for row in load_table()}) == 15
    figures = {(row.name, r.protocol.name): r.top1 for row in load_table() for r in row.results}
    assert len(figures) == 21
    assert figures["kinetics_tsm_resnet50_8f", "uniform10"] == 72.8
    assert figures["something_tsm_resnet50_16f", "accurate"] == 48.4
    assert find_row("kinetics_tsm_resnet50_flow_8f").results[0].top5 == 79.5
    assert {row.url for row in RELEASED} == {
        f"https://hanlab18.mit.edu/projects/tsm/models/{row.file}" for row in RELEASED
    }


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row.name)
def test_names_tell_the_same_as_the_columns(row: Row) -> None:
    options = options_from_name(row.file)
    assert (options.dataset, options.modality) == (row.dataset, row.modality)
    assert options.arch.lower() in row.model.lower().replace(" ", "")
    assert options.is_shift == ("TSM" in row.model)
    assert options.non_local == row.model.endswith("NL")
    assert options.online == ("streaming" in row.model)
    for name in row.names():
        assert find_row(name) is row


def test_protocols_are_the_papers() -> None:
    protocols = {result.protocol.name: set(result.protocol.options) for row in load_table() for result in row.results}
    assert protocols == {
        "efficient": {"--test_crops=1"},
        "uniform10": {"--test_crops=10"},
        "accurate": {"--twice_sample", "--test_crops=3", "--full_res"},
        "dense": {"--dense_sample", "--test_crops=3", "--full_res"},
    }


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(InputError, match="perhaps kinetics_tsm_resnet50_8f"):
        find_row("kinetics_tsm_resnet50")


def test_weights_are_a_file_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSM_PRETRAINED", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(InputError, match=rf"not there yet: run python -m pretrained.fetch {NAME}"):
        local_path(NAME)
    fetched = tmp_path / FILE
    fetched.write_bytes(b"x")
    for name in (NAME, FILE, "mobilenetv2_jester_online", f"pretrained/{FILE}", fetched):
        assert local_path(name) == fetched
    for name in ("nothing", f"elsewhere/{FILE}", tmp_path / "nothing"):
        with pytest.raises(InputError, match="no such file, and no published checkpoint of that name"):
            local_path(name)
    with pytest.raises(InputError, match="too long"):
        local_path("x" * 5000)
    with pytest.raises(InputError, match="only the figure of this model was published"):
        local_path("kinetics_tsm_resnext101_8f_dense")


# ---------------------------------------------------------------------------------------------------------- server


class _Handler(BaseHTTPRequestHandler):
    """Serves `server.plan.files`; `plan` says what goes wrong."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        plan = self.server.plan
        plan.requests.append((self.path, self.headers.get("Range")))
        status = plan.statuses.pop(0) if plan.statuses else 200
        if self.path in plan.redirects:
            self.send_response(302)
            self.send_header("Location", plan.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = plan.files.get(self.path)
        if data is None or status >= 400:
            self.send_response(404 if data is None else status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and plan.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked[1])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if plan.cuts:
            end = min(end, start + plan.cuts.pop(0))
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            self.wfile.write(data[start:end])
        if plan.hang.is_set():
            plan.release.wait(20)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setattr(transfer, "_PAUSE_S", 0.01)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be asked for localhost
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = False  # joined on closing
    http.plan = SimpleNamespace(
        files={f"/{FILE}": DATA},
        requests=[],
        statuses=[],
        cuts=[],
        redirects={},
        ranges=True,
        hang=threading.Event(),
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
    assert _fetch(server, folder) == 0
    assert len(server.requests) == 1  # the second time nobody was asked
    assert fetch.main([NAME, "--folder", str(folder), "--offline"]) == 0
    assert capsys.readouterr().out == f"{NAME}: {folder / FILE}\n" * 3
    (folder / FILE).write_bytes(DATA[:-1] + b"\x00")
    for use in (lambda: _fetch(server, folder), lambda: local_path(NAME, folder), lambda: local_path(folder / FILE)):
        with pytest.raises(InputError, match="is not the file that was recorded"):
            use()


def test_broken_half_way_goes_on_by_itself(server: SimpleNamespace, tmp_path: Path) -> None:
    server.cuts = [300_000, 0, 400_000]
    assert _fetch(server, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == DATA
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=700000-"]


def test_broken_for_good_goes_on_when_run_again(server: SimpleNamespace, tmp_path: Path) -> None:
    server.cuts = [300_000, *[0] * 10]
    with pytest.raises(InputError, match=rf"broken off after 300000 of {len(DATA)} bytes .*run again to go on"):
        _fetch(server, tmp_path)
    assert _names(tmp_path) == [f"{FILE}.part", f"{FILE}.part.json"]
    server.cuts = []
    server.requests.clear()
    assert _fetch(server, tmp_path) == 0
    assert server.requests == [(f"/{FILE}", "bytes=300000-")]
    assert (tmp_path / FILE).read_bytes() == DATA
    assert _names(tmp_path) == ["checksums.json", FILE]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile_starts_anew(server: SimpleNamespace, tmp_path: Path, ranges: bool) -> None:
    server.cuts = [300_000, *[0] * 10]
    with pytest.raises(InputError):
        _fetch(server, tmp_path)
    server.cuts, server.ranges = [], ranges
    server.files[f"/{FILE}"] = DATA[::-1]
    assert _fetch(server, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == DATA[::-1]


def test_a_part_from_another_server_is_not_gone_on_from(server: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(b"x" * 1000)
    (tmp_path / f"{FILE}.part.json").write_text(
        json.dumps({"url": "https://a/b", "validator": None, "total": len(DATA)})
    )
    assert _fetch(server, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == DATA
    assert server.requests == [(f"/{FILE}", None)]


def test_a_complete_part_is_taken_as_it_is(server: SimpleNamespace, tmp_path: Path) -> None:
    notes = {"url": f"{server.url}/{FILE}", "validator": None, "total": len(DATA)}
    (tmp_path / f"{FILE}.part").write_bytes(DATA)
    (tmp_path / f"{FILE}.part.json").write_text(json.dumps(notes))
    assert _fetch(server, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == DATA


def _record(folder: Path, data: bytes, **changes: object) -> None:
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}
    (folder / "checksums.json").write_text(json.dumps({FILE: entry}))


def test_wrong_size_is_refused_before_the_download(server: SimpleNamespace, tmp_path: Path) -> None:
    _record(tmp_path, DATA, size=5)
    with pytest.raises(InputError, match=rf"wrong size: the server has {len(DATA)} bytes, 5 expected"):
        _fetch(server, tmp_path)
    assert _names(tmp_path) == ["checksums.json"]


def test_wrong_checksum_is_refused_and_nothing_kept(server: SimpleNamespace, tmp_path: Path) -> None:
    _record(tmp_path, DATA[::-1])
    with pytest.raises(InputError, match=r"wrong checksum: sha256 [0-9a-f]{64} arrived, [0-9a-f]{64} expected"):
        _fetch(server, tmp_path)
    assert _names(tmp_path) == ["checksums.json"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"files": {}}, "the server answers 404 Not Found"),
        ({"statuses": [403]}, "the server answers 403 Forbidden"),
        ({"statuses": [503] * 9}, "broken off after 0 bytes .the server answers 503"),
        ({"files": {f"/{FILE}": b"  <!DOCTYPE html><p>Sign in"}}, "a web page, not a checkpoint"),
        ({"files": {f"/{FILE}": b""}}, "an empty file"),
        ({"redirects": {f"/{FILE}": "http://example.com/x"}}, "only https"),
        ({"redirects": {f"/{FILE}": "file:///etc/passwd"}}, "redirects to a file|not allowed"),
    ],
)
def test_answers_that_are_no_file(server: SimpleNamespace, tmp_path: Path, change: dict, match: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(InputError, match=match) as caught:
        _fetch(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert _names(tmp_path) == []


def test_a_server_in_trouble_is_asked_again(server: SimpleNamespace, tmp_path: Path) -> None:
    server.statuses = [503, 500, 429]
    assert _fetch(server, tmp_path) == 0


def test_redirects_are_followed(server: SimpleNamespace, tmp_path: Path) -> None:
    server.redirects = {f"/{FILE}": "/other"}
    server.files = {"/other": DATA}
    assert _fetch(server, tmp_path) == 0


def test_size_cap(server: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{len(DATA)} bytes, more than the 1000 allowed"):
        _fetch(server, tmp_path, "--max_bytes", "1000")
    assert _names(tmp_path) == []


def test_a_server_that_falls_silent_times_out(server: SimpleNamespace, tmp_path: Path) -> None:
    server.cuts = [100_000, 0, 0, 0, 0]
    server.hang.set()
    with pytest.raises(InputError, match="broken off after 100000 of"):
        _fetch(server, tmp_path, "--timeout", "0.2")


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=rf"cannot reach localhost:{port} .*Connection refused.*--mirror"):
        fetch.main([NAME, "--folder", str(tmp_path), "--mirror", f"http://localhost:{port}"])
    assert _names(tmp_path) == []


def test_mirror_may_be_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "a mirror"
    source.mkdir()
    (source / FILE).write_bytes(DATA)
    assert fetch.main([NAME, "--folder", str(tmp_path / "here"), "--mirror", source.as_uri()]) == 0
    assert (tmp_path / "here" / FILE).read_bytes() == DATA
    with pytest.raises(InputError, match="there is no file"):
        fetch.main([NAME, "--folder", str(tmp_path / "there"), "--mirror", (tmp_path / "no").as_uri()])


@pytest.mark.parametrize(
    "url",
    ["http://example.com/x", "ftp://localhost/x", "file://host/x", "x", "https:///x", "https://a b/", "http://[::1"],
)
def test_other_kinds_of_url_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"only https|not a URL"):
        download(url, tmp_path / "x")
    assert _names(tmp_path) == []


def test_full_disk(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=rf"{len(DATA)} bytes needed, 1000 free on that disk"):
        _fetch(server, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space left on device"):
        _fetch(server, tmp_path)
    assert FILE not in _names(tmp_path)


def test_two_at_once(server: SimpleNamespace, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / f"{FILE}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching"):
            _fetch(server, tmp_path)


def test_all_goes_on_after_a_failure(server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    server.files = {f"/{row.file}": DATA for row in RELEASED[1:]}
    with pytest.raises(InputError, match=rf"1 of 14 not fetched: {RELEASED[0].name}"):
        fetch.main(["--all", "--folder", str(tmp_path), "--mirror", server.url])
    assert capsys.readouterr().err.startswith(f"{RELEASED[0].name}: ")
    assert _names(tmp_path) == sorted([row.file for row in RELEASED[1:]] + ["checksums.json"])


def test_wrong_arguments() -> None:
    for argv in ([], [NAME, "--all"], [NAME, "--timeout", "0"], [NAME, "--mirror", "http://example.com"], ["nothing"]):
        with pytest.raises(InputError):
            fetch.main(argv)
    with pytest.raises(InputError, match="--offline forbids"):
        fetch.main([NAME, "--offline", "--folder", "/nowhere"])


def test_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"checksums\.json is damaged"):
        fetch.main([NAME, "--offline", "--folder", str(tmp_path)])


def test_list_and_errors_of_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pretrained.fetch", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    listed = run("--list", "--folder", str(tmp_path))
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [row.name for row in load_table()]
    wrong = run("nothing")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


# ------------------------------------------------------------------------------------------------------- reproduce


def test_commands_of_a_row(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert reproduce.main(["something_tsm_resnet50_16f", "--folder", str(tmp_path), "--", "-j", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = f"python test_models.py something --weights={tmp_path}/{find_row('something_tsm_resnet50_16f').file}"
    assert lines == [
        "# TSM ResNet50 on something RGB, published: top-1 47.2 % (1 clip, centre crop, 16 segments)",
        f"{start} --test_segments=16 --test_crops=1 -j 2",
        "# TSM ResNet50 on something RGB, published: top-1 48.4 % (2 clips, 3 crops, full resolution, 16 segments)",
        f"{start} --test_segments=16 --twice_sample --test_crops=3 --full_res -j 2",
        "# first: python -m pretrained.fetch something_tsm_resnet50_16f",
    ]


def test_rows_and_protocols_without_a_figure() -> None:
    with pytest.raises(InputError, match="figures were published for efficient, accurate"):
        reproduce.main(["something_tsm_resnet50_16f", "--protocol", "dense"])
    with pytest.raises(InputError, match="figures were published for no protocol"):
        reproduce.main([NAME])
    with pytest.raises(InputError, match="not its weights"):
        reproduce.main(["kinetics_tsm_resnext101_8f_dense"])
    with pytest.raises(InputError, match="not there yet"):
        reproduce.main(["something_tsm_resnet50_16f", "--run", "--folder", "/nowhere"])


@pytest.mark.parametrize(
    ("printed", "status", "said"),
    [
        (
            "Overall Prec@1 55.60% Prec@5 79.60%",
            0,
            "difference -0.10; top-5 79.60, published 79.5, difference +0.10: rep",
        ),
        ("Overall Prec@1 56.10% Prec@5 79.50%", 1, "top-1 56.10, published 55.7, difference +0.40"),
        ("Overall Prec@1 55.70% Prec@5 70.00%", 1, "NOT within 0.3"),
    ],
)
def test_run_compares(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    printed: str,
    status: int,
    said: str,
) -> None:
    (tmp_path / find_row("kinetics_tsm_resnet50_flow_8f").file).write_bytes(b"x")
    (tmp_path / "test_models.py").write_text(f"import sys; print(sys.argv[1:]); print('x {printed}')")
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    assert reproduce.main(["kinetics_tsm_resnet50_flow_8f", "--run", "--folder", str(tmp_path)]) == status
    out = capsys.readouterr().out
    assert said in out.splitlines()[-1] and "['kinetics', '--weights=" in out


@pytest.mark.parametrize(
    ("program", "match"),
    [
        ("raise SystemExit(2)", "ended with status 2"),
        ("print('nothing')", "printed no"),
        ("import time; time.sleep(60)", "took longer than"),
    ],
)
def test_run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, match: str) -> None:
    (tmp_path / "test_models.py").write_text(program)
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    with pytest.raises(InputError, match=match):
        reproduce.run_test(["x"], timeout_s=2)


# --------------------------------------------------------------------------------------------------- every row's file

NUM_CLASSES = {"kinetics": 400, "something": 174, "somethingv2": 174, "jester": 27}


def _published_keys(row: Row) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a row's file, from torchvision's 2D network and the rules of the layout alone."""
    import torchvision

    num_class = NUM_CLASSES[row.dataset]
    arch = next(a for a in ("resnet101", "resnet50", "mobilenetv2") if a in row.file)
    keys: dict[str, tuple[int, ...]] = {}
    if arch == "mobilenetv2":
        return _mobilenet_keys(num_class, streaming="online" in row.file)
    net = torchvision.models.get_model(arch, weights=None)
    for key, value in net.state_dict().items():
        block = re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key)
        every = 2 if arch == "resnet101" else 1
        name = key
        if block and "_shift8_blockres" in row.file and int(block[2]) % every == 0:
            name = f"layer{block[1]}.{block[2]}.conv1.net.weight"
        if "_nl" in row.file:
            name = re.sub(r"^(layer2\.[02]|layer3\.[024])\.", r"\1.block.", name)
        shape = tuple(value.shape)
        if key == "conv1.weight" and row.modality == "Flow":
            shape = (64, 10, 7, 7)
        if not key.startswith("fc."):
            keys[f"module.base_model.{name}"] = shape
    if "_nl" in row.file:
        for stage, blocks, channels in ((2, (0, 2), 512), (3, (0, 2, 4), 1024)):
            for block in blocks:
                prefix = f"module.base_model.layer{stage}.{block}.nl."
                inner = channels // 2
                for part in ("g.0", "theta", "phi.0"):
                    keys[f"{prefix}{part}.weight"] = (inner, channels, 1, 1, 1)
                    keys[f"{prefix}{part}.bias"] = (inner,)
                keys[f"{prefix}W.0.weight"] = (channels, inner, 1, 1, 1)
                keys[f"{prefix}W.0.bias"] = (channels,)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    keys[f"{prefix}W.1.{part}"] = (channels,)
                keys[f"{prefix}W.1.num_batches_tracked"] = ()
    keys["module.new_fc.weight"] = (num_class, 2048)
    keys["module.new_fc.bias"] = (num_class,)
    return keys


def _mobilenet_keys(num_class: int, streaming: bool) -> dict[str, tuple[int, ...]]:
    """Table 2 of arXiv:1801.04381 in the flat layout."""
    keys: dict[str, tuple[int, ...]] = {}
    prefix = "" if streaming else "module.base_model."

    def conv_bn(name: str, bn: str, shape: tuple[int, ...]) -> None:
        keys[f"{prefix}{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            keys[f"{prefix}{bn}.{part}"] = shape[:1]
        keys[f"{prefix}{bn}.num_batches_tracked"] = ()

    conv_bn("features.0.0", "features.0.1", (32, 3, 3, 3))
    inputs, index = 32, 0
    for expansion, outputs, blocks in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for block in range(blocks):
            index += 1
            name, layer = f"features.{index}.conv", 0
            hidden = inputs * expansion
            if expansion > 1:
                net = ".net" if block > 0 and not streaming else ""  # a shortcut: same size, same channels
                conv_bn(f"{name}.0{net}", f"{name}.1", (hidden, inputs, 1, 1))
                layer = 3
            conv_bn(f"{name}.{layer}", f"{name}.{layer + 1}", (hidden, 1, 3, 3))
            conv_bn(f"{name}.{layer + 3}", f"{name}.{layer + 4}", (outputs, hidden, 1, 1))
            inputs = outputs
    conv_bn("features.18.0", "features.18.1", (1280, 320, 1, 1))
    head = "classifier" if streaming else "module.new_fc"
    keys[f"{head}.weight"] = (num_class, 1280)
    keys[f"{head}.bias"] = (num_class,)
    return keys


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row.name)
def test_each_rows_file_loads_from_its_name_alone(row: Row, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in _published_keys(row).items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(5)
        else:
            weights[key] = torch.rand(shape, generator=generator)
    path = tmp_path / row.file
    data = weights if "online" in row.file else {"epoch": 50, "state_dict": weights, "best_prec1": 70.0}
    torch.save(data, path, _use_new_zipfile_serialization=False)
    checkpoint = load_checkpoint(path)
    path.unlink()
    assert checkpoint.options.num_class == NUM_CLASSES[row.dataset]
    net = build_model(checkpoint.options)
    report = load_into(net, checkpoint)
    assert (report.skipped, report.missing) == ([], [])
    given = {canonical_key(key): value for key, value in weights.items()}
    for key, value in net.state_dict().items():
        assert torch.equal(value, given[canonical_key(key)]), key
    assert len(report.remapped) == (len(weights) if "online" in row.file else 0)
    net.eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.mul_(0.01)
        channels = 10 if row.modality == "Flow" else 3
        scores = net(torch.rand(1, checkpoint.options.num_segments * channels, 32, 32))
    assert scores.shape == (1, NUM_CLASSES[row.dataset])
    assert bool(torch.isfinite(scores).all())


def test_the_project_folder_of_files_is_ignored_by_git() -> None:
    assert "/pretrained/files/" in (FOLDER.parent / ".gitignore").read_text().splitlines()
