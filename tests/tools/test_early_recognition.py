"""Accuracy against the share of the video seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ops.checkpoint.file import save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.common.errors import InputError
from ops.models import build_model
from tests.helpers import make_frame_folder, make_list
from tools.early_recognition import (
    SHARES,
    Streamed,
    accuracy_at,
    fed_frames,
    main,
    num_answers,
    sure_threshold,
    training_stride,
)


def streamed(label: int, scores: list[list[float]], *, num_frames: int, stride: int) -> Streamed:
    positions = fed_frames(num_frames, stride)
    return Streamed(label, num_frames, positions, np.array(scores, np.float32), np.zeros(2, np.float32))


def test_frames_are_fed_as_far_apart_as_in_training() -> None:
    assert fed_frames(10, 3).tolist() == [0, 3, 6, 9]
    assert training_stride(range(24, 32), 8) == 3  # the moving digits
    assert training_stride([5, 6], 8) == 1


def test_number_of_answers_by_a_share_of_the_video() -> None:
    video = streamed(0, [[0, 0]] * 4, num_frames=10, stride=3)  # frames 1, 4, 7 and 10 of 10
    assert [num_answers(video, share) for share in SHARES] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    short = streamed(0, [[0, 0]], num_frames=1, stride=3)
    assert num_answers(short, 10) == 1


def test_accuracy_by_the_mean_so_far_and_by_the_last_frame() -> None:
    # The mean of class 1 leads from the second frame on; the third frame alone says class 0.
    first = streamed(1, [[1, 0], [0, 3], [2, 1]], num_frames=6, stride=2)  # seen after 1/6, 3/6, 5/6
    second = streamed(0, [[1, 0], [1, 0], [1, 0]], num_frames=6, stride=2)
    both = [first, second]
    assert [accuracy_at(both, share, mean=True) for share in (17, 50, 84, 100)] == [50, 100, 100, 100]
    assert [accuracy_at(both, share, mean=False) for share in (17, 50, 84, 100)] == [50, 100, 50, 50]


def test_threshold_lets_99_percent_right_answers_through() -> None:
    sure, less = [0.0, 3.0], [0.0, 1.0]  # probabilities 0.953 and 0.731 of class 1
    right = streamed(1, [less[::-1]] + [sure] * 199, num_frames=200, stride=1)  # wrong at first: that does not count
    wrong = streamed(0, [less] * 2, num_frames=2, stride=1)
    assert sure_threshold([right, wrong]) == 0.74
    assert sure_threshold([right, streamed(0, [less], num_frames=1, stride=1)]) == 0  # 101 of 102
    assert sure_threshold([streamed(0, [sure], num_frames=1, stride=1)]) == 1


@pytest.fixture
def setting(tmp_path: Path) -> tuple[Path, list[str]]:
    """An online checkpoint of 3 classes, 4 segments, and 6 videos of 4 or 9 frames."""
    options = ModelOptions(
        "mine", arch="resnet18", num_segments=4, num_class=3, input_size=32, is_shift=True, online=True
    )
    torch.manual_seed(0)
    model = build_model(options, partial_bn=False)
    torch.nn.init.normal_(model.classifier.weight)
    path = tmp_path / "mine.pth.tar"
    save_checkpoint({"state_dict": published_state_dict(model), "options": options.to_dict()}, path)
    lines = []
    for video in range(6):
        num_frames = 4 if video < 4 else 9
        make_frame_folder(tmp_path / "videos" / str(video), num_frames, seed=video)
        lines.append((str(video), num_frames, video % 3))
    make_list(tmp_path / "short.txt", lines[:4])
    make_list(tmp_path / "all.txt", lines)
    arguments = ["mine", "--weights", str(path), "--root_path", str(tmp_path / "videos"), "-j", "0"]
    return tmp_path, arguments


def test_streaming_the_frames_of_the_clip_is_the_clip(setting, capsys) -> None:
    folder, arguments = setting
    figures_file = folder / "out" / "early.json"
    main([*arguments, "--test_list", str(folder / "short.txt"), "--json", str(figures_file)])
    figures = json.loads(figures_file.read_text())
    assert (figures["videos"], figures["stride"]) == (4, 1)  # 4 frames, 4 segments
    assert figures["mean_so_far"][-1] == figures["clip"]
    assert "Streamed, asked at the last frame: Prec@1" in capsys.readouterr().out


def test_videos_of_different_length_are_streamed_side_by_side(setting) -> None:
    folder, arguments = setting
    arguments = [*arguments, "--test_list", str(folder / "all.txt"), "--stride", "2"]
    png = folder / "early.png"
    for batch_size, name in ((4, "a.json"), (1, "b.json")):
        main([*arguments, "--batch_size", str(batch_size), "--json", str(folder / name), "--png", str(png)])
    assert json.loads((folder / "a.json").read_text()) == json.loads((folder / "b.json").read_text())
    assert png.read_bytes().startswith(b"\x89PNG")


def test_unreadable_videos_are_named(setting) -> None:
    folder, arguments = setting
    (folder / "videos" / "1" / "img_00002.jpg").unlink()
    with pytest.raises(InputError, match=r"short\.txt:2: .*img_00002\.jpg"):
        main([*arguments, "--test_list", str(folder / "short.txt"), "-j", "1"])
    make_list(folder / "empty.txt", [("0", 0, 0)])
    with pytest.raises(InputError, match=r"empty\.txt:1: .*without frames"):
        main([*arguments, "--test_list", str(folder / "empty.txt")])
    with pytest.raises(InputError, match="3 classes, jester has 27"):
        main(["jester", *arguments[1:]])
