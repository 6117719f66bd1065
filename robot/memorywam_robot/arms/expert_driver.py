"""ExpertDriver: simulated arms that the scripted expert moves, for whoever only watches."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.sim.expert import Expert
from memorywam_robot.sim.live import LiveDriver
from memorywam_robot.sim.tasks import HORIZON
from memorywam_robot.sim.world import World
from memorywam_runtime.errors import DeviceError

__all__ = ["ExpertDriver", "open_expert"]


def open_expert(task: str, seed: int, page: memoryview) -> "ExpertDriver":
    """Return the driver of a task's arms, with the expert at work."""
    return ExpertDriver(World(task, seed, renders=False), page)


class ExpertDriver(LiveDriver):
    """Takes no command: each environment step goes where the expert goes in it."""

    def __init__(self, world: World, page: memoryview) -> None:
        super().__init__(world, page)
        self._expert, self._frame = Expert(world), -1
        self._script = world.script
        self._chunk = np.zeros((HORIZON, self.num_joints))

    def read(self, out: NDArray[np.float64]) -> None:
        """Let the expert aim for the step under way, and physics catch up; then measure."""
        world = self._world
        frame, row = divmod(world.step_count, HORIZON)
        if frame != self._frame or world.script is not self._script:
            self._frame, self._script = frame, world.script
            self._chunk = self._expert.chunk(frame)
        world.aim(self._chunk[row])
        super().read(out)

    def write(self, target: NDArray[np.float64]) -> None:
        """Refuse.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("found a command; expected none: the expert moves these arms")
