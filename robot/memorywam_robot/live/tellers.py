"""Who hears of everything in an episode that keeps time, whichever thread it happens in."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.live_result import LiveResult
from memorywam_robot.live.tasks import Act, Begin, Instruct, Remember
from memorywam_robot.loop import EpisodeStart
from memorywam_robot.viewer.view import View
from memorywam_runtime.observation import Observation

__all__ = ["LiveViewer", "Teller", "hooks_of"]


class Teller(Protocol):
    """Hears of observations and steps in the loop's thread, of the rest in the worker's."""

    def on_begin(self, task: Begin) -> None:
        """Hear that memory is empty."""
        ...

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Hear of an observation that memory is given next."""
        ...

    def on_frame(self, task: Remember, frame: int) -> None:
        """Hear of a frame that memory took."""
        ...

    def on_chunk(self, task: Act, chunk: NDArray[np.float64]) -> None:
        """Hear of a chunk that is ready."""
        ...

    def on_given_up(self, task: Act) -> None:
        """Hear of a chunk that was begun and will never be ready."""
        ...

    def on_instruct(self, task: Instruct) -> None:
        """Hear of another instruction that is in force, memory as it was."""
        ...

    def on_step(
        self, step: int, action: NDArray[np.floating], state: NDArray[np.floating] | None
    ) -> None:
        """Hear of an action that was executed, and of the joints as its step began."""
        ...

    def end(self, result: LiveResult) -> None:
        """Hear how it went: the worker has finished."""
        ...


class LiveViewer:
    """A `Teller` that shows it all."""

    def __init__(self, view: View) -> None:
        """Pass on to a view."""
        self._view = view

    def on_begin(self, task: Begin) -> None:
        """Show the instruction."""
        start = EpisodeStart(seed=task.seed, instruction=task.instruction, num_steps=task.max_steps)
        self._view.on_episode_start(start)

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Show the images."""
        self._view.on_observation(observation, captured_ns)

    def on_frame(self, task: Remember, frame: int) -> None:
        """Show how full memory is."""
        self._view.on_frame(frame, [one.step for one in task.observations])

    def on_chunk(self, task: Act, chunk: NDArray[np.float64]) -> None:
        """Show it."""
        self._view.on_chunk(task.state, chunk)

    def on_given_up(self, task: Act) -> None:
        """Show nothing: there is nothing to see."""

    def on_instruct(self, task: Instruct) -> None:
        """Show it."""
        self._view.on_status({"instruction": task.instruction, "after_step": task.step})

    def on_step(
        self, step: int, action: NDArray[np.floating], state: NDArray[np.floating] | None
    ) -> None:
        """Show the action."""
        self._view.on_step(step, action)

    def end(self, result: LiveResult) -> None:
        """Show how it went."""
        counts = result.counts
        self._view.on_status(
            {
                "memory_quality": counts.grid.memory_quality,
                "holds": counts.holds,
                "limited": counts.limited,
                "chunks": counts.chunks,
                "chunks_dropped": counts.chunks_dropped,
                "reasons": counts.reasons,
            }
        )
        self._view.on_episode_end(result.plain())


def hooks_of(tellers: Sequence[Teller]) -> dict[str, Any]:
    """Return what a `Worker` is to call."""

    def on_begin(task: Begin) -> None:
        for one in tellers:
            one.on_begin(task)

    def on_frame(task: Remember, frame: int) -> None:
        for one in tellers:
            one.on_frame(task, frame)

    def on_chunk(task: Act, chunk: NDArray[np.float64]) -> None:
        for one in tellers:
            one.on_chunk(task, chunk)

    def on_given_up(task: Act) -> None:
        for one in tellers:
            one.on_given_up(task)

    def on_instruct(task: Instruct) -> None:
        for one in tellers:
            one.on_instruct(task)

    return {
        "on_begin": on_begin,
        "on_frame": on_frame,
        "on_chunk": on_chunk,
        "on_given_up": on_given_up,
        "on_instruct": on_instruct,
    }
