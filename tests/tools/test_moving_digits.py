"""The moving digits: only the order of the frames tells the two classes of a pair apart."""

from __future__ import annotations

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ops.common.errors import InputError
from ops.data.sampling import val_indices
from ops.evaluation.scores import Scores
from tools import make_moving_digits as digits
from tools.compare_reversed import count_turned


def scene(number, split="train", seed=0):
    return digits.scene_of(split, number, seed=seed, size=48, frames=(24, 31))


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def centre_of_change(frames):
    """(x, y) of what differs from the median picture, for each frame."""
    difference = np.abs(frames.astype(int) - np.median(frames, axis=0).astype(int)).sum(-1).astype(float)
    mass = difference.sum((1, 2))
    y, x = np.mgrid[0 : frames.shape[1], 0 : frames.shape[2]]
    return np.stack([(difference * x).sum((1, 2)) / mass, (difference * y).sum((1, 2)) / mass], axis=1)


def digit_mask(frames, scene_):
    """Pixels unlike the background alone, (F, H, W)."""
    still = digits._background(scene_)
    return np.abs(frames - still[None]).sum(-1) > 60


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    assert digits.main(["--out", str(out), "--train", "16", "--val", "9", "--size", "32", "--jobs", "1"]) == 0
    return out


def test_pairs_are_each_others_reversal():
    assert sorted(digits.TIME_REVERSED) == sorted(digits.CLASSES) == list(digits.CLASSES)
    assert all(digits.TIME_REVERSED[digits.TIME_REVERSED[name]] == name for name in digits.CLASSES)
    assert not any(digits.TIME_REVERSED[name] == name for name in digits.CLASSES)


def test_every_class_gets_the_same_number_of_videos(small_set):
    counts = {folder.name: len(list(folder.glob("*.mp4"))) for folder in (small_set / "train").iterdir()}
    assert counts == dict.fromkeys(digits.CLASSES, 2)
    assert len(list((small_set / "val").rglob("*.mp4"))) == 9


def test_decoded_videos_of_a_pair_are_each_others_exact_reversal(small_set):
    # After coding and decoding: so compression cannot tell the direction either.
    for number in range(8):
        first, second = (digits.video_path("train", 2 * number + side) for side in (0, 1))
        assert digits.TIME_REVERSED[first.parts[1]] == second.parts[1]
        forwards, backwards = decode(small_set / first), decode(small_set / second)
        assert 24 <= len(forwards) <= 31
        np.testing.assert_array_equal(forwards, backwards[::-1])


def test_mpeg4_is_symmetric_in_time_too(tmp_path):
    frames = digits.render(scene(0))
    digits.write_video(tmp_path / "a.mp4", frames, "mpeg4")
    digits.write_video(tmp_path / "b.mp4", frames[::-1], "mpeg4")
    np.testing.assert_array_equal(decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mp4")[::-1])


def test_decoded_video_shows_what_was_rendered(small_set):
    frames = digits.render(digits.scene_of("train", 0, seed=0, size=32, frames=(24, 31)))
    decoded = decode(small_set / digits.video_path("train", 0))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 6  # what 4:2:0 and the quantiser take


@pytest.mark.parametrize("num_frames", range(24, 32))
def test_frames_that_validation_samples_are_the_same_backwards(num_frames):
    indices = val_indices(num_frames, 8)
    assert sorted(num_frames - 1 - indices) == sorted(indices)


@pytest.mark.parametrize("number", range(8))
def test_moves_go_where_the_class_says(number):
    frames = digits.render(scene(number))
    centres = centre_of_change(frames)
    (dx, dy), kind = centres[-4:].mean(0) - centres[:4].mean(0), digits.PAIRS[number % 4][0]
    if kind == "moves_right":
        assert dx > 6 > abs(dy)
    elif kind == "moves_down":
        assert dy > 6 > abs(dx)


def areas(scene_):
    """Pixels of the digit in each frame."""
    return digit_mask(digits.render(scene_), scene_).sum((1, 2))


def test_growing_grows_and_turning_keeps_the_size():
    for number in range(2, 40, 4):
        area = areas(scene(number))
        assert area[-3:].mean() > 1.5 * area[:3].mean()
    for number in range(3, 43, 4):
        area = areas(scene(number))
        assert area.max() < 1.6 * area.min()


def test_clockwise_is_clockwise_for_the_viewer():
    seven = next(index for index, label in enumerate(load_digits().target) if label == 7)
    quarter = {"start": (0.5, 0.5, np.log(0.9), 0.0), "end": (0.5, 0.5, np.log(0.9), np.pi / 2)}
    scene_ = replace(scene(3), digit=seven, num_frames=2, ease=0.0, **quarter)
    upright, turned = digit_mask(digits.render(scene_), scene_)
    # np.rot90 turns counter-clockwise as displayed, with k=-1 clockwise.
    assert (turned == np.rot90(upright, -1)).mean() > 0.95 > (turned == np.rot90(upright, 1)).mean() + 0.03


@pytest.mark.parametrize("number", range(8))
def test_swapping_start_and_end_is_playing_backwards(number):
    # So the two classes of a pair hold the same pictures on the way, at any speed profile.
    scene_ = scene(number)
    swapped = digits.render(replace(scene_, start=scene_.end, end=scene_.start))
    difference = np.abs(swapped[::-1].astype(int) - digits.render(scene_))
    assert np.percentile(difference, 99.9) <= 2  # rounding of the mask


def test_the_digit_is_in_view_half_way():
    middles = np.array([(np.array(s.start) + np.array(s.end)) / 2 for s in map(scene, range(200))])
    assert (middles[:, :2] > 0.3).all() and (middles[:, :2] < 0.7).all()


def test_training_and_validation_share_no_digit():
    train = {scene(number).digit for number in range(300)}
    val = {scene(number, "val").digit for number in range(300)}
    assert not train & val and len(train) > 200 and len(val) > 150
    assert set(digits.split_digits("train")) | set(digits.split_digits("val")) == set(range(1797))


def test_same_seed_same_videos_whatever_the_number_of_processes(small_set, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    options = ["--train", "16", "--val", "9", "--size", "32"]
    digits.main(["--out", str(again), *options, "--jobs", "2"])
    digits.main(["--out", str(other), *options, "--jobs", "1", "--seed", "1"])
    videos = sorted(path.relative_to(again) for path in again.rglob("*.mp4"))
    assert len(videos) == 25
    assert all((again / video).read_bytes() == (small_set / video).read_bytes() for video in videos)
    assert not any((other / video).read_bytes() == (small_set / video).read_bytes() for video in videos)


def test_second_run_adds_only_what_is_missing(tmp_path):
    options = ["--out", str(tmp_path), "--val", "0", "--size", "32", "--jobs", "1"]
    digits.main([*options, "--train", "8"])
    kept, lost = tmp_path / digits.video_path("train", 3), tmp_path / digits.video_path("train", 2)
    content, before = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    digits.main([*options, "--train", "10"])
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == before
    assert len(list(tmp_path.rglob("*.mp4"))) == 10
    assert json.loads((tmp_path / "moving_digits.json").read_text())["size"] == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "33"], "odd"),
        (["--frames", "9", "8"], "first must not be the larger"),
        (["--seed", "5"], "other options"),
    ],
)
def test_refuses(tmp_path, options, message):
    base = ["--out", str(tmp_path), "--train", "2", "--val", "0", "--size", "32", "--jobs", "1"]
    digits.main(base)
    with pytest.raises(InputError, match=message):
        digits.main([*base, *options])


def scores_of(answers, names):
    return Scores(names, np.zeros(len(answers), np.int64), np.eye(len(digits.CLASSES), dtype=np.float32)[answers])


def test_turned_answers_are_counted_in_any_order_of_the_videos():
    grows, shrinks, up = (digits.CLASSES.index(name) for name in ("grows", "shrinks", "moves_up"))
    forwards = scores_of([grows, shrinks, up], ["a", "b", "c"])
    backwards = scores_of([up, shrinks, shrinks], ["c", "b", "a"])  # a turned; b and c stayed
    assert count_turned(forwards, backwards) == 1
    with pytest.raises(InputError, match="same videos"):
        count_turned(scores_of([0], ["a"]), scores_of([0], ["b"]))
