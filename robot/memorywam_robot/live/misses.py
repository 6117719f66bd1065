"""Misses: each deadline that an episode missed, with its step and its time."""

from typing import Any, Literal, get_args

import numpy as np

__all__ = ["Miss", "Misses"]

Miss = Literal["late chunk", "bridged", "skipped"]
"""A chunk that came later than expected; steps with the last action in force, as no chunk reached
there; steps that were over before their tick came."""
_KINDS: tuple[Miss, ...] = get_args(Miss)
_NUM_KEPT = 512
"""An hour of a seam a second would have more: they are counted."""
_ROW = np.dtype([("kind", "i1"), ("step", "i8"), ("since_ms", "f8"), ("num_steps", "i8")])
_NONE = -1


class Misses:
    """Notes them in rows that were there before; the first 512 are kept, all are counted."""

    def __init__(self) -> None:
        """Make the rows."""
        self._rows = np.zeros(_NUM_KEPT, _ROW)
        self._num_before = 0
        self._run, self._run_end = _NONE, _NONE
        self.count = 0
        """All, with those that are not kept."""
        self.since_ns = 0
        """The time of this tick, after the newest opening of the gate."""

    @property
    def num_kept(self) -> int:
        """Those that have a row."""
        return min(self.count, _NUM_KEPT)

    def begin(self, num_before: int) -> None:
        """Hear that steps are counted from 0 again, so many being over."""
        self._num_before, self._run_end = num_before, _NONE

    def note(self, kind: Miss, step: int, num_steps: int) -> None:
        """Keep one.

        Args:
            kind: What it was.
            step: The one that it began with, as the queue counts them.
            num_steps: For so many.
        """
        if self.count < _NUM_KEPT:
            row = self._rows[self.count]
            row["kind"], row["step"] = _KINDS.index(kind), self._num_before + step
            row["since_ms"], row["num_steps"] = self.since_ns / 1e6, num_steps
        self.count += 1

    def bridge(self, step: int) -> None:
        """Keep a step without an action of its own: the first of a run, or one more of it."""
        if step != self._run_end:
            self._run = self.count
            self.note("bridged", step, 0)
        if self._run < _NUM_KEPT:
            self._rows[self._run]["num_steps"] += 1
        self._run_end = step + 1

    def report(self) -> list[dict[str, Any]]:
        """Return those that were kept, for machines."""
        return [
            {
                "what": _KINDS[row["kind"]],
                "step": int(row["step"]),
                "since_ms": float(row["since_ms"]),
                "num_steps": int(row["num_steps"]),
            }
            for row in self._rows[: self.num_kept]
        ]
