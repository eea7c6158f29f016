"""Which frames of a video make a clip: pure functions of counts and a random state.

Letters: F frames in the video, T segments (frames a clip), L frames stacked from each start (`new_length`: 1 for RGB,
5 for Flow, 6 for RGBDiff). All indices are 0-based np.int64. Uniform sampling is TSN's (arXiv:1608.00859, sec. 3.1);
dense sampling is I3D's span of 64 frames. A video shorter than L starts at its first frame: the stack repeats its last.
"""

from __future__ import annotations

import numpy as np

from ops.common.errors import InputError

DENSE_SPAN_FRAMES = 64
DENSE_TEST_CLIPS = 10
TWICE_TEST_CLIPS = 2


def seeded_rng(seed: int, *keys: int) -> np.random.RandomState:
    """Random state of one sample, such as (seed, epoch, index): the same in every worker and in any order."""
    return np.random.RandomState([seed % 2**32, *keys])


def check_views(*, dense: bool, twice: bool) -> None:
    """Refuse dense and twice sampling together."""
    if dense and twice:
        raise InputError("dense and twice sampling exclude each other: choose one")


def check_counts(**counts: int) -> None:
    """Refuse a count, given by its name, that is less than 1."""
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} must be 1 or more, got {count}")


def _of_each_part(num_frames: int, num_segments: int, new_length: int, *, middle: bool) -> np.ndarray:
    """Middle or first frame of each of T equal parts: 16 frames, 4 segments -> [2, 6, 10, 14] or [0, 4, 8, 12]."""
    tick = (num_frames - new_length + 1) / num_segments
    first = tick / 2 if middle else 0.0
    return np.array([max(0, int(first + tick * k)) for k in range(num_segments)], dtype=np.int64)


def _dense_clip(start: int, num_frames: int, num_segments: int) -> np.ndarray:
    """T frames, 64 // T apart, from `start` on; past the end the video begins again."""
    stride = DENSE_SPAN_FRAMES // num_segments
    return (start + stride * np.arange(num_segments, dtype=np.int64)) % num_frames


def _random_dense_clip(num_frames: int, num_segments: int, rng: np.random.RandomState) -> np.ndarray:
    # The last possible start, F-64, is never drawn: the published rule.
    start = rng.randint(0, num_frames - DENSE_SPAN_FRAMES) if num_frames > DENSE_SPAN_FRAMES else 0
    return _dense_clip(start, num_frames, num_segments)


def frame_distance(num_frames: int, num_segments: int, *, dense: bool = False) -> float:
    """How many frames of the video lie from one frame of a training clip to the next, on average: F / T, or 64 // T."""
    return DENSE_SPAN_FRAMES // num_segments if dense else num_frames / num_segments


def train_indices(
    num_frames: int, num_segments: int, new_length: int = 1, *, dense: bool = False, rng: np.random.RandomState
) -> np.ndarray:
    """Starts of a training clip, (T,): one random frame from each of T equal parts.

    With d = (F-L+1) // T > 0: k*d + randint(d). Else, if F > T: T sorted random integers in [0, F-L]. Else all 0.
    dense: a random start in [0, F-64) (0 if F <= 64), then a stride of 64 // T, modulo F.
    """
    check_counts(num_frames=num_frames, num_segments=num_segments, new_length=new_length)
    if dense:
        return _random_dense_clip(num_frames, num_segments, rng)
    num_starts = num_frames - new_length + 1
    part = num_starts // num_segments
    if part > 0:
        starts = part * np.arange(num_segments) + rng.randint(part, size=num_segments)
    elif num_frames > num_segments and num_starts > 0:
        starts = np.sort(rng.randint(num_starts, size=num_segments))
    else:
        starts = np.zeros(num_segments)
    return starts.astype(np.int64)


def val_indices(
    num_frames: int,
    num_segments: int,
    new_length: int = 1,
    *,
    dense: bool = False,
    rng: np.random.RandomState | None = None,
) -> np.ndarray:
    """Starts of a validation clip, (T,): the middles of T equal parts if F > T+L-1, else all 0.

    dense: as in training, from `rng`, which must then be given (seed it, so that epochs can be compared).
    """
    check_counts(num_frames=num_frames, num_segments=num_segments, new_length=new_length)
    if dense:
        if rng is None:
            raise InputError("dense validation draws its start: give a seeded rng")
        return _random_dense_clip(num_frames, num_segments, rng)
    if num_frames > num_segments + new_length - 1:
        return _of_each_part(num_frames, num_segments, new_length, middle=True)
    return np.zeros(num_segments, dtype=np.int64)


def test_indices(
    num_frames: int, num_segments: int, new_length: int = 1, *, dense: bool = False, twice: bool = False
) -> np.ndarray:
    """Starts of all test clips, one clip after the other, (clips*T,).

    Default: 1 clip of the middles of T equal parts (int(tick/2 + tick*k), tick = (F-L+1)/T, whatever F is).
    twice: 2 clips, the middles and then the first frames of the parts.
    dense: 10 clips with starts linspace(0, max(0, F-64), 10) as integers, stride 64 // T, modulo F.
    """
    check_counts(num_frames=num_frames, num_segments=num_segments, new_length=new_length)
    check_views(dense=dense, twice=twice)
    if dense:
        starts = np.linspace(0, max(0, num_frames - DENSE_SPAN_FRAMES), DENSE_TEST_CLIPS).astype(np.int64)
        return np.concatenate([_dense_clip(int(start), num_frames, num_segments) for start in starts])
    middles = _of_each_part(num_frames, num_segments, new_length, middle=True)
    if not twice:
        return middles
    return np.concatenate([middles, _of_each_part(num_frames, num_segments, new_length, middle=False)])


def num_test_clips(*, dense: bool = False, twice: bool = False) -> int:
    """How many clips `test_indices` takes of a video: 10 dense, 2 twice, else 1."""
    check_views(dense=dense, twice=twice)
    if dense:
        return DENSE_TEST_CLIPS
    return TWICE_TEST_CLIPS if twice else 1


def stack_indices(starts: np.ndarray, new_length: int, num_frames: int) -> np.ndarray:
    """Frames of the stacks of L that begin at `starts`, (len(starts)*L,); past the end the last frame repeats.

    Starts [0, 7], L = 3, F = 8 -> [0, 1, 2, 7, 7, 7].
    """
    stacks = starts.astype(np.int64)[:, None] + np.arange(new_length, dtype=np.int64)  # (starts, L)
    return np.minimum(stacks, num_frames - 1).reshape(-1)
