"""Recording an episode that keeps time: the loop tells some of it, its worker the rest."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.live_result import LiveResult
from memorywam_robot.live.tasks import Act, Begin, Instruct, Remember
from memorywam_robot.loop import EpisodeStart
from memorywam_robot.recorder import Recorder
from memorywam_runtime.observation import Observation

__all__ = ["LiveRecorder"]


class LiveRecorder:
    """A `Listener`, and what a `Worker` tells of memory; a recorder takes it all."""

    def __init__(self, recorder: Recorder) -> None:
        """Pass on to a recorder."""
        self.recorder = recorder
        self._is_open = False

    def on_begin(self, task: Begin) -> None:
        """Open the file of an episode, or go on in it: memory is empty."""
        if self._is_open and task.begun_after is not None:
            self.recorder.on_instruction(task.begun_after, task.instruction, keep_memory=False)
            return
        start = EpisodeStart(seed=task.seed, instruction=task.instruction, num_steps=task.max_steps)
        self.recorder.on_episode_start(start)
        self._is_open = True

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Pass on an observation."""
        self.recorder.on_observation(observation, captured_ns)

    def on_frame(self, task: Remember, frame: int) -> None:
        """Pass on a frame that memory took."""
        self.recorder.on_frame(frame, [one.step for one in task.observations])

    def on_chunk(self, task: Act, chunk: NDArray[np.float64]) -> None:
        """Pass on a chunk."""
        self.recorder.on_made(task.frame, task.state, chunk, task.prefix, task.attempt)

    def on_given_up(self, task: Act) -> None:
        """Pass on the state of a chunk that was begun only: memory keeps it until the next."""
        if self._is_open:
            self.recorder.on_given_up(task.frame, task.state, task.prefix, task.attempt)

    def on_instruct(self, task: Instruct) -> None:
        """Pass on another instruction."""
        self.recorder.on_instruction(task.step, task.instruction, keep_memory=True)

    def on_step(
        self, step: int, action: NDArray[np.floating], state: NDArray[np.floating] | None
    ) -> None:
        """Pass on an action, and where the joints were."""
        self.recorder.on_step(step, action, state)

    def end(self, result: LiveResult) -> None:
        """Write the ending: the worker has finished. Nothing, if memory was never made ready."""
        if self._is_open:
            self._is_open = False
            self.recorder.on_episode_end(result.plain())
