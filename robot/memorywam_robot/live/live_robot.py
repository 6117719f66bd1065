"""LiveRobot: arms in a process of their own, cameras that run by themselves, and a job."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_robot.camera import Camera
from memorywam_robot.cameras.shared_signal import SharedSignal
from memorywam_robot.live.body import Body
from memorywam_robot.robot import Job, Verdict

__all__ = ["LiveRobot", "ShadowBody", "SupervisedBody"]


class LiveRobot(Protocol):
    """What the loop that keeps time drives."""

    @property
    def body(self) -> Body:
        """Return the arms."""
        ...

    @property
    def arm(self) -> SupervisedArm:
        """Return the arms' supervisor."""
        ...

    @property
    def limits(self) -> JointLimits:
        """Return what the joints may do."""
        ...

    @property
    def cameras(self) -> Sequence[Camera]:
        """Return its eyes; they run."""
        ...

    @property
    def signal(self) -> SharedSignal | None:
        """Return who hears of the stamps of cameras on one signal; None if there are none."""
        ...

    def start(self, seed: int) -> Job:
        """Make ready for an episode: the arms hold, and follow from now on."""
        ...

    def begun(self) -> None:
        """Hear that the first frame is due now; must not wait."""
        ...

    def verdict(self) -> Verdict:
        """Judge the episode so far."""
        ...

    def close(self) -> None:
        """Let go of the devices, the arms last; closing twice is fine."""
        ...


class SupervisedBody:
    """Supervised arms as a `Body`."""

    def __init__(self, arm: SupervisedArm) -> None:
        """Pass on to the supervisor's side."""
        self._arm = arm
        self._record = arm.link.state.record

    def command(self, action: NDArray[np.floating], *, ramp_ns: int = 0, valid_ns: int = 0) -> None:
        """Send joint targets [num_joints]."""
        self._arm.command(action, ramp_ns=ramp_ns, valid_ns=valid_ns)

    def state(self, out: NDArray[np.float64]) -> int:
        """Write the measured positions [num_joints]; return when they were."""
        return self._arm.state(out)

    def sent(self, out: NDArray[np.float64]) -> None:
        """Write the target [num_joints] that the supervisor sent last."""
        out[:] = self._record["target"]

    @property
    def mode(self) -> str:
        """Return what the guard does."""
        return self._arm.mode

    @property
    def reason(self) -> str:
        """Return why it is not following."""
        return self._arm.reason

    @property
    def num_limited(self) -> int:
        """Return how often a limit changed a joint's target."""
        return int(self._record["num_limited"])

    def stop(self, reason: str = "") -> None:
        """End the episode: the arms brake and hold."""
        self._arm.stop(reason)


class ShadowBody(SupervisedBody):
    """A `Body` that nobody commands: its supervisor watches, and `sent` is what the arms did."""

    def command(self, action: NDArray[np.floating], *, ramp_ns: int = 0, valid_ns: int = 0) -> None:
        """Send nothing."""

    @property
    def mode(self) -> str:
        """Return `following` while the supervisor watches: the episode goes on."""
        found = super().mode
        return {"holding": "following", "braking": "stopped"}.get(found, found)

    def stop(self, reason: str = "") -> None:
        """Stop nothing: whoever moves the arms goes on."""
