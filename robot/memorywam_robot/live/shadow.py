"""A shadow run: the policy chooses, somebody else moves, and the distance is told."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_runtime.contract import ActionSpace

__all__ = ["SHADOW_RULES", "ShadowDistance"]

SHADOW_RULES = LimitRules(seam_refused_rad=1e3)
"""Nobody executes the chunks: a jump at a seam is told, and stops nothing."""
_STILL = 0.01
"""Units, rad or a fraction: arms that moved less stood still."""


class ShadowDistance:
    """How far the actions that a policy chose were from what the arms did, joint by joint.

    A step counts if a chunk had an action for it; it is held against where the joints are when the
    step is over. Nothing is allocated after `__init__` but numbers that are gone at once.
    """

    def __init__(self, actions: ActionSpace) -> None:
        """Begin an episode of these joints."""
        count = actions.action_dim
        self._names = actions.names or tuple(f"joint_{index}" for index in range(count))
        self._units = actions.units or ("rad",) * count
        self.num_steps = 0
        """Steps for which a chunk had an action."""
        self._squares, self._worst, self._apart = (np.zeros(count) for _ in range(3))
        self._worst_step = np.zeros(count, np.int64)
        self._lowest, self._highest = np.full(count, np.inf), np.full(count, -np.inf)
        self._is_worse = np.zeros(count, np.bool_)

    def note(
        self, step: int, chosen: NDArray[np.float64], done: NDArray[np.float64], *, is_chosen: bool
    ) -> None:
        """Hear that a step is over.

        Args:
            step: Of the episode, from 1.
            chosen: The action in force [num_joints].
            done: Where the joints are now [num_joints].
            is_chosen: A chunk had it for this step; else it is an old one that stood.
        """
        np.minimum(self._lowest, done, out=self._lowest)
        np.maximum(self._highest, done, out=self._highest)
        if not is_chosen:
            return
        apart = np.subtract(chosen, done, out=self._apart)
        np.abs(apart, out=apart)
        np.greater(apart, self._worst, out=self._is_worse)
        self._worst_step[self._is_worse] = step
        np.maximum(self._worst, apart, out=self._worst)
        np.multiply(apart, apart, out=apart)
        self._squares += apart
        self.num_steps += 1

    @property
    def is_still(self) -> bool:
        """Did no joint move by more than a hundredth?"""
        return not bool((self._highest - self._lowest > _STILL).any())

    def report(self) -> dict[str, Any]:
        """Return it for machines."""
        rms = np.sqrt(self._squares / max(self.num_steps, 1))
        return {
            "num_steps": self.num_steps,
            "is_still": self.is_still,
            "joints": [
                {
                    "name": name,
                    "unit": unit,
                    "rms": float(rms[index]),
                    "worst": float(self._worst[index]),
                    "worst_step": int(self._worst_step[index]),
                }
                for index, (name, unit) in enumerate(zip(self._names, self._units, strict=True))
            ],
        }
