"""A subscriber that counts the gists which a full memory drops, and logs an episode's first."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.loop import EpisodeResult, EpisodeStart
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy

__all__ = ["GistWatch"]

_LOG = logging.getLogger(__name__)


class GistWatch:
    """Looks once a step, when the action has been sent: nothing is logged while a chunk is due."""

    def __init__(self, policy: Policy) -> None:
        """Make a watch.

        Args:
            policy: Whose memory may drop gists.
        """
        self._memory = policy.session.memory
        self._is_told = False
        self.num_dropped: list[int] = []
        """Gists dropped, by episode that came to its end."""

    def on_episode_start(self, start: EpisodeStart) -> None:
        """Nothing is dropped yet."""
        self._is_told = False

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Nothing to count."""

    def on_frame(self, frame: int, steps: Sequence[int]) -> None:
        """Nothing to log now: the chunk is due."""

    def on_chunk(self, state: NDArray[np.floating], chunk: NDArray[np.float64]) -> None:
        """Nothing to log now: its first action is due."""

    def on_step(self, step: int, action: NDArray[np.floating]) -> None:
        """Log the episode's first dropped gist."""
        if self._is_told or not self._memory.num_dropped_gists:
            return
        self._is_told = True
        _LOG.warning(
            "step %d: memory was full at %d frames; frame %d dropped the oldest gist, and each "
            "later frame drops another (policy '%s')",
            step,
            self._memory.max_frames,
            self._memory.num_frames - 1,
            self._memory.on_full,
        )

    def on_episode_end(self, result: EpisodeResult) -> None:
        """Keep the count."""
        self.num_dropped.append(self._memory.num_dropped_gists)
