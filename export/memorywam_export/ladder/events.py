"""What happens besides frames: a reset, a snapshot, another instruction, a full memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memorywam_export.parity.parity import play, text_of
from memorywam_export.parity.parity_graphs import Script
from memorywam_export.parity.parity_report import Check
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import Array, Trace
from memorywam_runtime.errors import CapacityError
from memorywam_runtime.session import Session

__all__ = ["EVENT_FRAMES", "FORGOTTEN", "EventTrace", "event_checks", "play_events"]

EVENT_FRAMES = 3
"""Played again after a reset, and before a snapshot."""
FORGOTTEN = "instruction change, memory forgotten"
"""The event after which an episode starts from nothing, so that the reference can follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTrace:
    """What one rung did at each event."""

    name: str
    precision: str
    repeated: dict[str, float]
    """Event to the largest change of what must come out the same, bit for bit."""
    made: dict[str, Array]
    """Event to actions that another rung must make too."""
    refused: str | None
    """What is wrong with how a full memory behaves; empty if nothing, None if it cannot fill."""


def play_events(
    session: Session, script: Script, trace: Trace, name: str, precision: str
) -> EventTrace:
    """Run the events through a session that has just played the script.

    Args:
        session: Its memory is as the script left it.
        script: Of at least one frame.
        trace: What the session made of the script, the first time.
        name: Of the rung.
        precision: Of the rung.
    """
    count = min(EVENT_FRAMES, len(script.pixels))
    refused = _full(session, script)
    own = text_of(session, script.context, script.num_tokens)
    other = text_of(session, script.other_context, script.num_tokens)
    session.reset(own)
    again = _frames(session, script, range(count))
    middle = session.snapshot()
    ahead = range(count, min(count + 2, len(script.pixels)))
    once = _frames(session, script, ahead)
    session.restore(middle)
    restored = session.snapshot()
    twice = _frames(session, script, ahead)
    session.restore(middle)
    session.set_text(other)
    kept = _frames(session, script, ahead)
    session.restore(middle)
    session.set_text(other)
    session.set_text(own)
    back = _frames(session, script, ahead)
    session.reset(other)
    forgotten = _frames(session, script, range(count))
    return EventTrace(
        name=name,
        precision=precision,
        repeated={
            "reset in the middle": _apart(again, trace.actions[:count]),
            "snapshot and restore": max(
                _apart(once, twice),
                *(_apart(restored.arrays[name], array) for name, array in middle.arrays.items()),
            ),
            "instruction changed and changed back": _apart(back, once),
        },
        made={
            "instruction change, memory kept": kept,
            FORGOTTEN: forgotten,
        },
        refused=refused,
    )


def event_checks(traces: Sequence[EventTrace], truth: Mapping[str, Array]) -> list[Check]:
    """Return a check for each event: the worst of all rungs.

    Args:
        traces: Of every rung; the lowest, first, says what those above must make.
        truth: Event to what the reference makes, where it can.
    """
    checks = []
    for event in traces[0].repeated:
        worst = max(traces, key=lambda trace: trace.repeated[event])
        checks.append(_check(worst.name, event, worst.repeated[event], 0.0, "the same bit for bit"))
    for event, lowest in traces[0].made.items():
        wanted = truth.get(event, lowest)
        errors = [_apart(trace.made[event], wanted) for trace in traces]
        limits = [TOLERANCES[trace.precision].max_abs for trace in traces]
        place = max(range(len(traces)), key=lambda i: errors[i] / limits[i])
        by = "the reference" if event in truth else f"{traces[0].name}"
        checks.append(
            _check(traces[place].name, event, errors[place], limits[place], f"against {by}")
        )
    return checks + [
        Check(
            rung=trace.name,
            what="capacity: a frame too many",
            max_abs=None,
            tolerance=None,
            worst=trace.refused or "handled as declared, nothing else changed",
            ok=not trace.refused,
        )
        for trace in traces
        if trace.refused is not None
    ]


def _check(rung: str, event: str, error: float, limit: float, told: str) -> Check:
    """Judge one event."""
    return Check(
        rung=rung, what=event, max_abs=error, tolerance=limit, worst=told, ok=error <= limit
    )


def _frames(session: Session, script: Script, frames: Sequence[int]) -> Array:
    """Play some frames of the script; return the chunks after them [n, horizon, action_dim]."""
    shape = script.noise.shape[1:]
    return np.array([play(session, script, frame) for frame in frames]).reshape(-1, *shape)


def _full(session: Session, script: Script) -> str | None:
    """Play one frame more than memory may hold; return what is wrong with what it does then.

    The limit is moved to where memory stands: to fill one for hours would show nothing else.
    """
    memory = session.memory
    if not memory.rows.num_gists:
        return None
    limit, memory.max_frames = memory.max_frames, memory.num_frames
    before = session.snapshot()
    frame = len(script.pixels) - 1
    if not frame:  # what follows the first image is a group
        count = session.contract.images_per_frame
        script = replace(script, pixels=[np.repeat(script.pixels[0], count, axis=2)])
    try:
        play(session, script, frame)
    except CapacityError:
        after = session.snapshot()
        if memory.on_full == "drop-oldest-gist":
            return f"refused a frame, though the policy is '{memory.on_full}'"
        same = all(np.array_equal(after.arrays[n], before.arrays[n]) for n in before.arrays)
        return "" if same and after.memory == before.memory else "refused, but memory changed"
    else:
        dropped = memory.num_dropped_gists == 1 and memory.on_full == "drop-oldest-gist"
        return "" if dropped else f"took the frame, though the policy is '{memory.on_full}'"
    finally:
        memory.max_frames = limit


def _apart(found: Array, wanted: Array) -> float:
    """Return the largest difference, infinite where one is not finite; 0 between empty ones."""
    if found.shape != wanted.shape:
        return np.inf
    apart = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    return float(np.where(np.isfinite(apart), apart, np.inf).max(initial=0.0))
