"""One chunk under way: denoised step by step, while memory may go on in between."""

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.aside import Aside, UnderWay
from memorywam_runtime.calls import Calls
from memorywam_runtime.errors import InputError, StaleChunkError

__all__ = ["Denoising", "checked_prefix"]


class Denoising:
    """A chunk that takes one step at a time; `Session.begin_chunk` makes it.

    Between two steps the session may remember frames, take joint states and denoise other chunks:
    this one ends as if nothing of it had been. A reset, a restored snapshot, another instruction
    or another chunk begun make it stale. For the session's thread.
    """

    def __init__(self, calls: Calls, aside: Aside, chunk: UnderWay, num_steps: int) -> None:
        """Take over a chunk whose noise and inputs are in place."""
        self._calls = calls
        self._aside = aside
        self._chunk = chunk
        self._num_steps = num_steps
        self._prefix: NDArray[np.float64] | None = None
        self._noisy_prefix: NDArray[np.float64] | None = None
        self._actions: NDArray[np.float32] | None = None

    @property
    def num_left(self) -> int:
        """Steps still to be made."""
        return self._num_steps - self._chunk.num_done

    @property
    def is_stale(self) -> bool:
        """Was it given up before its last step?"""
        return bool(self._chunk.why_stale)

    def hold(
        self,
        prefix: NDArray[np.float64] | None,
        noise: NDArray[np.floating],
        levels: NDArray[np.float64],
    ) -> None:
        """Let the chunk begin with these actions, whatever its noise would make of them.

        Before each step they are put in the chunk's place for them, as noisy as the chunk is then:
        the other actions are made to go with them. No gradient, no other graph.

        Args:
            prefix: Normalized, from `checked_prefix`; None changes nothing.
            noise: Of the whole chunk [horizon, action_dim].
            levels: From `noise_levels`.
        """
        if prefix is not None:
            sigma = levels[:-1, None, None, None]  # [S, 1, d, action_dim] below
            start = np.asarray(noise, np.float64)[: len(prefix)]
            self._prefix, self._noisy_prefix = prefix, (1 - sigma) * prefix + sigma * start

    def advance(self) -> bool:
        """Make one step and wait for it: what comes next waits no longer than this took.

        Returns:
            Whether it was the last; nothing happens after that.

        Raises:
            StaleChunkError: the chunk was given up.
            DeviceError: the step failed; memory is as it was.
        """
        self._check_fresh()
        chunk, backend = self._chunk, self._calls.backend
        if self._actions is not None:
            return True
        with self._calls.timings.span("advance"):
            self._aside.run(self._step)
            chunk.num_done += 1
            if self.num_left:
                backend.finish()
                return False
            found = backend.read(self._calls.actions(chunk.num_done))[0]
        actions = np.array(found, np.float32)
        if self._prefix is not None:
            actions[: len(self._prefix)] = self._prefix
        self._actions = actions
        self._aside.end(chunk)
        return True

    def actions(self) -> NDArray[np.float32]:
        """Return the chunk of normalized actions [horizon, action_dim].

        Raises:
            StaleChunkError: it was given up.
            InputError: some steps are left.
        """
        self._check_fresh()
        if self._actions is None:
            raise InputError(
                f"found a chunk with {self.num_left} of {self._num_steps} steps left; expected "
                "none: advance until it returns True"
            )
        return self._actions.copy()

    def give_up(self) -> None:
        """Make no more steps; from here on memory updates keep nothing for it."""
        if self._actions is None and not self.is_stale:
            self._chunk.why_stale = "it was given up by its owner"
            self._aside.end(self._chunk)

    def _step(self) -> None:
        """Run the next step on what is in place."""
        calls, done = self._calls, self._chunk.num_done
        if self._noisy_prefix is not None:
            first = calls.first_actions(done, self._noisy_prefix.shape[2])
            calls.backend.write(first, self._noisy_prefix[done])
        calls.slices(self._num_steps)[done]()

    def _check_fresh(self) -> None:
        """Refuse a chunk that was given up."""
        if self.is_stale:
            raise StaleChunkError(
                f"found a chunk with {self.num_left} of {self._num_steps} steps left that was "
                f"given up: {self._chunk.why_stale}; expected one that is not stale: begin another"
            )


def checked_prefix(
    prefix: NDArray[np.floating] | None, horizon: int, action_dim: int
) -> NDArray[np.float64] | None:
    """Return the actions that a chunk must begin with [d, action_dim]; None where there are none.

    Raises:
        InputError: more than a chunk holds, of another width, or not finite.
    """
    if prefix is None:
        return None
    found = np.asarray(prefix, np.float64)
    if found.ndim != 2 or found.shape[1] != action_dim or len(found) > horizon:
        raise InputError(
            f"prefix: found shape {list(found.shape)}; expected [0 to {horizon}, {action_dim}]: "
            "the actions that will have been executed before this chunk takes over"
        )
    if not np.isfinite(found).all():
        bad = np.argwhere(~np.isfinite(found))[0].tolist()
        raise InputError(f"prefix: found {found[tuple(bad)]} at {bad}; expected finite numbers")
    return found if len(found) else None
