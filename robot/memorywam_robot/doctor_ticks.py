"""Whether ticks come in time here: a rehearsal of the arms' process, with nothing in it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from memorywam_robot.arms.real_time import (
    freeze_garbage,
    lock_memory,
    raise_priority,
    sharpen_timers,
)
from memorywam_robot.arms.tick_clock import TickClock
from memorywam_runtime.doctor.doctor_finding import Finding, Status

__all__ = ["TickRules", "TickTest", "tick_findings", "tick_test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRules:
    """Numbers by which ticks are judged."""

    hz: float = 50.0
    """Ticks a second; from ALOHA."""
    seconds: float = 2.0
    """That the rehearsal takes; choice."""
    late_share: float = 0.10
    """Of a period, for 99 of 100 ticks; from ros2_control's style, the number is a choice."""
    late_most_share: float = 0.50
    """The same for each tick."""
    rate_warned_share: float = 0.01
    """That the mean rate may be off. From: LeRobot's tolerance of a cycle."""
    rate_refused_share: float = 0.05
    """The same: above it the robot must not start. From: librealsense's frame rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickTest:
    """What a rehearsal found."""

    hz: float
    """Ticks that came, a second; periods that were skipped are missing from it."""
    late_p99_ms: float
    late_max_ms: float
    is_scheduled: bool
    """It ran before ordinary processes (SCHED_FIFO)."""
    is_locked: bool
    """Its memory could not be paged out."""


def tick_test(hz: float, seconds: float) -> TickTest:
    """Tick in this process, as the arms' does: its priority and memory stay changed."""
    sharpen_timers()
    is_scheduled, is_locked = raise_priority(), lock_memory()
    freeze_garbage()
    period_ns = round(1e9 / hz)
    clock = TickClock(period_ns)
    num_ticks = round(hz * seconds)
    began_ns = now_ns = clock.wait()
    for _ in range(num_ticks):
        now_ns = clock.wait()
    return TickTest(
        hz=num_ticks * 1e9 / (now_ns - began_ns),
        late_p99_ms=clock.late_p99_ns / 1e6,
        late_max_ms=clock.late_max_ns / 1e6,
        is_scheduled=is_scheduled,
        is_locked=is_locked,
    )


def tick_findings(
    rules: TickRules | None = None, found: TickTest | None = None
) -> Iterator[Finding]:
    """Rehearse in a process of its own, and judge.

    Args:
        rules: What is too late.
        found: A rehearsal that was made already.
    """
    rules = rules or TickRules()
    test = found or _tested(rules)
    if test is None:
        fix = "close what else runs here, and ask again"
        yield Finding(part="ticks", status="missing", found="did not come to an end", fix=fix)
        return
    period_ms = 1e3 / rules.hz
    off = abs(test.hz / rules.hz - 1)
    told = (
        f"{test.hz:.2f} Hz of {rules.hz:g}, late {test.late_p99_ms:.2f} ms (p99), "
        f"{test.late_max_ms:.2f} ms (most) of {period_ms:g}"
    )
    is_late = test.late_p99_ms > rules.late_share * period_ms
    is_late |= test.late_max_ms > rules.late_most_share * period_ms
    if not is_late and off <= rules.rate_warned_share:
        yield Finding(part="ticks", status="ok", found=told)
        return
    fix = "close what else runs here, and use the performance governor"
    if not test.is_scheduled:
        fix = "allow real-time priority (see there), and close what else runs here"
    status: Status = "missing" if off > rules.rate_refused_share else "warn"
    yield Finding(part="ticks", status=status, found=told, fix=fix)


def _tested(rules: TickRules) -> TickTest | None:
    """Return the rehearsal of a process of its own; None if it came to no end."""
    words = [str(rules.hz), str(rules.seconds)]
    try:
        told = subprocess.run(
            [sys.executable, "-m", "memorywam_robot.doctor_ticks", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=30 + 10 * rules.seconds,
            stdin=subprocess.DEVNULL,
        ).stdout
        return TickTest(**json.loads(told))
    except (subprocess.SubprocessError, OSError, ValueError):
        return None


if __name__ == "__main__":
    result = tick_test(float(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(json.dumps({name: getattr(result, name) for name in result.__slots__}))
