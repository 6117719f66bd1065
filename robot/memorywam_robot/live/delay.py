"""ExpectedDelay: how many steps a chunk is expected to take, by the newest that were made."""

import math

import numpy as np

from memorywam_robot.live.load import Load, steps_of_busy

__all__ = ["ExpectedDelay"]

_NUM_KEPT = 50
"""Chunks that are looked back at. From: OpenRAL's window."""
_RANK = math.ceil(0.95 * _NUM_KEPT) - 1
"""Of the sorted times: two slow chunks in the window count for nothing, the third does."""


class ExpectedDelay:
    """d: planned at first, then by the 95th of 100 of the newest times; never their maximum.

    A stall of the device is forgotten, and a device that grows slower is followed, as far as the
    load's check would have let it start.
    """

    def __init__(self, load: Load) -> None:
        """Expect what is planned: the window is full of it."""
        self._load = load
        self._busy_ms = np.full(_NUM_KEPT, load.remember_ms + load.act_ms)
        self._index = 0
        self.num_steps = load.num_delayed
        """d, environment steps."""

    def note(self, remember_ms: float, act_ms: float) -> None:
        """Hear what a chunk and its frame took; the oldest is forgotten."""
        self._busy_ms[self._index] = remember_ms + act_ms
        self._index = (self._index + 1) % _NUM_KEPT
        load, busy_ms = self._load, float(np.partition(self._busy_ms, _RANK)[_RANK])
        steps = steps_of_busy(busy_ms * load.margin, load.step_ms)
        self.num_steps = min(steps, load.most_delayed)
