"""Feeding a policy whose host is not ours: every observation counted against the trained grid."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.loop import ChunkPolicy
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import PolicySnapshot

__all__ = ["GridFeeder", "GridSnapshot", "ServedPolicy"]

_LOG = logging.getLogger(__name__)

_LAST_STEP = 1 << 40
_MOST_REPEATED = 8
"""Observations in a row that another may stand in for; after more, memory is not worth having."""


class ServedPolicy(ChunkPolicy, Protocol):
    """What an adapter asks of a policy; `memorywam_runtime.Policy` is one."""

    def set_instruction(self, instruction: str, *, keep_memory: bool) -> None:
        """Change the instruction in the middle of an episode."""
        ...

    def snapshot(self) -> PolicySnapshot:
        """Return all state."""
        ...

    def restore(self, snapshot: PolicySnapshot) -> None:
        """Take over a snapshot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSnapshot:
    """A policy's state, and what was counted until then."""

    policy: PolicySnapshot
    instruction: str
    counts: tuple[int, int, int, int]


class GridFeeder:
    """Puts observations on the grid one by one, and knows which ones never came.

    For one thread at a time. Whatever is refused leaves memory as it was.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        *,
        repeats_missing: bool = False,
        max_frames: int | None = None,
    ) -> None:
        """Take a policy.

        Args:
            policy: Reset by `begin`.
            repeats_missing: Let an observation stand in for those before it that never came. By
                default such an observation is refused: memory would not be what it was trained
                to be.
            max_frames: What memory holds, for reports.
        """
        self.policy = policy
        self.contract = policy.contract
        self.repeats_missing = repeats_missing
        self.max_frames = max_frames
        self.is_single = self.contract.conventions.vae_history == "single_frame"
        """Each observation stands alone: no grid."""
        self.instruction = ""
        self.num_episodes = 0
        self.total_seen = 0
        """Over all episodes, as is the next."""
        self.total_repeated = 0
        self.last_step = -1
        """Of the newest observation; -1 before the first."""
        self.num_frames = 0
        """Latent frames in memory since the episode began."""
        self.num_seen = 0
        self.num_repeated = 0
        self._executed: list[NDArray[np.floating]] = []

    def begin(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        """Start an episode.

        Raises:
            InputError: the bundle does not hold the instruction; nothing is changed.
            CapacityError: memory cannot hold max_steps; nothing is changed.
        """
        self.policy.reset(instruction, seed=seed, max_steps=max_steps)
        self._close()
        self._clear()
        self.instruction = instruction
        self.num_episodes += 1

    def end(self) -> None:
        """End the episode: nothing is remembered or acted on before another begins."""
        self._close()
        self._clear()
        self.instruction = ""

    def observe(
        self, observation: Observation, executed: NDArray[np.floating] | None = None
    ) -> bool:
        """Take an observation; return whether it completed a frame of memory.

        Args:
            observation: Of a step after all before it. One between two steps of the grid is
                looked at by nobody.
            executed: Actions [n, action_dim] executed since the observation before.

        Raises:
            InputError: the step goes back, one of the grid's never came, or the observation does
                not fit the contract.
            CapacityError: memory is full and its policy is not to drop.
        """
        if not self.instruction:
            raise InputError("found an observation before an episode began: begin one")
        if observation.step > _LAST_STEP:
            raise InputError(
                f"found an observation of step {observation.step}; expected at most {_LAST_STEP}"
            )
        if observation.step <= self.last_step:
            raise InputError(
                f"found an observation of step {observation.step} after step {self.last_step}; "
                "expected later ones: a reset begins an episode"
            )
        kept = len(self._executed)
        if executed is not None:
            self._executed.append(executed)
        try:
            frames = self.num_frames
            self._put(observation)
        except BaseException:
            del self._executed[kept:]
            raise
        self.last_step = observation.step
        return self.num_frames > frames

    def act(self, state: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return a chunk [horizon, action_dim] after the newest frame of memory.

        Raises:
            InputError: memory has no frame yet.
        """
        if self.num_frames == 0:
            raise InputError("nothing to act on: no frame since the episode began; send one first")
        return self.policy.act(state)

    def set_instruction(self, instruction: str, *, keep_memory: bool) -> None:
        """Change the instruction; without `keep_memory` the grid starts again at step 0."""
        self.policy.set_instruction(instruction, keep_memory=keep_memory)
        if not keep_memory:
            self._close()
            self._clear()
        self.instruction = instruction

    def expected_steps(self) -> tuple[int, ...]:
        """Return the steps at which the rest of the next frame is observed."""
        return self.policy.expected_steps()

    def snapshot(self) -> GridSnapshot:
        """Return all state.

        Raises:
            InputError: a frame is incomplete.
        """
        return GridSnapshot(
            policy=self.policy.snapshot(),
            instruction=self.instruction,
            counts=(self.last_step, self.num_seen, self.num_repeated, self.num_frames),
        )

    def restore(self, snapshot: GridSnapshot) -> None:
        """Take over a snapshot."""
        self.policy.restore(snapshot.policy)
        self._close()
        self._clear()
        self.instruction = snapshot.instruction
        self.last_step, self.num_seen, self.num_repeated, self.num_frames = snapshot.counts

    @property
    def num_expected(self) -> int:
        """Observations that the grid has up to the newest one."""
        if self.is_single or self.last_step < 0:
            return self.num_seen
        return 1 + self.last_step // self.contract.observations.steps_per_image

    def report(self) -> dict[str, Any]:
        """Return for every reply what memory has, and what it should have."""
        fill = {} if self.max_frames is None else {"fill": self.num_frames / self.max_frames}
        expected = list(self.expected_steps()) if self.instruction else []
        return fill | {
            "memory_version": self.num_frames,
            "frames_expected": self.num_expected,
            "frames_seen": self.num_seen,
            "frames_repeated": self.num_repeated,
            "step": self.last_step,
            "expected_steps": expected,
        }

    def _put(self, observation: Observation) -> None:
        """Give the observation its place, and those before it that are empty."""
        if self.is_single:
            self._give(observation)
            self.num_seen += 1
            return
        missing = self._missing(observation.step)
        if missing:
            self._check_missing(observation.step, missing)
        for step in missing:
            self._give(replace(observation, step=step))
            self.num_repeated += 1
        if self.policy.expected_steps()[0] == observation.step:
            self._give(observation)
            self.num_seen += 1

    def _missing(self, step: int) -> range:
        """Return the steps of the grid before this one at which nothing was observed."""
        first = self.policy.expected_steps()[0]
        return range(first, step, self.contract.observations.steps_per_image)

    def _check_missing(self, step: int, missing: range) -> None:
        """Refuse a gap, or tell of it."""
        stride = self.contract.observations.steps_per_image
        gap = (
            f"found an observation of step {step}, but none of steps {list(missing[:8])}: "
            f"{1 + step // stride} frames expected, {self.num_seen} seen"
        )
        if not self.repeats_missing or self.num_frames == 0:
            raise InputError(
                f"{gap}; send what is seen every {stride} steps, or let others stand in "
                "(--repeat-missing), which no model was trained with"
            )
        if len(missing) > _MOST_REPEATED:
            raise InputError(
                f"{gap}; at most {_MOST_REPEATED} in a row may be repeated: begin the episode anew"
            )
        _LOG.warning("%s; the one that came stands in for them", gap)

    def _give(self, observation: Observation) -> None:
        """Give the policy the next observation of the grid."""
        if len(self.policy.expected_steps()) > 1:
            self.policy.see(observation)
            return
        self.policy.remember([observation], self._history())
        self.num_frames += 1
        self._executed.clear()

    def _history(self) -> NDArray[np.float64] | None:
        """Return the actions executed since the last frame, where the contract keeps them."""
        if not self.contract.conventions.action_history or self.num_frames == 0:
            return None
        if not self._executed:
            raise InputError(
                "found no executed actions; this contract keeps them (action_history): send them "
                "with the observations"
            )
        return np.concatenate([np.asarray(part, np.float64) for part in self._executed])

    def _clear(self) -> None:
        """Count from nothing."""
        self.last_step = -1
        self.num_frames = 0
        self.num_seen = 0
        self.num_repeated = 0
        self._executed = []

    def _close(self) -> None:
        """Tell of the episode that is over, if there was one."""
        self.total_seen += self.num_seen
        self.total_repeated += self.num_repeated
        if self.num_expected:
            _LOG.log(
                logging.WARNING if self.num_repeated else logging.INFO,
                "episode '%s' over after step %d: %d frames expected, %d seen, %d repeated",
                self.instruction,
                self.last_step,
                self.num_expected,
                self.num_seen,
                self.num_repeated,
            )
