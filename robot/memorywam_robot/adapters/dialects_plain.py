"""Plain openpi: each `infer` brings the grid's next observation and takes the actions until then.

A client executes exactly the actions of a reply, then infers again: with openpi's own
ActionChunkBroker, its `action_horizon` is the metadata's `infer_every`. A chunk is made when a
frame of memory is complete; replies before the next one are the rest of it, piece by piece. A
client that drops observations cannot be told from one that does not, unless it sends `step`,
the environment steps since reset: then any gap is found.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.dialects_fields import whole_field
from memorywam_robot.adapters.dialects_observation import ObservationReader
from memorywam_robot.adapters.dialects_prompt import follow_prompt
from memorywam_robot.adapters.serving import DialectOptions, infer_every
from memorywam_robot.adapters.serving_grid import GridFeeder
from memorywam_runtime.errors import InputError

__all__ = ["PlainDialect"]


class PlainDialect:
    """One episode of one client."""

    def __init__(
        self, feeder: GridFeeder, reader: ObservationReader, options: DialectOptions
    ) -> None:
        self._feeder = feeder
        self._reader = reader
        self._options = options
        self._every = infer_every(options, feeder.contract)
        self._chunk: NDArray[np.float64] | None = None
        self._chunk_step = 0

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Take the observation; return the actions to execute before the next.

        Raises:
            InputError: the message is not an observation of the contract, or out of its grid.
        """
        feeder = self._feeder
        if follow_prompt(feeder, message, self._options):
            self._chunk = None
        default = 0 if feeder.last_step < 0 else feeder.last_step + self._every
        step = whole_field(message, "step") if "step" in message else default
        if step is None:
            raise InputError("found no step; expected environment steps since reset, or no field")
        observation = self._reader.observation(message, step)
        act_ms = 0.0
        if feeder.observe(observation) or self._chunk is None:
            started_ns = time.monotonic_ns()
            self._chunk = None  # should this fail, nothing of the old one is played again
            self._chunk, self._chunk_step = feeder.act(observation.state), step
            act_ms = (time.monotonic_ns() - started_ns) / 1e6
        first = step - self._chunk_step
        actions = self._chunk[first : first + self._every]
        if not len(actions):
            raise InputError(
                f"found an observation of step {step}; the chunk of step {self._chunk_step} ends "
                f"after {len(self._chunk)}: infer every {self._every} steps"
            )
        # No other array: openpi's ActionChunkBroker cuts each array of a reply along its rows.
        return {
            "actions": actions,
            "policy_timing": {"infer_ms": act_ms},
            "chunk_step": first,
            "infer_every": self._every,
        }
