"""Robot: an arm and cameras with a job to do, opened by name."""

from dataclasses import dataclass
from typing import Protocol

from memorywam_robot.arm import Arm
from memorywam_robot.camera import Cameras
from memorywam_robot.sim.tasks import TASKS
from memorywam_runtime.errors import InputError

__all__ = ["ROBOTS", "Job", "Robot", "Verdict", "robot_from_argument"]

ROBOTS = tuple(f"sim:{task}" for task in TASKS)
"""What `--robot` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done in one episode."""

    instruction: str
    num_steps: int
    """Environment steps after which the episode ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an episode went, as far as the robot can tell."""

    success: bool | None
    """None where nobody watches."""
    remark: str = ""


class Robot(Protocol):
    """What the loop drives."""

    @property
    def arm(self) -> Arm:
        """Return its joints."""
        ...

    @property
    def cameras(self) -> Cameras:
        """Return its eyes."""
        ...

    def start(self, seed: int) -> Job:
        """Make ready for an episode; the same seed makes the same one, as far as it can."""
        ...

    def verdict(self) -> Verdict:
        """Judge the episode so far."""
        ...

    def close(self) -> None:
        """Let go of the devices; closing twice is fine."""
        ...


def robot_from_argument(argument: str) -> Robot:
    """Open what a user named with `--robot`.

    Raises:
        InputError: no such robot; those that there are are listed.
        MissingPartError: a part that it needs is not installed.
    """
    if argument not in ROBOTS:
        raise InputError(f"unknown robot '{argument}'; expected one of {', '.join(ROBOTS)}")
    from memorywam_robot.simulated import SimulatedRobot

    return SimulatedRobot(argument.removeprefix("sim:"))
