"""A LeRobot robot behind the protocols that the loop drives."""

import time

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.lerobot_cameras import LeRobotCameras
from memorywam_robot.adapters.lerobot_device import LeRobotDevice, read_device, send_device
from memorywam_robot.adapters.lerobot_joints import JointMap, check_keys
from memorywam_robot.robot import Job, Verdict
from memorywam_runtime.errors import DeviceError

__all__ = ["LeRobotArm", "LeRobotRobot"]


class LeRobotArm:
    """All joints of a device, paced at the contract's rate."""

    def __init__(self, device: LeRobotDevice, joints: JointMap, control_hz: float) -> None:
        """Take a connected device.

        Raises:
            InputError: its joints are not those of the contract.
        """
        check_keys(joints, device.action_features)
        self._device, self._joints = device, joints
        self._period_ns = round(1e9 / control_hz)
        self._due_ns = 0
        self._held: dict[str, float] | None = None
        self.sent: NDArray[np.float64] | None = None
        """What the robot said it sent last [action_dim]: what was executed, in the contract's
        units."""
        self.num_clipped = 0
        """Commands of which it sent something else."""
        self.num_pauses = 0
        """Times that a command came more than a period late."""

    def state(self) -> NDArray[np.float64]:
        """Return the joint positions [state_dim], read now.

        Raises:
            DeviceError: the robot, or one of its cameras, does not answer.
        """
        return self._joints.from_values(read_device(self._device))

    def command(self, action: NDArray[np.floating]) -> None:
        """Send joint targets [action_dim]; return when their control period is over.

        Raises:
            InputError: a wrong shape or a number that is not finite; nothing moves.
            DeviceError: the robot does not answer.
        """
        values = self._joints.to_values(action)
        now_ns = time.monotonic_ns()
        if now_ns - self._due_ns >= self._period_ns:
            self.num_pauses += self._due_ns > 0
            self._due_ns = now_ns
        self._held = None
        self.sent = self._send(values)
        self.num_clipped += not np.allclose(self.sent, action, rtol=0, atol=1e-6)
        self._due_ns += self._period_ns
        time.sleep(max(self._due_ns - time.monotonic_ns(), 0) / 1e9)

    def hold(self) -> None:
        """Send the joints to where they are; a robot that does not answer keeps its last target.

        Called twice it sends the same: measured anew each time, arms would sag step by step.
        """
        try:
            if self._held is None:
                observed = read_device(self._device)
                self._held = {key: float(observed[key]) for key in self._joints.keys}
            self._send(self._held)
        except (DeviceError, KeyError):
            return

    def restart(self) -> None:
        """Begin to pace anew."""
        self._due_ns = 0
        self.num_clipped = self.num_pauses = 0

    def _send(self, values: dict[str, float]) -> NDArray[np.float64]:
        """Send targets; return what was sent, in the contract's order and units."""
        return self._joints.from_values(send_device(self._device, values))


class LeRobotRobot:
    """A LeRobot robot with a job that an operator gave it."""

    def __init__(
        self, device: LeRobotDevice, arm: LeRobotArm, cameras: LeRobotCameras, job: Job
    ) -> None:
        self._device: LeRobotDevice | None = device
        self._arm, self._cameras, self._job = arm, cameras, job

    @property
    def arm(self) -> LeRobotArm:
        """Return its joints."""
        return self._arm

    @property
    def cameras(self) -> LeRobotCameras:
        """Return its eyes."""
        return self._cameras

    def start(self, seed: int) -> Job:
        """Check that joints and cameras answer; the scene is the operator's to make.

        Raises:
            DeviceError: they do not.
        """
        self._arm.restart()
        self._cameras.images()
        self._arm.state()
        return self._job

    def verdict(self) -> Verdict:
        """Say what the robot changed of its commands; nobody judges success."""
        clipped, pauses = self._arm.num_clipped, self._arm.num_pauses
        return Verdict(success=None, remark=f"{clipped} commands clipped, {pauses} late")

    def close(self) -> None:
        """Hold, and let go of the connection with the torque on; twice is fine."""
        if self._device is not None:
            self._arm.hold()
            self._device.disconnect()
            self._device = None
