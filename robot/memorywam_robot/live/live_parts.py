"""What an episode that keeps time is made of, and who hears of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.camera import Camera
from memorywam_robot.cameras.shared_signal import SharedSignal
from memorywam_robot.live.body import Body
from memorywam_robot.live.chunk_gate import ChunkGate
from memorywam_robot.live.chunks import ActionQueue
from memorywam_robot.live.delay import ExpectedDelay
from memorywam_robot.live.frame_grid import FrameGrid
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import Load
from memorywam_robot.live.tasks import Event, Task
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.observation import Observation

__all__ = ["Listener", "Parts", "Tasked"]


class Tasked(Protocol):
    """What does the work: `WorkerThread`, or `VirtualWorker` in simulated time."""

    def put(self, task: Task) -> None:
        """Leave a task; never waits."""
        ...

    def events(self) -> list[Event]:
        """Return what happened since the last call; never waits."""
        ...


class Listener(Protocol):
    """Who hears of observations and steps, in the loop's thread: it must not wait."""

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Hear of an observation that memory is given next."""
        ...

    def on_step(
        self, step: int, action: NDArray[np.floating], state: NDArray[np.floating] | None
    ) -> None:
        """Hear of an action [action_dim] that was executed as this step, from 1.

        And of the joints [state_dim] as it began, to be copied by whoever keeps them; None for a
        step that was over before anybody looked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """All that an episode is made of."""

    contract: InferenceContract
    cameras: Sequence[Camera]
    body: Body
    worker: Tasked
    grid: FrameGrid
    gate: ChunkGate
    queue: ActionQueue
    load: Load
    delay: ExpectedDelay
    rules: LiveRules
    listeners: Sequence[Listener] = ()
    signal: SharedSignal | None = None
    """Told of every frame's stamp, where cameras share a signal."""
    begun: Callable[[], None] = lambda: None
    """Called when the gate opens: simulated scripts begin."""
