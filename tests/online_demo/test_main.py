"""The demo's command and its loop, without a window: results, the annotated video, and failures."""

import json
import os
import signal
import socket
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from online_demo import main as demo
from online_demo.backends.cache import CACHE_VARIABLE
from online_demo.backends.onnx_backend import OnnxRuntimeBackend
from online_demo.camera.sources import SAMPLE, open_source
from online_demo.model import DEFAULT_WEIGHTS, load_model
from online_demo.recognizer import Recognizer, softmax
from online_demo.show.controls import Controls
from online_demo.show.draw import BAR_HEIGHT, WIDTH
from online_demo.show.window import Window
from online_demo.smoothing import SmoothingOptions
from ops.common.errors import InputError
from ops.streaming import StreamingTSM
from tests.helpers import PROJECT, make_frame_folder, make_video, run_cli
from tests.online_demo.helpers import CLASS_NAMES, picture

TORCH = ["--no-window", "--backend", "torch", "--threads", "1"]
ONNX = ["--no-window", "--threads", "1"]  # for other processes: they start sooner without PyTorch


def run_demo(capsys, *args):
    """The JSON lines of the command, run in this process without a window."""
    assert demo.main([str(arg) for arg in (*args, *TORCH)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


# --- results ----------------------------------------------------------------------------------------------------------


def test_labels_follow_the_video(pictures, video, capsys):
    lines = run_demo(capsys, "--weights", pictures, "--source", video, "--every", 2)
    assert [line["frame"] for line in lines] == list(range(0, 60, 2))  # every second frame, none dropped
    labels = [line["label"] for line in lines]
    assert labels[10:15] == ["picture 2"] * 5
    assert labels[-4:] == ["picture 4"] * 4
    assert set(lines[0]) == {
        "frame", "time_s", "label", "index", "certainty", "unsure", "frame_label", "top", "network_ms", "capture_ms",
        "draw_ms", "fps",
    }  # fmt: skip
    assert lines[-1]["index"] == 4
    assert lines[-1]["top"][0] == ["picture 4", lines[-1]["certainty"]]
    assert lines[-1]["time_s"] == pytest.approx(58 / 25, abs=1e-3)
    assert all(line["network_ms"] > 0 and line["capture_ms"] > 0 for line in lines)
    raw = run_demo(capsys, "--weights", pictures, "--source", video, "--every", 2, "--score-window", 0, "--no-vote",
                   "--threshold", 0)  # fmt: skip
    assert [line["label"] for line in raw] == [line["frame_label"] for line in lines] != labels  # not smoothed


def test_results_are_those_of_the_streaming_network(pictures, video, capsys):
    lines = run_demo(capsys, "--weights", pictures, "--source", video, "--every", 3, "--score-window", 0)
    stream, info = StreamingTSM.from_checkpoint(pictures), load_model(pictures, with_torch=True).info
    state = stream.init_state(1, 64, 64)
    for line, image in zip(lines, list(open_source(str(video)).frames())[::3], strict=True):
        scores, state = stream.step(torch.from_numpy(info.preprocess(image)), state)
        probabilities = torch.softmax(scores[0], dim=0)
        assert line["frame_label"] == CLASS_NAMES[int(scores.argmax())]
        assert line["top"][0][1] == pytest.approx(float(probabilities.max()), abs=2e-4)


def test_frames_are_taken_at_the_rate_that_is_asked_for(pictures, video, capsys):
    def frames(*options):
        return [line["frame"] for line in run_demo(capsys, "--weights", pictures, "--source", video, *options)]

    by_default = frames()
    assert by_default[:7] == [0, 2, 3, 5, 7, 8, 10]  # the nearest to 0, 25/15, 50/15, ...
    assert len(by_default) == 36
    assert frames("--rate", 6.25) == list(range(0, 60, 4))
    assert frames("--rate", 100) == list(range(60))
    assert frames("--rate", 100, "--every", 20) == [0, 20, 40]


def test_below_the_threshold_it_is_unsure(pictures, video, capsys):
    options = ["--weights", pictures, "--source", video, "--max-frames", 8]
    lines = run_demo(capsys, *options)
    higher = run_demo(capsys, *options, "--threshold", 1)
    assert [line["label"] for line in higher] == ["unsure"] * len(lines)
    assert {line["index"] for line in higher} == {None}
    assert all(line["unsure"] for line in higher)
    assert [line["certainty"] for line in higher] == [line["certainty"] for line in lines]
    for line in lines:
        assert (line["label"] == "unsure") == line["unsure"] == (line["certainty"] < 0.5)


def test_softmax():
    values = np.float32([1000.0, 1001.0, 999.0])
    assert softmax(values) == pytest.approx([0.24472847, 0.66524096, 0.09003057], rel=1e-5)


def test_folder_of_frames_in_the_order_of_their_numbers(pictures, tmp_path, capsys):
    for number in range(1, 13):  # unpadded: by letters, 10.png would come after 1.png
        Image.fromarray(picture(2 if number < 5 else 4)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    lines = run_demo(capsys, "--weights", pictures, "--source", tmp_path, "--score-window", 0)
    assert len(lines) == 12  # all of a folder's
    assert [line["label"] for line in lines[2:4]] == ["picture 2"] * 2
    assert [line["label"] for line in lines[7:]] == ["picture 4"] * 5


def test_each_loop_begins_a_new_stream(pictures, tmp_path, capsys):
    make_frame_folder(tmp_path / "frames", 5, size=(96, 72))
    lines = run_demo(capsys, "--weights", pictures, "--source", tmp_path / "frames", "--loop", "--max-frames", 12)
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time_s"] for line in lines] == pytest.approx([number / 12 for number in range(12)], abs=1e-3)
    assert [line["top"] for line in lines[:5]] == [line["top"] for line in lines[5:10]]


def test_annotated_video(pictures, video, tmp_path, capsys):
    out = tmp_path / "annotated.mp4"
    assert len(run_demo(capsys, "--weights", pictures, "--source", video, "--output", out, "--every", 2)) == 30
    frames = decoded(out)
    assert len(frames) == 60
    assert frames[-1][0] == pytest.approx(59 / 25, abs=1e-3)
    image = frames[50][1]
    assert image.shape == (480 + BAR_HEIGHT, WIDTH, 3)
    shown = np.asarray(Image.fromarray(picture(4)).resize((640, 480), Image.Resampling.BILINEAR), float)
    assert np.abs(image[:480] - shown).mean() < 8  # encoded twice
    assert image[480:, :200].max() > 200  # the label's letters
    assert os.listdir(tmp_path) == ["annotated.mp4"]


def test_both_ways_to_start_it(video):
    pytest.importorskip("onnxruntime")
    for command in (["-m", "online_demo.main"], ["online_demo/main.py"]):
        done = run_cli([*command, "--source", video, "--every", "2", "--max-frames", "3", *ONNX])
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 2]
        assert "video.mp4; moving_digits_online.onnx, 9 classes, 48x48; onnxruntime" in done.stderr


@pytest.mark.parametrize("fps", [12.5, 25, 60])
def test_default_network_knows_the_sample_at_any_frame_rate(fps):
    """In the last third of each digit 95 % of the answers are right, the clip's frames repeated or left out."""
    pytest.importorskip("onnxruntime")
    model = load_model(threads=1)
    smoothing = SmoothingOptions(threshold=model.info.threshold)
    recognizer, frames = Recognizer(model, OnnxRuntimeBackend(model), smoothing), list(open_source("sample").frames())
    spans = json.loads(SAMPLE.with_suffix(".json").read_text())
    right, label = [], ""
    for number in range(int(len(frames) / 25 * fps)):
        time_s = number / fps
        place = 25 * time_s + 1e-6  # in the clip's frames
        if recognizer.takes(number, time_s):
            label = recognizer(frames[int(place)], time_s).label
        span = next(span for span in spans if place < span["stop"])
        if place >= span["stop"] - (span["stop"] - span["first"]) / 3:
            right.append(label == span["class"])
    assert np.mean(right) >= 0.95


def test_onnxruntime_needs_no_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    code = (
        "import sys; from online_demo.main import main; status = main(sys.argv[1:]); "
        "print(status, {'torch', 'torchvision'} & set(sys.modules))"
    )
    make_frame_folder(tmp_path / "frames", 2, size=(96, 72))
    for source in ("sample", tmp_path / "frames"):
        done = run_cli(["-c", code, "--source", source, "--no-window", "--max-frames", "2"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "0 set()"


def test_without_torch_a_checkpoint_says_what_to_do(pictures, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    for options in (["--weights", pictures], ["--weights", pictures, *TORCH], TORCH, ["--backend", "tvm"]):
        with pytest.raises(InputError, match=r"need PyTorch: pip install -r requirements\.txt.* -o NAME\.onnx"):
            demo.main([*map(str, options), "--source", "sample", "--no-window"])


# --- failures ---------------------------------------------------------------------------------------------------------


def test_options_that_cannot_work(pictures):
    for args, message in (
        (["--output", "x.gif"], "ends with .mp4"),
        (["--source", "browser"], "needs --serve"),
        (["--source", "browser", "--serve", "0", "--output", "x.mp4"], "needs another --source"),
        (["--serve", "host"], r"give \[HOST:\]PORT"),
        (["--allow-host", "board"], "give --serve, too"),
        (["--serve", "0", "--key", "key.pem"], "--key needs --cert"),
        (["--serve", "0", "--cert", "missing.pem"], "--cert missing.pem: no such file"),
        (["--library", "x.so"], "--library is for --backend tvm"),
        (["--int8", "x.mp4"], "--int8 is for --backend onnxruntime"),
        (["--source", "v4l2src ! videoconvert"], "end the pipeline with"),
    ):
        with pytest.raises(InputError, match=message):
            demo.main([*TORCH, "--weights", str(pictures), "--source", "sample", *args])


def test_optional_packages_are_named(pictures, video, monkeypatch):
    for name in ("cv2", "onnxruntime", "tvm", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "online_demo.web.server", raising=False)
    for args, message in (
        (["--source", "0"], "need OpenCV .*requirements-demo.txt"),
        (["--backend", "onnxruntime", "--weights", str(DEFAULT_WEIGHTS)], "ONNX Runtime is not .*--backend torch"),
        (["--backend", "tvm"], "requirements-tvm.txt"),
        (["--serve", "0"], "--serve needs aiohttp .*requirements-demo.txt"),
    ):
        with pytest.raises(InputError, match=message):
            demo.main([*TORCH, "--weights", str(pictures), "--source", str(video), *args])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 and Wayland")
def test_window_without_a_display(pictures, video, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display here"):
        demo.main(["--weights", str(pictures), "--source", str(video)])
    # Neither a display that does not exist nor a broken window may end this process.
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(InputError, match=r"no window can be opened|built without windows|a window needs OpenCV"):
        Window(Controls())


def test_cut_source_leaves_a_video_that_plays(tmp_path):
    pytest.importorskip("onnxruntime")
    whole = make_video(tmp_path / "whole.mkv", np.stack([picture(i % 5) for i in range(60)]))
    cut, out = tmp_path / "cut.mkv", tmp_path / "out.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    options = ["--source", cut, "--output", out, "--every", "2", *ONNX]
    done = run_cli(["online_demo/main.py", *options])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and "cut.mkv" in errors[0]
    num_results = len(done.stdout.splitlines())
    assert num_results > 5
    assert len(decoded(out)) in (2 * num_results - 1, 2 * num_results)
    assert sorted(os.listdir(tmp_path)) == ["cut.mkv", "out.mp4", "whole.mkv"]


def test_source_without_a_good_frame_leaves_no_video(pictures, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(b"no video" * 100)
    make_frame_folder(tmp_path / "frames", 3)
    (tmp_path / "frames" / "img_00001.jpg").write_bytes(b"damaged")
    out = tmp_path / "out.mp4"
    for source, culprit in (("noise.mp4", "noise.mp4"), ("frames", "img_00001.jpg")):
        with pytest.raises(InputError, match=culprit):
            demo.main([*TORCH, "--weights", str(pictures), "--source", str(tmp_path / source), "--output", str(out)])
        assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_video(video, tmp_path, number):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out.mp4"
    options = ["--source", video, "--loop", "--output", out, "--every", "2", *ONNX]
    process = subprocess.Popen(
        [sys.executable, PROJECT / "online_demo/main.py", *options],
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


def test_url_that_never_answers():
    pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"
        options = ["--source", url, "--timeout", "1.5", *ONNX]
        done = run_cli(["online_demo/main.py", *options], timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"main.py: error: {url} ")
    assert done.stdout == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
def test_results_that_cannot_be_written_are_one_line():
    pytest.importorskip("onnxruntime")
    command = [sys.executable, PROJECT / "online_demo/main.py", "--source", "sample", *ONNX]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "main.py: error: cannot write the results to stdout (No space left on device); free some space?"
    ]


def test_disk_full_is_one_line(video, tmp_path):
    pytest.importorskip("resource")
    pytest.importorskip("onnxruntime")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "from online_demo.main import main; from ops.common.errors import run_command; run_command(main)"
    options = ["--loop", "--source", video, "--output", tmp_path / "out.mp4", *ONNX]
    done = run_cli(["-c", limited, *options])
    assert done.returncode == 2, done.stderr
    assert "out.mp4: cannot write the video" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == []
