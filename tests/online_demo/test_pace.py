"""Which frames go to the network, by their times or one in so many."""

import pytest

from online_demo.pace import Pace


def taken(pace, times):
    return [number for number, time_s in enumerate(times) if pace.takes(number, time_s)]


def test_nearest_frame_to_each_time():
    # Due every 0.1 s: frames at 0, 0.12 (or 0.08, as near), 0.2, 0.32 (0.28), 0.4, ...
    assert taken(Pace(10), [t / 25 for t in range(16)]) == [0, 2, 5, 7, 10, 12, 15]
    assert taken(Pace(7.5), [t / 30 for t in range(13)]) == [0, 4, 8, 12]


@pytest.mark.parametrize("fps", [7.5, 12.5, 25, 29.97, 60, 240])
def test_as_many_as_asked_for_whatever_the_source_gives(fps):
    count = len(taken(Pace(7.5), [t / fps for t in range(int(20 * fps))]))
    assert abs(count - 20 * 7.5) <= 1


def test_slower_source_gives_all_its_frames():
    assert taken(Pace(15), [t / 12 for t in range(100)]) == list(range(100))


def test_jitter_and_gaps_do_not_bunch_frames():
    times = [0, 0.03, 0.07, 0.1, 0.13, 0.17, 0.2, 5.0, 5.03, 5.07, 5.1, 5.13]
    assert taken(Pace(10), times) == [0, 3, 6, 7, 10]


def test_every_counts_frames_that_a_slow_network_missed():
    pace = Pace(15, every=2)
    assert [number for number in (0, 1, 2, 3, 7, 8, 9) if pace.takes(number, 0)] == [0, 2, 7, 9]
    pace.reset()
    assert pace.takes(0, 0)
