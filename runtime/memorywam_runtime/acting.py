"""One chunk under way in the robot's units: from an observation to actions, step by step."""

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.denoising import Denoising
from memorywam_runtime.errors import MemorywamError
from memorywam_runtime.normalization import Affine

__all__ = ["Acting", "chunk_in_units"]


class Acting:
    """A chunk that takes one step at a time; `Policy.begin_act` makes it.

    Between two steps the policy may see and remember; see `Denoising`.
    """

    def __init__(
        self,
        denoising: Denoising,
        actions: Affine,
        frame: int,
        prefix: NDArray[np.float64] | None,
    ) -> None:
        """Take over a chunk.

        Args:
            denoising: In the model's units.
            actions: To the robot's.
            frame: The newest that it acts on.
            prefix: What it must begin with, in the robot's units.
        """
        self.frame = frame
        """Number of the newest frame that it acts on."""
        self._denoising = denoising
        self._to_units = actions
        self._prefix = prefix

    @property
    def num_left(self) -> int:
        """Denoising steps still to be made."""
        return self._denoising.num_left

    @property
    def is_stale(self) -> bool:
        """Was it given up before its last step?"""
        return self._denoising.is_stale

    def advance(self) -> bool:
        """Make one denoising step; return whether it was the last.

        Raises:
            StaleChunkError: a reset, another instruction or another chunk came in between.
        """
        return self._denoising.advance()

    def give_up(self) -> None:
        """Make no more steps."""
        self._denoising.give_up()

    def chunk(self) -> NDArray[np.float64]:
        """Return the chunk [horizon, action_dim] to execute, in the robot's units.

        It begins with the prefix as it was given: nothing of that was clamped or rounded.

        Raises:
            StaleChunkError: it was given up.
            InputError: some steps are left.
            MemorywamError: the model gave an action that is not finite: hold the arms.
        """
        chunk = chunk_in_units(self._denoising.actions(), self._to_units, self.frame)
        if self._prefix is not None:
            chunk[: len(self._prefix)] = self._prefix
        return chunk


def chunk_in_units(
    normalized: NDArray[np.floating], actions: Affine, frame: int
) -> NDArray[np.float64]:
    """Return a chunk [horizon, action_dim] in the robot's units.

    Raises:
        MemorywamError: an action is not finite: hold the arms.
    """
    chunk = actions.raw(normalized)
    if not np.isfinite(chunk).all():
        raise MemorywamError(
            f"the chunk after frame {frame} has actions that are not finite; "
            "hold the arms and reset: memory may hold damaged keys"
        )
    return chunk
