"""The ninth class of the moving digits: nothing of the kind."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

from ops.common.errors import InputError
from tools import make_nothing_videos as nothing
from tools.make_moving_digits import main as make_digits


def video(number, split="train", seed=0):
    return nothing.nothing_video(split, number, seed=seed, size=48, frames=(24, 31))


def test_everything_follows_from_seed_split_and_number():
    for number in range(5):
        assert np.array_equal(video(number), video(number))
    assert not np.array_equal(video(1), video(1, seed=1))
    assert not np.array_equal(video(1)[0], video(1, split="val")[0])


@pytest.mark.parametrize("kind", nothing.KINDS)
def test_kinds_have_the_size_that_is_asked_for(kind):
    frames = kind(np.random.default_rng(3), "val", 32, 9)
    assert frames.shape == (9, 32, 32, 3)
    assert frames.dtype == np.float32
    assert frames.std(axis=(1, 2)).max() > 1 or kind is nothing.noise  # something is seen


def test_digits_do_not_move():
    frames = nothing.unmoving_digit(np.random.default_rng(0), "train", 48, 12)
    assert np.array_equal(frames, np.broadcast_to(frames[:1], frames.shape))
    assert frames.std() > 5


def test_cut_shows_one_thing_and_then_another():
    frames = nothing.cut(np.random.default_rng(1), "train", 48, 30)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() > 5


def test_class_is_added_to_the_digits(tmp_path):
    with pytest.raises(InputError, match=r"holds no moving digits: first run tools/make_moving_digits\.py"):
        nothing.main(["--out", str(tmp_path)])
    make_digits(["--out", str(tmp_path), "--train", "2", "--val", "1", "--size", "32", "--jobs", "1"])
    options = ["--out", str(tmp_path), "--train", "5", "--val", "2", "--jobs", "1"]
    assert nothing.main(options) == 0
    files = sorted((tmp_path / "train" / "nothing").glob("*.mp4"))
    assert [path.name for path in files] == [f"{number:05d}.mp4" for number in range(5)]
    assert len(list((tmp_path / "val" / "nothing").glob("*.mp4"))) == 2
    low, high = json.loads((tmp_path / "moving_digits.json").read_text())["frames"]
    with av.open(str(files[2])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert low <= len(frames) <= high
    assert frames[0].shape == (32, 32, 3)
    written = files[0].stat().st_mtime_ns
    assert nothing.main(options) == 0
    assert files[0].stat().st_mtime_ns == written  # only what is missing
