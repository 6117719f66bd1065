"""What a recording holds, given to a policy as the loop gave it."""

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy

__all__ = ["Feeder"]


class Feeder:
    """Gives a policy observations as the loop does: all but a frame's last as they are made."""

    def __init__(self, policy: Policy, *, is_async: bool = False) -> None:
        """Stand before the first observation of an episode.

        Args:
            policy: Reset for it.
            is_async: Memory went on while chunks were made: more actions may be here than a frame
                is told of.
        """
        self._policy, self._is_async = policy, is_async
        self._held: list[Observation] = []
        self._due = policy.expected_steps()
        self.executed: list[NDArray[np.float64]] = []
        """Actions since the last frame."""

    @property
    def is_complete(self) -> bool:
        """The next frame has all of its observations."""
        return not self._due

    def is_due(self, step: int) -> bool:
        """Does the next frame take an observation of this step?

        Raises:
            InputError: it takes an earlier one, which was not there.
        """
        if self._due and step > self._due[0]:
            raise InputError(
                f"found an observation of step {step} and none of step {self._due[0]}; expected "
                "one at each step that the contract takes one: this episode was recorded with "
                "gaps, or at another rate"
            )
        return bool(self._due) and step == self._due[0]

    def observe(self, observation: Observation) -> None:
        """Take the next observation; the one before it was not its frame's last."""
        for earlier in self._held:
            self._policy.see(earlier)
        self._held, self._due = [observation], self._due[1:]

    def remember(self) -> int:
        """Complete the frame; return its number."""
        keeps = self._policy.contract.conventions.action_history
        executed = self._taken() if keeps and self._policy.num_frames else None
        frame = self._policy.remember(self._held, executed)
        self._held = []
        if not (self._is_async and keeps):
            self.executed = []
        self._due = self._policy.expected_steps()
        return frame

    def _taken(self) -> NDArray[np.float64]:
        """Return the actions since the last frame; some later ones may be here already."""
        if not self._is_async:
            return np.array(self.executed)
        horizon = self._policy.contract.actions.horizon
        rows, self.executed = self.executed[:horizon], self.executed[horizon:]
        return np.array(rows)
