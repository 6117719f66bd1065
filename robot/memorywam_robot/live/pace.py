"""Pace: the rate that the ticks of one episode kept."""

from memorywam_robot.arms.tick_clock import TickClock

__all__ = ["Pace"]


class Pace:
    """Waits by a clock, and notes how far apart the ticks of one episode were."""

    def __init__(self, clock: TickClock) -> None:
        """Begin an episode: deadlines count from its first tick on."""
        self._clock = clock
        self._first_ns = self._newest_ns = self._worst_ns = self._num_ticks = 0
        clock.restart()

    def wait(self) -> int:
        """Sleep until the next deadline; return the time after it, ns."""
        now_ns = self._clock.wait()
        if self._num_ticks:
            self._worst_ns = max(self._worst_ns, now_ns - self._newest_ns)
        else:
            self._first_ns = now_ns
        self._newest_ns = now_ns
        self._num_ticks += 1
        return now_ns

    @property
    def kept_hz(self) -> float | None:
        """Ticks a second from the first to the newest; None before the second."""
        if self._num_ticks < 2:
            return None
        return (self._num_ticks - 1) * 1e9 / (self._newest_ns - self._first_ns)

    @property
    def worst_ms(self) -> float | None:
        """Longest from one tick to the next; None before the second."""
        return self._worst_ns / 1e6 if self._num_ticks > 1 else None
