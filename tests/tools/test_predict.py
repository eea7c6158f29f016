"""tools/predict.py: the same answers as test_models.py, in windows too, and one clear line for what is no video."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import test_models
from ops.common.errors import InputError
from ops.data.sources import VideoFile
from ops.evaluation.scores import Scores
from tests.data.test_ffmpeg import write
from tests.helpers import make_frame_folder, make_frames, make_list, make_video, run_cli
from tests.test_test_models import write_checkpoint
from tools import predict
from tools.shared.clips import make_windows

NAMES = ['it\'s "up"', "$(down)", "left; right"]
NUM_FRAMES = 30


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_checkpoint(tmp_path_factory.mktemp("nets") / "tsm.pth.tar", is_shift=True, class_names=NAMES))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video file with an odd name."""
    path = tmp_path_factory.mktemp("videos") / 'it\'s "a" $(touch pwned) clip.mp4'
    return make_video(path, make_frames(NUM_FRAMES, (56, 42)), fps=10)


@pytest.fixture(scope="module")
def frames_of_video(tmp_path_factory, video):
    """The same video as a folder of lossless frames."""
    folder = tmp_path_factory.mktemp("odd 'name' $(x)")
    for number, frame in enumerate(VideoFile(video, backend="pillow").frames(), start=1):
        frame.save(folder / f"f{number:03d}.png")
    return folder


def rows(capsys, *arguments):
    """JSON rows of a run in this process."""
    predict.main([*map(str, arguments), "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def probabilities(row):
    return {best["class"]: best["probability"] for best in row["predictions"]}


@pytest.mark.parametrize("options", [[], ["--test_crops", "3", "--full_res", "--twice_sample"]])
def test_a_file_and_a_folder_agree_with_test_models(capsys, tmp_path, weights, video, frames_of_video, options):
    listed = make_list(tmp_path / "list.txt", [(video.name, NUM_FRAMES, 0)])
    where = ["--root_path", video.parent, "--test_list", listed, "--scores", tmp_path / "s.npz", "--io", "video"]
    test_models.main(
        [
            str(a)
            for a in ["any", "--any_dataset", "--weights", weights, "--test_segments", 4, "-j", 0, *where, *options]
        ]
    )
    capsys.readouterr()
    expected = torch.from_numpy(Scores.load(tmp_path / "s.npz").scores[0]).softmax(dim=0)

    (row,) = rows(capsys, video, "--weights", weights, *options)
    assert row["video"] == str(video)
    assert (row["start"], row["end"]) == (0.0, 3.0)
    best = row["predictions"]
    assert [entry["class"] for entry in best] == expected.argsort(descending=True).tolist()
    assert [entry["name"] for entry in best] == [NAMES[entry["class"]] for entry in best]
    for cls, probability in probabilities(row).items():
        assert probability == pytest.approx(expected[cls].item(), abs=1e-5)

    (folder_row,) = rows(
        capsys, frames_of_video, "--weights", weights, "--image_tmpl", "f{:03d}.png", "--fps", 10, *options
    )
    for cls, probability in probabilities(folder_row).items():
        assert probability == pytest.approx(expected[cls].item(), abs=1e-5)


def test_text_output(capsys, weights, video):
    predict.main([str(video), "--weights", weights, "--topk", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{video}: 30 frames at 10 a second, TSM ")
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert all(any(line.endswith(name) for name in NAMES) for line in lines[1:])
    predict.main([str(video), "--weights", weights, "--topk", "1", "--window", "1"])
    lines = capsys.readouterr().out.splitlines()[1:]
    spans = [f"00:00:{start:05.2f} - 00:00:{start + 1:05.2f}" for start in (0, 0.5, 1, 1.5, 2)]
    assert [line[:25] for line in lines] == spans


def test_windows_are_what_their_frames_alone_would_be(capsys, tmp_path, weights, video, frames_of_video):
    windowed = rows(capsys, video, "--weights", weights, "--window", 1.2, "--stride", 0.7)
    starts = [0, 7, 14, 18]  # 12 frames each; the last window ends with the video
    assert [(row["start"], row["end"]) for row in windowed] == [(s / 10, (s + 12) / 10) for s in starts]
    for row, start in zip(windowed, starts, strict=True):
        part = tmp_path / f"part{start}"
        part.mkdir()
        for number in range(12):
            with Image.open(frames_of_video / f"f{start + number + 1:03d}.png") as image:
                image.save(part / f"img_{number + 1:05d}.png")
        (alone,) = rows(capsys, part, "--weights", weights, "--image_tmpl", "img_{:05d}.png")
        for cls, probability in probabilities(alone).items():
            assert probabilities(row)[cls] == pytest.approx(probability, abs=1e-5)


def test_windows_of_variable_rate_have_the_frames_own_times(capsys, tmp_path, weights):
    times = [0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55]  # in 1/25 s: a pause of 1.8 s
    video = write(tmp_path / "v.mp4", times)
    spans = [(row["start"], row["end"]) for row in rows(capsys, video, "--weights", weights, "--window", 1)]
    assert spans[0] == (0, 0.2)  # the nearest frames to 0 and 1 s
    assert spans[-1][1] == pytest.approx(56 / 25)
    assert all(start <= stop for (start, _), (_, stop) in zip(spans[1:], spans, strict=False))  # no frame is left out
    assert {time for span in spans for time in span} <= {time / 25 for time in [*times, 56]}


@pytest.mark.parametrize(
    ("num_frames", "window", "stride", "expected"),
    [
        (10, 4, 4, [(0, 4), (4, 8), (6, 10)]),
        (8, 4, 4, [(0, 4), (4, 8)]),
        (3, 4, 2, [(0, 3)]),
        (4, 4, 1, [(0, 4)]),
        (9, 4, 2.5, [(0, 4), (2, 6), (5, 9)]),
    ],
)
def test_make_windows(num_frames, window, stride, expected):
    assert [(w.start, w.stop) for w in make_windows(np.arange(num_frames + 1.0), window, stride)] == expected


def test_the_last_window_ends_with_a_video_of_variable_rate():
    times = np.array([0.0, 1, 2, 3, 7, 8])  # the nearest frame to second 4, a window before the end, begins at 3
    assert make_windows(times, 4, 4)[-1] == range(3, 5)


def test_time_stamp():
    assert predict.time_stamp(63.5) == "00:01:03.50"
    assert predict.time_stamp(3599.999) == "01:00:00.00"


def test_names_come_from_the_file_that_is_given(capsys, tmp_path, weights, video):
    labels = tmp_path / "names.txt"
    labels.write_text("one\ntwo\nthree\n")
    (row,) = rows(capsys, video, "--weights", weights, "--labels", labels)
    assert {entry["name"] for entry in row["predictions"]} == {"one", "two", "three"}
    labels.write_text("one\ntwo\n")
    with pytest.raises(InputError, match="2 names, the network 3 classes"):
        rows(capsys, video, "--weights", weights, "--labels", labels)


def test_numbers_where_there_are_no_names(capsys, tmp_path, video):
    nameless = write_checkpoint(tmp_path / "nameless.pth.tar", dataset="mine")
    (row,) = rows(capsys, video, "--weights", nameless)
    assert all(entry["name"] == str(entry["class"]) for entry in row["predictions"])


def test_what_is_no_video(capsys, tmp_path, weights):
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    cut = make_video(tmp_path / "cut.mp4", make_frames(4))
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    make_frame_folder(tmp_path / "frames", 3, tmpl="other_{:05d}.jpg")
    for path in (text, cut, tmp_path / "none.mp4", tmp_path / "folder", tmp_path / "frames"):
        with pytest.raises(InputError) as caught:
            rows(capsys, path, "--weights", weights)
        assert str(path) in str(caught.value)


def test_several_videos_of_which_one_cannot_be_read(capsys, tmp_path, weights, video, frames_of_video):
    missing = tmp_path / "no\nne.mp4"
    options = ["--weights", weights, "--image_tmpl", "f{:03d}.png", "--fps", "10", "--json"]
    assert predict.main([str(path) for path in (video, missing, frames_of_video)] + options) == 1
    printed = capsys.readouterr()
    both = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["video"] for row in both] == [str(video), str(frames_of_video)]
    (alone,) = rows(capsys, video, "--weights", weights)
    assert both[0] == alone
    first, last = printed.err.splitlines()
    assert first.startswith(f"predict.py: error: {tmp_path}/no ne.mp4") and last == "1 of 3 videos could not be read"
    assert predict.main([str(video), str(frames_of_video), *options]) == 0


@pytest.mark.parametrize("options", [["--window", "0"], ["--stride", "1"], ["--window", "inf"], ["--window", "nan"]])
def test_impossible_options(capsys, weights, video, options):
    with pytest.raises((InputError, SystemExit), match=r"^2$|--stride goes with"):
        rows(capsys, video, "--weights", weights, *options)
    assert options[0] == "--stride" or "must be more than 0" in capsys.readouterr().err


def test_the_command_works_from_any_folder(tmp_path, weights, video):
    result = run_cli(["tools/predict.py", video, "--weights", weights, "--json"], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sum(probabilities(json.loads(result.stdout)).values()) == pytest.approx(1.0, abs=1e-5)
    assert list(tmp_path.iterdir()) == []  # nothing ran what the name says
