"""The rate that ticks kept, and the longest of them, by a clock that is turned by hand."""

import pytest

from memorywam_robot.arms.tick_clock import TickClock
from memorywam_robot.live.pace import Pace

MS = 1_000_000


class Time:
    """Moves only by sleep and by work."""

    def __init__(self):
        self.now_ns = 7 * MS

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


def test_each_episode_has_a_rate_and_a_worst_tick_of_its_own():
    time = Time()
    clock = TickClock(20 * MS, lambda: time.now_ns, time.sleep)
    pace = Pace(clock)
    assert (pace.kept_hz, pace.worst_ms) == (None, None)
    pace.wait()
    assert (pace.kept_hz, pace.worst_ms) == (None, None), "one tick has no rate"
    for tick in range(100):
        time.now_ns += (130 if tick == 40 else 5) * MS
        pace.wait()
    # The one of 130 ms skipped 5 periods whole, and the next came on its old beat.
    assert pace.kept_hz == pytest.approx(100 / (105 * 0.02))
    assert pace.worst_ms == 130.0
    time.now_ns += 3000 * MS
    pace = Pace(clock)
    for _ in range(50):
        pace.wait()
    assert pace.kept_hz == pytest.approx(50.0)
    assert pace.worst_ms == 20.0
    assert clock.num_skipped == 5, "the pause between episodes counts for nothing"
