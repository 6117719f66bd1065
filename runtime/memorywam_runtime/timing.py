"""Spans of each stage in a fixed buffer, and their percentiles."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Timings", "percentiles_of"]


def percentiles_of(times_ms: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return count, p50, p95 and p99 of times, ms."""
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99])
    return {"count": float(len(times_ms)), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


class Timings:
    """Remembers the newest spans of each stage; recording allocates nothing that grows."""

    def __init__(self, stages: tuple[str, ...], capacity: int = 4096) -> None:
        self._stages = stages
        self.restart(capacity)

    def restart(self, capacity: int = 4096) -> None:
        """Forget every span; keep the newest `capacity` of each stage from now on."""
        self._spans_ns = {stage: np.zeros(capacity, np.int64) for stage in self._stages}
        self._counts = dict.fromkeys(self._stages, 0)
        self._capacity = capacity

    def span(self, stage: str) -> "_Span":
        """Return a context manager that records how long its body took."""
        return _Span(self, stage)

    def timed(self, stage: str, call: Callable[[], None]) -> Callable[[], None]:
        """Return the call with a span recorded at each turn."""

        def run() -> None:
            start_ns = time.monotonic_ns()
            call()
            self.add(stage, time.monotonic_ns() - start_ns)

        return run

    def add(self, stage: str, duration_ns: int) -> None:
        """Record one span."""
        count = self._counts[stage]
        self._spans_ns[stage][count % self._capacity] = duration_ns
        self._counts[stage] = count + 1

    def milliseconds(self, stage: str) -> NDArray[np.float64]:
        """Return the kept spans of a stage, oldest first unless the buffer has wrapped, ms."""
        count = min(self._counts[stage], self._capacity)
        return self._spans_ns[stage][:count] / 1e6

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Return per stage its count and p50, p95, p99 in ms; stages never run are left out."""
        return {
            stage: percentiles_of(self.milliseconds(stage)) | {"count": float(count)}
            for stage, count in self._counts.items()
            if count
        }


class _Span:
    """Times its body."""

    __slots__ = ("_stage", "_start_ns", "_timings")

    def __init__(self, timings: Timings, stage: str) -> None:
        self._timings = timings
        self._stage = stage
        self._start_ns = 0

    def __enter__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timings.add(self._stage, time.monotonic_ns() - self._start_ns)
