"""Files and servers that mean harm: each refused with one line, nothing run, nothing written, nobody called.

More of them, where their readers are tested: code in checkpoints and zip bombs (test_checkpoint_read.py), pictures of
60,000 x 60,000 pixels, pipes, EPS and 10^9 frames (test_video.py), web pages in a checkpoint's place, size caps, wrong
checksums (test_pretrained.py), other pages' requests and paths to files (online_demo/test_web.py).
"""

import contextlib
import io
import json
import os
import pickle
import resource
import socket
import struct
import sys
import threading
import time
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from online_demo.camera.sources import open_source
from online_demo.model import load_model
from ops.checkpoint.file import load_checkpoint
from ops.common.errors import InputError, escaped, is_one_line, run_command
from ops.data import images
from ops.data.images import read_image, read_tensor
from ops.data.lists import read_list
from ops.data.sources import VideoFile
from ops.dataset import TSNDataSet
from ops.dataset_configs import read_class_names
from ops.evaluation.scores import Scores
from ops.training.log import RunLog
from pretrained.download import download
from tests.helpers import make_frame_folder, make_frames, make_list, make_video
from tests.online_demo.helpers import save_random
from tools import check_dataset, gen_label_kinetics, gen_label_sthv2, predict, vid2img_kinetics
from tools.shared.lists import VideoFolders

ESCAPES = "\x1b]0;pwned\x07\x1b[2J"


class Bomb:
    """Pickles as a call that makes a file."""

    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return open, (str(self.trap), "w")


@contextlib.contextmanager
def refusal(*words):
    """An InputError of one line that holds the words, soon, and with little memory."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10  # KiB


@pytest.fixture
def visitors():
    """Ports of a server on this machine, and who has called it so far."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            calls.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], calls
    server.shutdown()
    server.server_close()
    thread.join()


# --- code in files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        load_checkpoint,
        Scores.load,
        read_list,
        read_class_names,
        load_model,
        lambda path: gen_label_sthv2.read_json(path, dict),
        gen_label_kinetics.read_label_map,
        VideoFile.frames,
        lambda path: read_tensor(str(path)),
        lambda path: read_image(str(path)),
    ],
)
def test_a_pickle_in_any_place_is_refused_and_does_not_run(tmp_path, read):
    path, trap = tmp_path / "file.pth", tmp_path / "trap"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(trap)}))
    with refusal("file.pth"):
        list(read(VideoFile(path)) if read is VideoFile.frames else read(path))
    assert sorted(os.listdir(tmp_path)) == ["file.pth"]


def test_scores_that_unpack_to_gigabytes_are_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("scores.npy", "w") as part:
        for _ in range(50):
            part.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with refusal("bomb.npz"):
        Scores.load(path)
    with zipfile.ZipFile(path, "w") as archive:  # claims 4 TB in its header, holds nothing
        for name, kind in (("names", "<U1"), ("labels", "<i8"), ("scores", "<f4")):
            buffer = io.BytesIO()
            np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": (10**12,)})
            archive.writestr(f"{name}.npy", buffer.getvalue())
    with refusal("bomb.npz"):
        Scores.load(path)


def test_scores_are_taken_whole_or_not_at_all(tmp_path):
    """A smaller shape in an array's header: numpy reads less, and never sees that the checksum does not match."""
    path = tmp_path / "scores.npz"
    Scores(["a", "b"], np.array([0, 1]), np.eye(2, 12, dtype=np.float32)).save(path)
    data = path.read_bytes()
    assert data.count(b"(2, 12)") == 1
    path.write_bytes(data.replace(b"(2, 12)", b"(2, 11)"))
    with refusal("scores.npz"):
        Scores.load(path)


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io_kind", ["frames", "video"])
@pytest.mark.parametrize("name", ["../secret", "/etc", "a/../../secret", "./../secret", "a/b/../../../secret"])
def test_list_paths_stay_below_the_root(tmp_path, name, io_kind):
    (tmp_path / "root").mkdir()
    make_frame_folder(tmp_path / "secret", 3)
    list_file = make_list(tmp_path / "list.txt", [("fine", 3, 0), (name, 3, 0)])
    with refusal("list.txt:2", "--allow_outside"):
        TSNDataSet(tmp_path / "root", list_file, io=io_kind)


def test_links_out_of_the_root_are_refused(tmp_path):
    make_frame_folder(tmp_path / "secret", 3)
    make_video(tmp_path / "secret.mp4", make_frames(3))
    (tmp_path / "root").mkdir()
    for name in ("secret", "secret.mp4"):
        (tmp_path / "root" / name).symlink_to(tmp_path / name)
    (tmp_path / "root" / "deep").symlink_to(tmp_path)
    list_file = make_list(tmp_path / "list.txt", [("secret", 3, 0), ("deep/secret", 3, 0)])
    for kind in ("frames", "video"):
        for index in (0, 1):
            with refusal(f"list.txt:{index + 1}", "is a link to", "--allow_outside"):
                TSNDataSet(tmp_path / "root", list_file, test_mode=True, io=kind)[index]


@pytest.mark.parametrize(
    "name",
    ["http://127.0.0.1:{port}/v.mp4", "concat:a.mp4|http://127.0.0.1:{port}/b.mp4", "tcp://127.0.0.1:{port}",
     "subfile,,start,0,end,9,,:/etc/passwd", "data:text/plain,x", "pipe:0", "-", "-i", "lavfi:testsrc",
     "cache:http://127.0.0.1:{port}/v.mp4"],
)  # fmt: skip
def test_protocol_names_in_lists_are_only_names(tmp_path, visitors, name):
    port, calls = visitors
    list_file = make_list(tmp_path / "list.txt", [(name.format(port=port), 3, 0)])
    with refusal("list.txt:1", "no such video file"):
        TSNDataSet(tmp_path, list_file, test_mode=True, io="video")[0]
    assert calls == []


def test_odd_names_of_lists_and_folders(tmp_path, capfd):
    """Line breaks, dashes, escapes and bytes that are no text in names: files all the same, and shown on one line."""
    names = [b"line\nbreak", b"-rf", ESCAPES.encode(), b"not \xff text", "\u202eoverride".encode()]
    root = tmp_path / "root"
    for name in names:
        make_frame_folder(root / "class" / os.fsdecode(name), 3)
    make_video(root / "class" / os.fsdecode(b"\xff.mp4"), make_frames(3))
    assert gen_label_kinetics.main([str(root), "--out", str(tmp_path), "--from_folders", "--val_share", "0.5"]) == 1
    assert vid2img_kinetics.main([str(root), str(tmp_path / "frames")]) == 0
    listed = b"".join(path.read_bytes() for path in tmp_path.glob("*_videofolder.txt"))
    assert listed.count(b"\n") == len(names) - 1  # all but the name with a line break
    check_dataset.main([str(tmp_path / "train_videofolder.txt"), str(root), "--decode", "none"])
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err


# --- videos that lead elsewhere ---------------------------------------------------------------------------------------

PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "HLS with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="0"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "IMF": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">{target}'
    "</CompositionPlaylist>",
    "RealText": "rtsptext\n{target}\n",
    "Windows": "[Reference]\nRef1={target}\n",
}


@pytest.mark.parametrize("extension", [".mp4", ".m3u8", ".avi", ".webm"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_not_followed(tmp_path, visitors, kind, extension):
    port, calls = visitors
    make_video(tmp_path / "secret.mp4", make_frames(3))
    path = tmp_path / f"film{extension}"
    for target in (f"http://127.0.0.1:{port}/v.mp4", "secret.mp4", str(tmp_path / "secret.mp4"), "file:secret.mp4"):
        path.write_text(PLAYLISTS[kind].format(target=target, port=port))
        with refusal(path.name):
            VideoFile(path).read([0])
        with refusal(path.name):
            list(open_source(str(path)).frames())
    assert calls == []


def test_an_mp4_whose_data_lie_in_another_file_does_not_get_it(tmp_path):
    """A data reference (box `dref`) may name a file; FFmpeg follows it only when told to."""
    secret = make_video(tmp_path / "secret.mp4", make_frames(3))
    data = secret.read_bytes()
    at = data.index(b"dref") - 4
    assert data[at + 12 : at + 16] == b"\0\0\0\1"
    name = str(secret).encode()
    # QuickTime's alias record: volume name at 10, folder at 56, then (type, length, text) entries; 2 is the full path.
    alias = struct.pack(">IHH", 0, 0, 2) + struct.pack(">H", 0) + bytes(140)
    alias += struct.pack(">hH", 2, len(name)) + name + b"\0" * (len(name) % 2) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    dref = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    old_size = struct.unpack(">I", data[at : at + 4])[0]
    grown = bytearray(data[:at] + dref + data[at + old_size :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = grown.index(box) - 4
        size = struct.unpack(">I", grown[place : place + 4])[0] + len(dref) - old_size
        grown[place : place + 4] = struct.pack(">I", size)
    media = grown.index(b"mdat") + 4
    stop = grown.index(b"moov") - 4 if grown.index(b"moov") > media else len(grown)
    grown[media:stop] = bytes(stop - media)  # its own data are gone
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(grown))
    with refusal("film.mp4"):
        VideoFile(path).read([0])


# --- pictures ---------------------------------------------------------------------------------------------------------


def jpeg_of_many_scans(side, num_scans):
    """A progressive JPEG whose last scan is repeated: a few bytes and a pass over all pixels each."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * num_scans + b"\xff\xd9"


@pytest.mark.parametrize("read", [read_tensor, read_image])
def test_pictures_of_endless_scans_are_refused(tmp_path, read):
    path = tmp_path / "img_00001.jpg"
    path.write_bytes(jpeg_of_many_scans(4000, 5000))
    with refusal("img_00001.jpg", "scans"):
        read(str(path))
    data = jpeg_of_many_scans(4000, 5000)
    path.write_bytes(data[:2] + b"\xff\0" + data[2:])  # junk between headers, which decoders get over
    with refusal("img_00001.jpg", "scans"):
        read(str(path))
    path.write_bytes(jpeg_of_many_scans(64, images.MAX_SCANS // 2))
    read(str(path))


@pytest.mark.parametrize("read", [read_tensor, read_image])
def test_what_a_camera_appends_to_a_picture_is_no_scan(tmp_path, read):
    path = tmp_path / "img_00001.jpg"
    path.write_bytes(jpeg_of_many_scans(64, 1) + b"\xff\xda film" * (images.MAX_SCANS + 1))
    read(str(path))


@pytest.mark.parametrize("read", [read_tensor, read_image])
def test_a_png_whose_text_unpacks_to_much(tmp_path, read):
    bomb = zlib.compress(bytes(100 << 20), 1)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    body = b"zTXtComment\0\0" + bomb
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path = tmp_path / "img_00001.png"
    path.write_bytes(data[:33] + chunk + data[33:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(InputError):
        assert torch.as_tensor(np.array(read(str(path)))).sum() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


# --- names on the terminal and the page -------------------------------------------------------------------------------


def test_what_is_one_line():
    assert is_one_line("Été: 動作, नमस्‍ते, 👩‍🔬, a\u00a0b") and is_one_line("")
    for text in (ESCAPES, "a\nb", "a\rb", "a\tb", "a\0b", "a\u2028b", "a\x85b", "a\udcffb"):
        assert not is_one_line(text)
        assert is_one_line(escaped(text)) and escaped(text).startswith(escaped(text[:1]))
    assert escaped("a\x1b[2J") == r"a\x1b[2J"


@pytest.mark.parametrize("name", [ESCAPES, "two\x0blines", "n\0ul", "tab\tbed", "line\u2028separator"])
def test_class_names_with_control_characters_are_refused(tmp_path, name):
    path = tmp_path / "category.txt"
    path.write_text(f"fine\n{name}\n", encoding="utf-8")
    with refusal("category.txt:2", "control characters"):
        read_class_names(path)
    Scores([name], np.array([0]), np.ones((1, 2), np.float32)).save(tmp_path / "a.npz")
    with refusal("a.npz"):
        Scores.load(tmp_path / "a.npz")


def test_a_class_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "category.txt").write_text("a\nb\na\n")
    with refusal("category.txt:3", "'a' is there twice"):
        read_class_names(tmp_path / "category.txt")


def test_messages_cannot_write_to_the_terminal(tmp_path, capsys):
    """Keys of a checkpoint, file names, list lines: whatever a message quotes."""

    def fail():
        raise InputError(f"{ESCAPES}\nkey \udcff")

    with pytest.raises(SystemExit, match="2"):
        run_command(fail)
    assert capsys.readouterr().err.endswith(r"error: \x1b]0;pwned\x07\x1b[2J key \udcff" + "\n")
    weights = tmp_path / "x.pth"
    torch.save({ESCAPES: torch.ones(3), "b": 1}, weights)
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: predict.main(["x.mp4", "--weights", str(weights)]))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err


def test_a_film_whose_name_is_no_text(tmp_path, monkeypatch):
    weights = save_random(tmp_path / "net.pth.tar", arch="resnet18", online=False, input_size=32)
    film = make_video(tmp_path / os.fsdecode(b"film \xff.mp4"), make_frames(9))
    for more in ([], ["--json"]):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "utf-8"))
        with pytest.raises(SystemExit) as ended:
            run_command(lambda more=more: predict.main([str(film), "--weights", str(weights), *more]))
        assert ended.value.code is None
        sys.stdout.flush()
        assert b"film \\udcff.mp4" in output.getvalue()
    assert json.loads(output.getvalue())["video"] == str(film)


# --- servers and visitors ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def raw_server(answer):
    """A server on this machine that lets `answer(connection)` do what it likes with whoever calls."""
    listening = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def run():
        while not stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    answer(connection, stopped)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.pth"
    finally:
        stopped.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def dribble(head, piece):
    def answer(connection, stopped):
        connection.sendall(head)
        while not stopped.wait(0.02):
            connection.sendall(piece)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        dribble(b"", b""),  # never answers
        dribble(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),  # one header without an end
        dribble(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),  # 50 bytes a second
        dribble(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),  # the length of a chunk
    ],
)
def test_servers_that_dribble_are_given_up(tmp_path, monkeypatch, answer):
    monkeypatch.setattr("pretrained.transfer._PAUSE_S", 0.01)
    began = time.monotonic()
    with raw_server(answer) as url, refusal("broken off"):
        download(url, tmp_path / "x.pth", timeout_s=0.3)
    assert time.monotonic() - began < 60
    assert not (tmp_path / "x.pth").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://192.0.2.1/x", "only https"),
        ("file:///etc/passwd", "is not allowed"),
        ("ftp://127.0.0.1/x", "only https"),
        ("gopher://x/", "is not allowed"),
    ],
)
def test_redirects_lead_nowhere_else(tmp_path, target, words):
    def answer(connection, stopped):
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

    with raw_server(answer) as url, refusal(words):
        download(url, tmp_path / "x.pth", timeout_s=2)
    assert os.listdir(tmp_path) == []


def test_the_body_of_a_redirect_is_not_read(tmp_path):
    """urllib would read it to its end, which need not come."""

    def answer(connection, stopped):
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /other.pth\r\n\r\n")
        while not stopped.is_set():
            connection.sendall(bytes(1 << 16))

    with raw_server(answer) as url, refusal("answers 302"):  # redirected to and fro until urllib has had enough
        download(url, tmp_path / "x.pth", timeout_s=2)


def test_more_than_the_cap_without_a_length_is_given_up(tmp_path):
    def answer(connection, stopped):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stopped.is_set():
            connection.sendall(bytes(1 << 16))

    with raw_server(answer) as url, refusal("larger than 1000000 bytes"):
        download(url, tmp_path / "x.pth", max_bytes=1_000_000, timeout_s=2)
    assert not (tmp_path / "x.pth").exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000


# --- annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 0, "b": 1.5}', "no whole number"),
        ('{"a": 0, "b": true}', "no whole number"),
        ('{"a": 0, "b": [1]}', "no whole number"),
        ('{"do [x]": 0, "do x": 1}', "twice"),
        ('{"a": 0, "b": 0}', "two have one label"),
        ('{"a": 0, "b": 2}', "labels must be 0 to 1"),
    ],
)
def test_labels_that_lie(tmp_path, text, words):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with refusal("labels.json", words):
        gen_label_sthv2.read_labels(path)


def test_a_video_named_twice_is_listed_once_and_reported(tmp_path, capsys):
    """A damaged id that has become another video's must not give that video a second label."""
    for name in ("a_000001_000011", "b_000001_000011"):
        make_frame_folder(tmp_path / "images" / name, 3)
        make_frame_folder(tmp_path / "images" / "yoga" / name, 3)
    (tmp_path / "map.txt").write_text("yoga\nzumba\n")
    rows = ["yoga,a,1,11,train,0", "zumba,a,1,11,train,0", "yoga,b,1,11,train,0"]
    (tmp_path / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows]))
    (tmp_path / "images" / "zumba").symlink_to(tmp_path / "images" / "yoga")
    arguments = [str(tmp_path / "images"), "--out", str(tmp_path), "--label_map", str(tmp_path / "map.txt")]
    assert gen_label_kinetics.main([*arguments, "--train_csv", str(tmp_path / "train.csv"), "-j", "1"]) == 0
    rows[1] = "yoga,a,1,11,train,0"
    (tmp_path / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows]))
    assert gen_label_kinetics.main([*arguments, "--train_csv", str(tmp_path / "train.csv"), "-j", "1"]) == 1
    listed = (tmp_path / "train_videofolder.txt").read_text().splitlines()
    assert listed == ["yoga/a_000001_000011 3 0", "yoga/b_000001_000011 3 0"]
    assert "a second time" in capsys.readouterr().err


def test_folders_that_cannot_be_listed(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "x" * 300, "nul\0"):
        with refusal():
            VideoFolders(tmp_path, videos=False).find([name], ["v"])


# --- a run's record ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {"notes.txt": [0, 0]},  # would be cut to nothing
        {"../notes.txt": [0, 0]},
        {"log.csv": [-1, 0]},
        {"log.csv": [0, 0], "events.out.tfevents./../notes.txt": [0, 0]},
        {"log.csv": "x"},
        {"log.csv": [True, 0.5]},
        {7: [0, 0]},
    ],
)
def test_a_strangers_checkpoint_cuts_no_file_of_a_run(tmp_path, record):
    """A checkpoint says how long the log files were; --resume cuts them back to that, and nothing else."""
    folder = tmp_path / "run"
    folder.mkdir()
    for path in (folder / "notes.txt", tmp_path / "notes.txt", folder / "log.csv"):
        path.write_text("mine")
    with contextlib.closing(RunLog(folder, resume=record, echo=False)):
        pass
    assert (folder / "notes.txt").read_text() == (tmp_path / "notes.txt").read_text() == "mine"
    assert (folder / "earlier-1" / "log.csv").read_text() == "mine"
