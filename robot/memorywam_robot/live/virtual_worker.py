"""A worker in simulated time: it does the work at once, and tells of it when it would be done."""

from collections import deque
from dataclasses import dataclass, replace

from memorywam_robot.live.tasks import ChunkMade, Event, FrameRemembered, Task
from memorywam_robot.live.worker import Worker

__all__ = ["Latency", "VirtualWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What work costs in simulated time."""

    remember_ms: float
    """One frame into memory."""
    step_ms: float
    """One denoising step."""
    see_ms: float = 0.0
    """One image of a frame that is not its last; 0 where it is told in `remember_ms`."""

    def unit_ns(self, unit: str) -> int:
        """Return the time of one turn of a worker."""
        costs = {"see": self.see_ms, "remember": self.remember_ms, "step": self.step_ms}
        return round(costs.get(unit, 0.0) * 1e6)


class VirtualWorker:
    """Runs a worker's turns one after another, each for as long as is told; no thread.

    The same tasks at the same times give the same events at the same times, on any machine.
    """

    def __init__(self, worker: Worker, latency: Latency) -> None:
        """Stand at time 0 with nothing to do."""
        self._worker, self._latency = worker, latency
        self._now_ns = self._free_ns = self._prepared_ns = 0
        self._told: deque[Event] = deque()
        self._doing: list[Event] = []

    def advance(self, now_ns: int) -> None:
        """Let time go on: whatever is done by then is told."""
        while True:
            if self._free_ns > now_ns:
                break
            self._told.extend(self._doing)
            self._doing = []
            started_ns = max(self._free_ns, self._now_ns)
            unit = self._worker.turn()
            if unit is None:
                break
            self._free_ns = started_ns + self._latency.unit_ns(unit)
            if unit == "prepare":
                self._prepared_ns = started_ns
            self._doing = [self._timed(event) for event in self._worker.events()]
        self._now_ns = now_ns

    def _timed(self, event: Event) -> Event:
        """Return it with the time that its work takes: the worker itself took none."""
        if isinstance(event, FrameRemembered):
            return replace(event, took_ms=self._latency.unit_ns("remember") / 1e6)
        if isinstance(event, ChunkMade):
            return replace(event, took_ms=(self._free_ns - self._prepared_ns) / 1e6)
        return event

    def put(self, task: Task) -> None:
        """Leave a task."""
        self._worker.put(task)

    def events(self) -> list[Event]:
        """Return what was done since the last call."""
        found = list(self._told)
        self._told.clear()
        return found
