"""The scripted expert: it knows the target, waits for the go lamp, presses and goes home."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.sim.tasks import HORIZON
from memorywam_robot.sim.world import World
from memorywam_runtime.errors import MemorywamError

__all__ = ["Expert"]

_ARM_OF_BUTTON = ("left", "right", "right")
_HOVER_M = 0.06
"""Height of the tip above the button between reaching and pressing."""
_PRESS_M = 0.02
"""How far below the button's top the tip is sent."""
_REACH_STEPS, _PRESS_STEPS, _LIFT_STEPS = 8, 4, 4
_IK_TOLERANCE_M = 2e-3


class Expert:
    """Whole chunks of joint targets for the episode that a world shows when asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan()

    def _plan(self) -> None:
        """Find the poses over the target and on it."""
        world = self._world
        self._script = world.script
        self._side = _ARM_OF_BUTTON[world.script.target]
        top = world.button_top(world.script.target)
        self._hover = self._pose_at(top + np.array([0, 0, _HOVER_M]), world.home)
        self._down = self._pose_at(top - np.array([0, 0, _PRESS_M]), self._hover)

    def chunk(self, frame: int) -> NDArray[np.float64]:
        """Return the 16 joint targets [16, 14] to execute after a frame was seen."""
        if self._script is not self._world.script:
            self._plan()
        go_frame, home = self._world.script.go_frame, self._world.home
        if frame == go_frame:
            rest = HORIZON - _REACH_STEPS - _PRESS_STEPS
            return np.concatenate(
                [
                    _glide(home, self._hover, _REACH_STEPS),
                    _glide(self._hover, self._down, _PRESS_STEPS),
                    np.repeat(self._down[None], rest, axis=0),
                ]
            )
        if frame == go_frame + 1:
            return np.concatenate(
                [
                    _glide(self._down, self._hover, _LIFT_STEPS),
                    _glide(self._hover, home, HORIZON - _LIFT_STEPS - 2),
                    np.repeat(home[None], 2, axis=0),
                ]
            )
        return np.repeat(home[None], HORIZON, axis=0)

    def _pose_at(
        self, place: NDArray[np.float64], start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return targets [14] with the arm's tip at a place [3] (m), pointing down.

        Damped least squares on position and pointing direction.
        """
        first = 7 * (self._side == "right")
        joints = start[first : first + 6].copy()
        down = np.array([0.0, 0.0, -1.0])
        tip, pointing, jacobian = self._world.tip_and_jacobian(self._side, joints)
        for _ in range(200):
            error = np.concatenate((place - tip, 0.3 * np.cross(pointing, down)))
            if np.linalg.norm(place - tip) < _IK_TOLERANCE_M / 10:
                break
            weighted = jacobian * np.array([1, 1, 1, 0.3, 0.3, 0.3])[:, None]
            step = weighted.T @ np.linalg.solve(weighted @ weighted.T + 1e-4 * np.eye(6), error)
            joints += np.clip(step, -0.2, 0.2)
            tip, pointing, jacobian = self._world.tip_and_jacobian(self._side, joints)
        if np.linalg.norm(place - tip) > _IK_TOLERANCE_M:
            raise MemorywamError(f"the {self._side} arm cannot reach {place.round(3).tolist()} m")
        pose = self._world.home
        pose[first : first + 6] = joints
        return pose


def _glide(
    start: NDArray[np.float64], end: NDArray[np.float64], num_steps: int
) -> NDArray[np.float64]:
    """Return a minimum-jerk path [num_steps, 14] that leaves out the start and ends at the end."""
    s = np.arange(1, num_steps + 1) / num_steps
    blend = s**3 * (10 - 15 * s + 6 * s**2)
    return start + blend[:, None] * (end - start)
