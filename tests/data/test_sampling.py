"""Frame sampling against the rules written out one number at a time."""

from __future__ import annotations

import numpy as np
import pytest

from ops.common.errors import InputError
from ops.data import sampling

FRAMES = range(1, 201)
SEGMENTS = (1, 2, 3, 5, 7, 8, 16, 25, 32, 64)
LENGTHS = (1, 5, 6)


def cases():
    return [(f, t, length) for f in FRAMES for t in SEGMENTS for length in LENGTHS]


# --- the same rules in their plainest form ---------------------------------------------------------------------------


def plain_train(f, t, length, rng):
    d = (f - length + 1) // t
    if d > 0:
        jitter = rng.randint(d, size=t)
        return [k * d + int(jitter[k]) for k in range(t)]
    if f > t and f >= length:
        return sorted(int(v) for v in rng.randint(f - length + 1, size=t))
    return [0] * t


def plain_middles(f, t, length):
    tick = (f - length + 1) / float(t)
    return [max(0, int(tick / 2.0 + tick * k)) for k in range(t)]


def plain_dense(start, f, t):
    frames = []
    for k in range(t):
        frames.append((start + k * (64 // t)) % f)
    return frames


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "t", "length", "expected"),
    [
        (16, 4, 1, [2, 6, 10, 14]),
        (10, 3, 1, [1, 5, 8]),  # tick 3.33: 1.67, 5, 8.33
        (8, 8, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, 8, 1, [0, 0, 1, 1, 2, 2, 3, 3]),  # fewer frames than segments: test spreads all the same
        (1, 3, 1, [0, 0, 0]),
        (20, 4, 5, [2, 6, 10, 14]),  # tick 16/4
        (3, 2, 5, [0, 0]),  # shorter than the stack
    ],
)
def test_test_indices_by_hand(f, t, length, expected):
    assert sampling.test_indices(f, t, length).tolist() == expected


@pytest.mark.parametrize(
    ("f", "t", "length", "expected"),
    [
        (16, 4, 1, [2, 6, 10, 14]),
        (5, 4, 1, [0, 1, 3, 4]),  # tick 1.25: .625, 1.875, 3.125, 4.375
        (4, 4, 1, [0, 0, 0, 0]),  # F > T + L - 1 does not hold
        (9, 4, 5, [0, 1, 3, 4]),
        (8, 4, 5, [0, 0, 0, 0]),
    ],
)
def test_val_indices_by_hand(f, t, length, expected):
    assert sampling.val_indices(f, t, length).tolist() == expected


def test_twice_and_dense_by_hand():
    assert sampling.test_indices(16, 4, twice=True).tolist() == [2, 6, 10, 14, 0, 4, 8, 12]
    dense = sampling.test_indices(73, 8, dense=True).reshape(10, 8)
    assert dense[:, 0].tolist() == list(range(10))  # F - 64 = 9: ten starts, one apart
    assert dense[3].tolist() == [3, 11, 19, 27, 35, 43, 51, 59]
    short = sampling.test_indices(20, 8, dense=True).reshape(10, 8)
    assert (short == [0, 8, 16, 4, 12, 0, 8, 16]).all()  # starts all 0, modulo 20


def test_distance_of_frames():
    assert sampling.frame_distance(28, 8) == 3.5
    assert sampling.frame_distance(28, 8, dense=True) == 8


# --- everything small, against the plain forms -----------------------------------------------------------------------


def test_train_equals_plain_form():
    for seed, (f, t, length) in enumerate(cases()):
        got = sampling.train_indices(f, t, length, rng=np.random.RandomState(seed))
        assert got.tolist() == plain_train(f, t, length, np.random.RandomState(seed)), (f, t, length)


def test_train_draws_once():
    """The state after the call is the state after one published draw, so what follows (the crop) agrees too."""
    rng, plain = np.random.RandomState(5), np.random.RandomState(5)
    sampling.train_indices(100, 8, rng=rng)
    plain.randint(12, size=8)
    assert rng.randint(1 << 30) == plain.randint(1 << 30)


def test_val_equals_plain_form():
    for f, t, length in cases():
        expected = plain_middles(f, t, length) if f > t + length - 1 else [0] * t
        assert sampling.val_indices(f, t, length).tolist() == expected, (f, t, length)


def test_test_equals_plain_form():
    for f, t, length in cases():
        middles = plain_middles(f, t, length)
        tick = (f - length + 1) / float(t)
        firsts = [max(0, int(tick * k)) for k in range(t)]
        assert sampling.test_indices(f, t, length).tolist() == middles
        assert sampling.test_indices(f, t, length, twice=True).tolist() == middles + firsts


def test_dense_equals_plain_form():
    for f in FRAMES:
        for t in SEGMENTS:
            expected = []
            for start in np.linspace(0, max(0, f - 64), 10):
                expected += plain_dense(int(start), f, t)
            assert sampling.test_indices(f, t, dense=True).tolist() == expected
            for sample in (sampling.train_indices, sampling.val_indices):
                start = int(np.random.RandomState(f).randint(0, f - 64)) if f > 64 else 0
                got = sample(f, t, dense=True, rng=np.random.RandomState(f))
                assert got.tolist() == plain_dense(start, f, t)


def test_dense_start_covers_its_range_and_no_more():
    rng = np.random.RandomState(0)
    starts = {int(sampling.train_indices(70, 8, dense=True, rng=rng)[0]) for _ in range(300)}
    assert starts == {0, 1, 2, 3, 4, 5}  # [0, 70 - 64)


def test_all_indices_lie_in_the_video():
    for f, t, length in cases():
        rng = np.random.RandomState(f)
        for starts in (
            sampling.train_indices(f, t, length, rng=rng),
            sampling.val_indices(f, t, length),
            sampling.test_indices(f, t, length, twice=True),
            sampling.train_indices(f, t, length, dense=True, rng=rng),
        ):
            frames = sampling.stack_indices(starts, length, f)
            assert starts.dtype == frames.dtype == np.int64
            assert len(frames) == len(starts) * length
            assert frames.min() >= 0
            assert frames.max() < f


def test_stacks_repeat_the_last_frame():
    assert sampling.stack_indices(np.array([0, 7]), 3, 8).tolist() == [0, 1, 2, 7, 7, 7]
    for f in range(1, 30):
        for start in range(f):
            plain, frame = [], start
            for _ in range(5):
                plain.append(frame)
                if frame < f - 1:
                    frame += 1
            assert sampling.stack_indices(np.array([start]), 5, f).tolist() == plain


def test_clip_counts():
    for options in ({}, {"twice": True}, {"dense": True}):
        assert len(sampling.test_indices(90, 8, **options)) == 8 * sampling.num_test_clips(**options)


def test_bad_arguments():
    with pytest.raises(InputError, match="num_frames must be 1 or more, got 0"):
        sampling.test_indices(0, 8)
    with pytest.raises(InputError, match="num_segments"):
        sampling.val_indices(8, 0)
    with pytest.raises(InputError, match="new_length"):
        sampling.train_indices(8, 8, 0, rng=np.random.RandomState(0))
    with pytest.raises(InputError, match="exclude each other"):
        sampling.test_indices(8, 8, dense=True, twice=True)
    with pytest.raises(InputError, match="seeded rng"):
        sampling.val_indices(8, 8, dense=True)
