"""What a fault did to the arms: one record for each, kept as a JSON line where that is asked."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from memorywam_robot.arms.arm_link import ArmLink
from memorywam_robot.arms.arm_status import ArmStatus, status_from_record
from memorywam_robot.arms.guard_words import Mode

__all__ = ["FaultRecord", "is_closed", "is_fast", "is_gone", "keep", "watch_stop"]

_STILL_RAD_PER_S = 0.02
_STILL_MS = 80.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """How the arms took a fault."""

    fault: str
    expected: str
    """The reaction, in words."""
    measured_ms: float | None
    """From the fault to the last move of a measured joint; None if nothing could be measured."""
    target_ms: float
    """From the fault to targets at rest."""
    still: bool
    powered: bool
    reason: str
    """As the supervisor gave it."""


def keep(record: FaultRecord) -> FaultRecord:
    """Append the record to `faults.jsonl` in MEMORYWAM_FAULTS_DIR, if that is set."""
    folder = os.environ.get("MEMORYWAM_FAULTS_DIR")
    if folder:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        with (path / "faults.jsonl").open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
    return record


def is_fast(link: ArmLink, rad_per_s: float, *, within_s: float = 5.0) -> bool:
    """Return whether the first joint is sent along at this speed; waits for two ticks.

    Raises:
        AssertionError: they did not come: the supervisor is gone, or hangs.
    """
    state = link.state
    seen: list[tuple[int, float]] = []
    until_s = time.monotonic() + within_s
    while len(seen) < 2:
        assert time.monotonic() < until_s, "the supervisor says nothing"
        if state.read():
            seen.append((int(state.record["tick_ns"]), float(state.record["target"][0])))
        time.sleep(0.001)
    (first_ns, first), (then_ns, then) = seen
    return abs(then - first) / ((then_ns - first_ns) / 1e9) > rad_per_s


def watch_stop(
    link: ArmLink, fault: str, expected: str, since_ns: int, *, within_s: float = 2.0
) -> tuple[FaultRecord, ArmStatus]:
    """Watch the arms until they are still; return what is worth keeping, and how they are then."""
    state = link.state
    state.read()
    before = state.record["measured"].copy()
    before_ns = int(state.record["measured_ns"])
    moved_ns, num_measured = since_ns, 0
    deadline_s = time.monotonic() + within_s
    is_still = False
    while time.monotonic() < deadline_s and not is_still:
        time.sleep(0.001)
        if not state.read():
            is_still = bool(state.record["is_closed"])
            continue
        record = state.record
        measured_ns = int(record["measured_ns"])
        if measured_ns <= before_ns:
            # A driver that fails measures nothing: its joints are where they are sent.
            is_still = int(record["mode"]) == Mode.STOPPED
            continue
        speed = np.abs(record["measured"] - before).max() / ((measured_ns - before_ns) / 1e9)
        before[:] = record["measured"]
        before_ns, num_measured = measured_ns, num_measured + 1
        if speed > _STILL_RAD_PER_S:
            moved_ns = measured_ns
        is_stopped = int(record["mode"]) == Mode.STOPPED
        is_still = is_stopped and (before_ns - moved_ns) / 1e6 > _STILL_MS
    status = status_from_record(state.record)
    rested_ns = max(status.rested_ns, since_ns)
    return FaultRecord(
        fault=fault,
        expected=expected,
        measured_ms=round((moved_ns - since_ns) / 1e6, 1) if num_measured > 9 else None,
        target_ms=round((rested_ns - since_ns) / 1e6, 1),
        still=is_still and status.is_at_rest,
        powered=status.is_powered,
        reason=status.reason,
    ), status


def is_gone(pid: int, within_s: float = 4.0) -> bool:
    """Wait for a process to end; return whether it has."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # nobody reaps orphans in every container
            return True
        time.sleep(0.01)
    return False


def is_closed(link: ArmLink) -> bool:
    """Return whether the supervisor has let go of the arms."""
    link.state.read()
    return bool(link.state.record["is_closed"])
