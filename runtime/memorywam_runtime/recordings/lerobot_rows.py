"""An episode as rows of one rate: what a LeRobot dataset holds of a recording.

One row a control step, at the recording's `control_hz`. The row of step k, counted from the start
of the episode, has

- the action that was sent as step k + 1, after all limits; where the robot was held, what held it;
- the newest observation made after k steps or fewer: all of its images, of one moment. Where the
  robot was observed at every fourth step, four rows have the same; `observed_step` tells rows with
  one of their own from those that repeat it;
- the joint state as step k + 1 began, where it was measured then, as a loop that keeps time does;
  else that of the observation. Nothing is interpolated: what was not measured is not known;
- the instruction in force, so that another one in the middle of an episode begins with its step;
- `timestamp`: k / control_hz, as LeRobot wants it. When it really was is in `captured_s`, seconds
  by the cameras' clock since the first row's observation, and `sent_s`, by the host's since it had
  that observation. In the simulator's time alone these are two clocks.

Left out: chunks, what memory took and its digests, seeds and hashes; actions before the first
observation, and observations after the last action.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Event, Instructed, Observed, Recording, Sent

__all__ = ["EpisodeRows", "Row", "Sight"]

_MOST_AHEAD = 64
"""Observations that may wait for an action after the first of them. Three cameras of 640 by 480
pixels are 180 MB then; a loop that keeps time has two or three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """An observation as rows hold it."""

    step: int
    """Environment steps since the start of the episode, whatever became of memory meanwhile."""
    state: NDArray[np.float32]
    """[state_dim]"""
    images: dict[str, NDArray[np.uint8]]
    """Camera name to RGB image [rows, columns, 3]."""
    captured_ns: int
    """By the cameras' clock."""
    received_ns: int
    """By the host's clock, as `Row.sent_ns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One control step."""

    step: int
    """Environment steps before its action, since the start of the episode."""
    sight: Sight
    """The very same object in all rows that repeat it."""
    action: NDArray[np.float32]
    """[action_dim]"""
    state: NDArray[np.float32]
    """[state_dim], as the step began; of the sight, where nobody measured it then."""
    sent_ns: int
    task: str


class EpisodeRows:
    """Yields the rows of a recording once; what it had to leave out is known afterwards."""

    def __init__(self, recording: Recording, told: Callable[[int], None] = lambda _: None) -> None:
        """Begin before the first event.

        Args:
            recording: Of any kind; up to its damage if it has any.
            told: Called with the number of events done.
        """
        self._recording, self._told = recording, told
        self._sights: deque[Sight] = deque()
        self._waiting: deque[Sent] = deque()
        self._tasks: deque[tuple[int, str]] = deque([(0, recording.header.instruction)])
        self._emptied_at = 0
        self._last_step: int | None = None
        self._has_rows = False
        self.num_unseen = 0
        """Actions before the first observation."""
        self.num_unused = 0
        """Observations after the last action."""
        self.cut: str | None = None
        """Why the recording was not read to its end, though it is no damage of the file's."""

    def __iter__(self) -> Iterator[Row]:
        """Yield each row as soon as no observation can come that is newer.

        Raises:
            InputError: an image that cannot be decoded, numbers that float32 cannot hold, or
                actions that are not in order.
        """
        for number, event in enumerate(self._recording.events(), 1):
            if isinstance(event, Observed):
                yield from self._before(self._emptied_at + event.observation.step)
            self._take(event)
            self._told(number)
            if len(self._sights) > _MOST_AHEAD:
                self.cut = (
                    f"found {_MOST_AHEAD} observations without an action after step "
                    f"{self._sights[0].step}; what follows is left out"
                )
                break
        yield from self._before(None)
        self.num_unused = len(self._sights) - self._has_rows

    def _take(self, event: Event) -> None:
        """Keep what a row will be made of."""
        if isinstance(event, Instructed):
            self._tasks.append((event.step, event.instruction))
            if not event.keep_memory:
                self._emptied_at = event.step
        elif isinstance(event, Sent):
            self._check_order(event.step)
            self._waiting.append(event)
        elif isinstance(event, Observed):
            sight = self._sight(event)
            while self._sights and self._sights[-1].step > sight.step:
                self._sights.pop()
            self._sights.append(sight)

    def _before(self, step: int | None) -> Iterator[Row]:
        """Yield the rows of all actions that began before a step; None: of all."""
        while self._waiting and (step is None or self._waiting[0].step <= step):
            sent = self._waiting.popleft()
            begun = sent.step - 1
            while len(self._sights) > 1 and self._sights[1].step <= begun:
                self._sights.popleft()
            while len(self._tasks) > 1 and self._tasks[1][0] <= begun:
                self._tasks.popleft()
            if not self._sights or self._sights[0].step > begun:
                self.num_unseen += 1
                continue
            self._has_rows = True
            yield self._row(sent)

    def _row(self, sent: Sent) -> Row:
        """Return the row of an action: what was seen, and told, before it."""
        path, sight, step = self._recording.path, self._sights[0], sent.step
        state = sight.state
        if sent.state is not None:
            state = _float32(path, f"the state as step {step} began", sent.state)
        return Row(
            step=step - 1,
            sight=sight,
            action=_float32(path, f"the action of step {step}", sent.action),
            state=state,
            sent_ns=sent.received_ns,
            task=self._tasks[0][1],
        )

    def _sight(self, event: Observed) -> Sight:
        """Return an observation, counted from the start of the episode."""
        seen = event.observation
        return Sight(
            step=self._emptied_at + seen.step,
            state=_float32(self._recording.path, f"the state at step {seen.step}", seen.state),
            images=dict(seen.images),
            captured_ns=event.captured_ns,
            received_ns=event.received_ns,
        )

    def _check_order(self, step: int) -> None:
        """Refuse an action that is not the next one: rows have no gaps."""
        if self._last_step is not None and step != self._last_step + 1:
            raise InputError(
                f"{self._recording.path}: found the action of step {step} after that of "
                f"{self._last_step}; expected step {self._last_step + 1}: a dataset of one rate "
                "has no gaps, leave this recording out"
            )
        self._last_step = step


def _float32(path: Path, what: str, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return numbers in the type of LeRobot's."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise InputError(
            f"{path}: found {values[~np.isfinite(found)][0]} in {what}; expected numbers that "
            "float32 can hold: leave this recording out"
        )
    return found
