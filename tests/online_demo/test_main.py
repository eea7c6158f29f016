"""The live demo: networks, sources, the loop, and what goes wrong with them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from online_demo import main as demo
from online_demo import model as demo_model
from online_demo.backends.torch_backend import TorchBackend
from online_demo.camera.capture import Capture
from online_demo.camera.sources import SAMPLE, FolderSource, OpenCvSource, open_source
from online_demo.gestures import JESTER_CLASSES
from online_demo.model import load_model
from online_demo.recognizer import Recognizer, softmax
from online_demo.show.draw import BAR_HEIGHT, WIDTH, Canvas
from online_demo.show.window import Window
from online_demo.smoothing import SmoothingOptions
from ops.checkpoint.file import load_checkpoint, save_state_dict
from ops.checkpoint.streaming_layout import to_streaming_layout
from ops.common.errors import InputError
from ops.streaming import StreamingTSM
from tests.helpers import PROJECT, make_frame_folder, make_video, run_cli
from tests.online_demo.helpers import CLASS_NAMES, picture, save_knowing_pictures, save_random

TORCH = ["--backend", "torch", "--threads", "1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A checkpoint that knows still pictures."""
    return save_knowing_pictures(tmp_path_factory.mktemp("weights") / "pictures.pth.tar")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Picture 2 for 30 frames, then picture 4 for 30."""
    frames = np.stack([picture(2)] * 30 + [picture(4)] * 30)
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4", frames)


def run_demo(capsys, *args):
    """Exit status and the JSON lines of the command, run in this process without a window."""
    status = demo.main([str(arg) for arg in (*args, "--no-window", *TORCH)])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def decoded(path):
    import av

    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


# --- networks ---------------------------------------------------------------------------------------------------------


def test_names_come_from_the_checkpoint_or_a_file(pictures, tmp_path):
    assert load_model(pictures).class_names == tuple(CLASS_NAMES)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"name {index}\n" for index in range(len(CLASS_NAMES))))
    assert load_model(pictures, labels=names).class_names[3] == "name 3"
    names.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"names\.txt has 2 names"):
        load_model(pictures, labels=names)


def test_published_layout_is_jester(tmp_path):
    ours = save_random(tmp_path / "ours.pth.tar", num_class=27, input_size=224)
    published = tmp_path / "any_name.pth.tar"
    save_state_dict(to_streaming_layout(load_checkpoint(ours).state_dict), published)
    model = load_model(published)
    assert model.class_names == JESTER_CLASSES
    assert model.input_size == 224
    # SPEC 8: 10 buffers of 3x56x56, 4x28x28 (2), 8x14x14 (3), 12x14x14 (2), 20x7x7 (2).
    sizes = [(3, 56), (4, 28), (4, 28), (8, 14), (8, 14), (8, 14), (12, 14), (12, 14), (20, 7), (20, 7)]
    assert model.buffer_shapes == [(1, channels, side, side) for channels, side in sizes]


def test_jester_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TSM_PRETRAINED", str(tmp_path / "files"))
    fetched = []

    def fake_fetch(row, folder):
        fetched.append((row.file, folder))
        return save_random(folder / row.file, num_class=27)

    monkeypatch.setattr(demo_model, "fetch", fake_fetch)
    model = load_model(jester=True)
    assert fetched == [("mobilenetv2_jester_online.pth.tar", tmp_path / "files")]
    assert len(model.class_names) == 27
    with pytest.raises(InputError, match="exclude each other"):
        load_model("x.pth", jester=True)

    def no_network(row, folder):
        raise InputError("cannot be reached; another place can be given with --mirror")

    monkeypatch.setattr(demo_model, "fetch", no_network)  # --mirror is not the demo's own option of that name
    with pytest.raises(InputError, match=r"--mirror \(of python -m pretrained\.fetch jester_.*put the file into "):
        load_model(jester=True)


def test_missing_default_weights_name_the_script(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_model, "DEFAULT_WEIGHTS", tmp_path / "none.pth.tar")
    with pytest.raises(InputError, match=r"train_tsm_moving_digits_online\.sh"):
        load_model()


def test_offline_network_is_refused(tmp_path):
    path = save_random(tmp_path / "offline.pth.tar", online=False)
    with pytest.raises(InputError, match="train one with --shift --online"):
        load_model(path)


def test_preprocessing_is_that_of_evaluation(pictures):
    """RGB (published code fed BGR), short side to 73, centre crop of 64."""
    model = load_model(pictures)
    image = picture(1, (160, 120))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    resized = Image.fromarray(image).resize((97, 73), Image.Resampling.BILINEAR)
    left, top = round((97 - 64) / 2), round((73 - 64) / 2)
    crop = np.asarray(resized, np.float64)[top : top + 64, left : left + 64]
    wanted = ((crop / 255 - mean) / std).transpose(2, 0, 1)[None]
    given = model.preprocess(image)
    assert given.shape == (1, 3, 64, 64)
    assert given.dtype == np.float32
    assert np.abs(given - wanted).max() < 1.01 / 255 / 0.224  # a level, where a resize rounds the other way


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_labels_follow_the_film(pictures, film, capsys):
    status, lines = run_demo(capsys, "--weights", pictures, "--source", film)
    assert status == 0
    assert [line["frame"] for line in lines] == list(range(0, 60, 2))  # every second frame, none dropped
    labels = [line["label"] for line in lines]
    assert labels[10:15] == ["picture 2"] * 5
    assert labels[-4:] == ["picture 4"] * 4
    assert set(lines[0]) == {
        "frame", "time_s", "label", "index", "frame_label", "top", "network_ms", "capture_ms", "draw_ms", "fps",
    }  # fmt: skip
    assert lines[-1]["index"] == 4
    assert lines[-1]["top"][0][0] == "picture 4"
    assert lines[-1]["time_s"] == pytest.approx(58 / 25, abs=1e-3)
    assert all(line["network_ms"] > 0 and line["capture_ms"] > 0 for line in lines)


def test_results_are_those_of_the_streaming_network(pictures, film, capsys):
    _, lines = run_demo(capsys, "--weights", pictures, "--source", film, "--every", 3, "--score-window", 1)
    stream = StreamingTSM.from_checkpoint(pictures)
    state = stream.init_state(1, 64, 64)
    for line, image in zip(lines, list(open_source(str(film)).frames())[::3], strict=True):
        scores, state = stream.step(stream.preprocess(image), state)
        probabilities = torch.softmax(scores[0], dim=0)
        assert line["frame_label"] == CLASS_NAMES[int(scores.argmax())]
        assert line["top"][0][1] == pytest.approx(float(probabilities.max()), abs=2e-4)


def test_smoothing_can_be_switched_off(pictures, film, capsys):
    _, smooth = run_demo(capsys, "--weights", pictures, "--source", film)
    _, raw = run_demo(capsys, "--weights", pictures, "--source", film, "--score-window", 1, "--no-vote")
    assert [line["label"] for line in raw] == [line["frame_label"] for line in smooth]
    assert [line["label"] for line in smooth] != [line["label"] for line in raw]


def test_folder_of_frames_in_the_order_of_their_numbers(pictures, tmp_path, capsys):
    for number in range(1, 13):  # unpadded: 10.png would come behind 1.png
        Image.fromarray(picture(2 if number < 5 else 4)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    status, lines = run_demo(capsys, "--weights", pictures, "--source", tmp_path, "--score-window", 1)
    assert status == 0
    assert len(lines) == 12  # all of a folder's
    assert [line["label"] for line in lines[2:4]] == ["picture 2"] * 2
    assert [line["label"] for line in lines[7:]] == ["picture 4"] * 5


def test_looping_begins_a_new_stream(pictures, tmp_path, capsys):
    make_frame_folder(tmp_path / "frames", 5, size=(96, 72))
    _, lines = run_demo(capsys, "--weights", pictures, "--source", tmp_path / "frames", "--loop", "--max-frames", 12)
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["top"] for line in lines[:5]] == [line["top"] for line in lines[5:10]]


def test_annotated_video(pictures, film, tmp_path, capsys):
    out = tmp_path / "annotated.mp4"
    status, lines = run_demo(capsys, "--weights", pictures, "--source", film, "--output", out)
    assert (status, len(lines)) == (0, 30)
    frames = decoded(out)
    assert len(frames) == 60
    assert frames[-1][0] == pytest.approx(59 / 25, abs=1e-3)
    image = frames[50][1]
    assert image.shape == (480 + BAR_HEIGHT, WIDTH, 3)
    shown = np.asarray(Image.fromarray(picture(4)).resize((640, 480), Image.Resampling.BILINEAR), float)
    assert np.abs(image[:480] - shown).mean() < 8  # coded twice
    assert image[480:, :200].max() > 200  # the label's letters
    assert os.listdir(tmp_path) == ["annotated.mp4"]


def test_both_ways_to_start_it(pictures, film):
    options = ["--no-window", "--weights", pictures, "--source", film, "--max-frames", "3", *TORCH]
    for command in (["-m", "online_demo.main"], ["online_demo/main.py"]):
        done = run_cli([*command, *options])
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 2]
        assert "film.mp4; pictures.pth.tar, 5 classes, 64x64; torch" in done.stderr


def test_optional_packages_are_named(pictures, film, monkeypatch):
    for name in ("cv2", "onnxruntime", "tvm"):
        monkeypatch.setitem(sys.modules, name, None)
    options = ["--no-window", "--weights", str(pictures), "--source"]
    for args, message in (
        (["0"], "need OpenCV .*requirements-demo.txt"),
        ([str(film), "--backend", "onnxruntime"], "ONNX Runtime is not installed .*--backend torch"),
        ([str(film), "--backend", "tvm"], "requirements-tvm.txt"),
    ):
        with pytest.raises(InputError, match=message):
            demo.main([*options, *args])


def test_sample_shows_every_class():
    spans = json.loads(SAMPLE.with_suffix(".json").read_text())
    frames = list(open_source("sample").frames())
    assert spans[0]["first"] == 0
    assert [span["stop"] for span in spans[:-1]] == [span["first"] for span in spans[1:]]
    assert spans[-1]["stop"] == len(frames)
    assert len({span["class"] for span in spans}) == 8
    assert SAMPLE.stat().st_size < 300_000


@pytest.mark.skipif(not demo_model.DEFAULT_WEIGHTS.is_file(), reason="the repository's streaming weights are not here")
def test_default_network_knows_the_sample(capsys):
    assert demo_model.DEFAULT_WEIGHTS.stat().st_size <= 6_000_000
    _, lines = run_demo(capsys, "--source", "sample")
    spans = json.loads(SAMPLE.with_suffix(".json").read_text())
    label_at = {line["frame"]: line["label"] for line in lines}
    # Asked at the end of each class's second film, where the summed scores are of that class.
    right = sum(label_at[span["stop"] - 2] == span["class"] for span in spans[1::2])
    assert right >= 6, label_at


# --- sources ----------------------------------------------------------------------------------------------------------


class FakeSource:
    """A live source whose frames are their own numbers."""

    name, fps, every, mirrored = "fake", 30.0, 2, False

    def __init__(self, live, num_frames, wait_s=0.0, stuck=False):
        self.live, self.num_frames, self.wait_s, self.stuck = live, num_frames, wait_s, stuck

    def frames(self):
        for number in range(self.num_frames):
            time.sleep(self.wait_s)
            yield np.full((2, 2, 3), number % 256, np.uint8)
        if self.stuck:
            threading.Event().wait(5)


def test_live_source_keeps_only_the_newest_frame():
    with Capture(FakeSource(live=True, num_frames=40, wait_s=0.005)) as capture:
        seen = []
        while (frame := capture.read()) is not None:
            assert frame.image[0, 0, 0] == frame.number
            seen.append(frame.number)
            time.sleep(0.04)
    assert seen == sorted(seen)
    assert len(seen) < 25


def test_file_is_never_dropped():
    with Capture(FakeSource(live=False, num_frames=30)) as capture:
        seen = []
        while (frame := capture.read()) is not None:
            seen.append(frame.number)
            time.sleep(0.005)
    assert seen == list(range(30))


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
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_source(str(tmp_path / "pipe"))
    with pytest.raises(InputError, match="holds no frames"):
        FolderSource(tmp_path)


def test_cut_film_leaves_a_video_that_plays(pictures, film, tmp_path):
    whole = tmp_path / "whole.mkv"
    make_video(whole, np.stack([picture(i % 5) for i in range(60)]))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    out = tmp_path / "out.mp4"
    done = run_cli(
        ["online_demo/main.py", "--no-window", "--weights", pictures, "--source", cut, "--output", out, *TORCH]
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "cut.mkv" in errors[0]
    num_results = len(done.stdout.splitlines())
    assert num_results > 5
    assert len(decoded(out)) in (2 * num_results - 1, 2 * num_results)
    assert sorted(os.listdir(tmp_path)) == ["cut.mkv", "out.mp4", "whole.mkv"]


def test_file_that_is_no_video_writes_none(pictures, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no video" * 100)
    out = tmp_path / "out.mp4"
    with pytest.raises(InputError, match=r"film\.mp4"):
        demo.main(["--no-window", "--weights", str(pictures), "--source", str(tmp_path / "film.mp4"), *TORCH])
    assert not out.exists()
    make_frame_folder(tmp_path / "frames", 3)
    (tmp_path / "frames" / "img_00001.jpg").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"img_00001\.jpg"):
        demo.main(["--no-window", "--weights", str(pictures), "--source", str(tmp_path / "frames"), "--output",
                   str(out), *TORCH])  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_video(pictures, film, tmp_path, number):
    out = tmp_path / "out.mp4"
    command = [sys.executable, PROJECT / "online_demo/main.py", "--no-window", "--weights", pictures, "--source", film]
    command += ["--loop", "--output", out, *TORCH]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert len(decoded(out)) >= 2 * len(lines) - 1


def test_cv2_source_errors_are_clear(tmp_path):
    pytest.importorskip("cv2")
    source = OpenCvSource(97)
    with Capture(source) as capture, pytest.raises(InputError, match="camera 97 cannot be opened"):
        capture.read()
    (tmp_path / "plain").write_text("nothing")
    with (
        Capture(open_source(f"file://{tmp_path}/plain")) as capture,
        pytest.raises(InputError, match="cannot be opened"),
    ):
        capture.read()


def test_url_that_never_answers(pictures):
    pytest.importorskip("cv2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/film.mp4"
        done = run_cli(
            ["online_demo/main.py", "--no-window", "--weights", pictures, "--source", url, "--timeout", "1.5", *TORCH],
            timeout=120,
        )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"main.py: error: {url} ")
    assert done.stdout == ""


def test_camera_that_is_unplugged(monkeypatch):
    """OpenCV answers False from then on."""
    cv2 = pytest.importorskip("cv2")

    class Unplugged:
        reads = 0

        def isOpened(self):
            return True

        def get(self, key):
            return 30.0

        def set(self, key, value):
            pass

        def read(self):
            self.reads += 1
            return (True, np.zeros((240, 320, 3), np.uint8) + np.uint8([1, 2, 3])) if self.reads < 4 else (False, None)

        def release(self):
            self.released = True

    device = Unplugged()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: device)
    frames = []
    with pytest.raises(InputError, match="camera 0 broke off after 3 frames: was it unplugged"):
        frames.extend(OpenCvSource(0).frames())
    frames = OpenCvSource(0).frames()
    device.reads = 0
    assert next(frames)[0, 0].tolist() == [3, 2, 1]  # RGB
    frames.close()
    assert device.released


# --- drawing and display ----------------------------------------------------------------------------------------------


def test_canvas_mirrors_the_picture_not_the_text(pictures):
    model = load_model(pictures)
    recognizer = Recognizer(model, TorchBackend(model), SmoothingOptions())
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80, 0] = 255
    result = recognizer(image)
    plain = Canvas().draw(image, result, "30 frames/s\nnetwork 2 ms")
    mirrored = Canvas(mirrored=True).draw(image, result, "30 frames/s\nnetwork 2 ms")
    assert plain.shape == mirrored.shape == (480 + BAR_HEIGHT, WIDTH, 3)
    assert plain[100, 100].tolist() == [255, 0, 0]
    assert mirrored[100, 100].tolist() == [0, 0, 0]
    assert np.array_equal(plain[480:], mirrored[480:])


def test_long_names_leave_room(pictures):
    model = load_model(pictures)
    result = Recognizer(model, TorchBackend(model), SmoothingOptions())(picture(0))
    endless = type(result)("W" * 300, 0, "W", (), 1.0)
    details = "30 frames/s\ncapture 3.0 ms, network 2.0 ms"
    empty = type(result)("", 0, "", (), 1.0)
    canvas = Canvas()
    long_bar = canvas.draw(picture(0), endless, details)[480:]
    bare_bar = canvas.draw(picture(0), empty, details)[480:]
    width = np.flatnonzero((bare_bar != bare_bar[0, 0]).any(axis=(0, 2)))[0]  # where the details begin
    assert np.array_equal(long_bar[:, width - 8 :], bare_bar[:, width - 8 :])


def test_softmax():
    values = np.float32([1000.0, 1001.0, 999.0])
    assert softmax(values) == pytest.approx([0.24472847, 0.66524096, 0.09003057], rel=1e-5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 and Wayland")
def test_window_without_a_display(pictures, film, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display here"):
        demo.main(["--weights", str(pictures), "--source", str(film)])
    # A display that is not there must not take the process down, nor a broken window.
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(InputError, match=r"no window can be opened|built without windows|a window needs OpenCV"):
        Window()


def test_options_that_cannot_work(pictures, tmp_path):
    for args, message in (
        (["--output", "x.gif"], "ends with .mp4"),
        (["--source", "browser"], "needs --serve"),
        (["--source", "browser", "--serve", "0", "--output", "x.mp4"], "needs a source of its own"),
        (["--serve", "host"], r"give \[HOST:\]PORT"),
        (["--library", "x.so"], "--library is for --backend tvm"),
        (["--int8", "x.mp4"], "--int8 is for --backend onnxruntime"),
    ):
        with pytest.raises(InputError, match=message):
            demo.main(["--no-window", "--weights", str(pictures), "--source", "sample", *TORCH, *args])


def test_disk_full_is_one_line(pictures, film, tmp_path):
    pytest.importorskip("resource")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "from online_demo.main import main; from ops.common.errors import run_command; run_command(main)"
    out = tmp_path / "out.mp4"
    options = ["--no-window", "--loop", "--weights", pictures, "--source", film, "--output", out, *TORCH]
    done = run_cli(["-c", limited, *options])
    assert done.returncode == 2, done.stderr
    assert "out.mp4: cannot write the video" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_memory_stays_flat(pictures):
    """Rounds of 80 frames, drawn and smoothed, do not let the process grow (10,000: see online_demo/README.md)."""
    statm = "/proc/self/statm"
    if not os.path.exists(statm):
        pytest.skip("no /proc here")
    source = FakeSource(live=False, num_frames=80)
    model = load_model(pictures)
    recognizer = Recognizer(model, TorchBackend(model), SmoothingOptions())
    sizes = []
    for _ in range(4):
        demo.run_source(
            source, recognizer, [_Nothing()], every=2, mirrored=False, paced=False, loop=False, max_frames=None,
            timeout_s=10, stopped=lambda: False,
        )  # fmt: skip
        with open(statm) as file:
            sizes.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[-1] - sizes[1] < 8_000_000, sizes


class _Nothing:
    needs_picture = True

    def show(self, picture, shown):
        return True
