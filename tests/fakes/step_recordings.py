"""Recordings made of a few words, without a file: what becomes rows of a dataset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.fakes.recordings import CAMERAS, ending, header, image_at, state_at

from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Event, Instructed, Observed, Recording, Sent

__all__ = ["action_of", "another", "episode", "recording_of", "saw", "sent"]

STEP_NS = 100_000_000


def action_of(step: int) -> np.ndarray:
    return state_at(1000 + step)


def saw(step: int, *, late: int = 0, of: int | None = None, shape=(6, 8)) -> Observed:
    """After so many steps; with the images of another step, if asked."""
    shown = step if of is None else of
    images = {name: image_at(name, shown, shape) for name in CAMERAS}
    seen = Observation(images=images, state=state_at(shown), step=step)
    now_ns = shown * STEP_NS + 7
    return Observed(observation=seen, captured_ns=now_ns, received_ns=now_ns + late)


def sent(step: int, state: np.ndarray | None = None) -> Sent:
    now_ns = step * STEP_NS - 3
    return Sent(step=step, action=action_of(step), received_ns=now_ns, state=state)


def another(step: int, text: str, *, keep_memory: bool) -> Instructed:
    return Instructed(step=step, instruction=text, keep_memory=keep_memory, received_ns=0)


def episode(num_steps: int = 8, stride: int = 4, *, measured: Sequence[int] = ()) -> list[Event]:
    """Seen before every stride-th step; joints measured as some steps began."""
    events: list[Event] = []
    for step in range(num_steps):
        events += [saw(step)] if step % stride == 0 else []
        state = state_at(2000 + step) if step + 1 in measured else None
        events.append(sent(step + 1, state))
    return events


def recording_of(
    events: Sequence[Event],
    name: str = "one.mcap",
    *,
    ended: str | None = "yes",
    damage: str | None = None,
    **changes: object,
) -> Recording:
    """Return a recording of these events; `ended`: its verdict, None if it has no end."""
    return Recording(
        path=Path(name),
        kind="mcap",
        header=header(**changes),
        num_events=len(events),
        ending=None if ended is None else ending(success=ended),
        damage=damage,
        read=lambda: iter(events),
    )
