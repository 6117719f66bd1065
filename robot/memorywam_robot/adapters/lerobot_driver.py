"""LeRobotDriver: the joints of a LeRobot robot, in the process that owns them."""

import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.lerobot_bus import LeRobotBus
from memorywam_robot.adapters.lerobot_joints import JointMap, check_keys
from memorywam_robot.adapters.lerobot_opening import connecting, device_from_lerobot
from memorywam_robot.adapters.robot_words import RobotWords
from memorywam_robot.arms.arm_channel import Channel, channel_bytes
from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import DeviceError, InputError

__all__ = ["LeRobotDriver", "open_lerobot"]

SILENT_NS = 100_000_000
"""That a bus may leave the arms without a target, and us without a state: as long as a command is
good for. A servo that does not answer keeps Feetech's library waiting for 50 ms, Dynamixel's for
34: one lost packet is no reason to stop, two in a row are."""
_SWITCH_S = 0.0005
"""The library asks a port in a busy loop: it must give way to the tick sooner than after 5 ms."""
_END_S = 2.0
"""For the bus to come to the end of the call it is in, and to be let go."""
_ELSEWHERE = {"instruction": "--instruction", "steps": "--max-steps", "views": "--cameras"}


def open_lerobot(words: RobotWords, actions: ActionSpace) -> "LeRobotDriver":
    """Connect the arms of a robot whose type LeRobot knows; it opens no camera.

    Raises:
        InputError: an unknown type or option, joints or units that do not fit, a robot that is not
            calibrated, or one whose arms would drop when it is let go.
        MissingPartError: LeRobot or what the robot needs is not installed.
        DeviceError: it cannot be reached.
    """
    for key, option in (*_ELSEWHERE.items(), ("cameras", "--cameras")):
        if key in words.options:
            raise InputError(
                f"'{words.name}': found {key}= with --async; expected {option}: this process has "
                "the arms alone"
            )
    device, joints = device_from_lerobot(words, actions, has_cameras=False)
    sys.setswitchinterval(_SWITCH_S)
    with connecting(device, words.name):
        return LeRobotDriver(device, joints)


class LeRobotDriver:
    """A `SlowDriver`: one thread talks to the bus, as fast as that goes; calls here wait for none.

    What is written is the newest target, which the bus gets when it is done with what it does; what
    is read is the newest answer, with its time. What the bus refuses is one failed call, however
    many ticks its next try takes; from when it is silent, refuses or hangs for longer than a
    command is good for, every call fails.
    """

    def __init__(self, device: Any, joints: JointMap) -> None:  # noqa: ANN401
        """Take a connected device; it is touched by one thread alone from now on.

        Raises:
            InputError: its joints are not those of the contract.
            DeviceError: it does not answer.
        """
        check_keys(joints, device.action_features)
        num_joints = len(joints.keys)
        self._num_joints = num_joints
        target = np.dtype([("target", "<f8", (num_joints,))])
        down = memoryview(bytearray(channel_bytes(target)))
        self._bus = LeRobotBus(device, joints, Channel(down, target))
        self._target, self._state = Channel(down, target), self._bus.told()
        self._state.read()
        self._sent = self._failed_reads = self._failed_writes = 0
        self._waits_ns = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._bus.run, name="arms-bus", daemon=True)
        self._thread.start()

    @property
    def num_joints(self) -> int:
        """Return how many joints a command has."""
        return self._num_joints

    @property
    def measured_ns(self) -> int:
        """Return the middle of the call that measured what was read last."""
        return int(self._state.record["measured_ns"])

    @property
    def num_clipped(self) -> int:
        """Return how often the robot said that it sent something else."""
        return int(self._state.record["num_clipped"])

    @property
    def is_powered(self) -> bool:
        """Return whether the motors said so last; where they cannot be asked, they are trusted."""
        return bool(self._state.record["is_powered"])

    def read(self, out: NDArray[np.float64]) -> None:
        """Write the newest measured positions [num_joints].

        Raises:
            DeviceError: a question was not answered since, or the last answer is too old.
        """
        record = self._state.record
        self._state.read()
        before, self._failed_reads = self._failed_reads, int(record["failed_reads"])
        if self._failed_reads != before or self._is_over():
            raise DeviceError(self._bus.complaint)
        silent_ns = time.monotonic_ns() - int(record["measured_ns"])
        if silent_ns > SILENT_NS:
            raise DeviceError(f"the arms have said nothing for {silent_ns / 1e6:.0f} ms")
        out[:] = record["measured"]

    def write(self, target: NDArray[np.float64]) -> None:
        """Leave joint targets [num_joints] to the bus; return at once.

        Raises:
            DeviceError: one was not taken since, or none was for too long.
        """
        channel, record = self._target, self._state.record
        before = channel.sequence
        channel.record["target"] = target
        channel.write()
        self._state.read()
        failed, self._failed_writes = self._failed_writes, int(record["failed_writes"])
        if self._failed_writes != failed or self._is_over():
            raise DeviceError(self._bus.complaint)
        sent, now_ns = int(record["sent"]), time.monotonic_ns()
        if sent != self._sent or sent == before:  # the bus goes on, or had nothing to send
            self._sent, self._waits_ns = sent, now_ns
        if now_ns - self._waits_ns > SILENT_NS:
            silent_ms = (now_ns - self._waits_ns) / 1e6
            raise DeviceError(f"the arms have taken no target for {silent_ms:.0f} ms")

    def sent(self, out: NDArray[np.float64]) -> None:
        """Write what the robot sent on last [num_joints]; where it stood, if it sent nothing."""
        self._state.read()
        out[:] = self._state.record["goal"]

    def close(self) -> None:
        """Send the last target and let go with the torque on; twice is fine.

        Raises:
            DeviceError: the bus hangs, or cannot be let go; its port is closed with this process,
                and nothing is sent.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._bus.end()
        self._thread.join(_END_S)
        self._state.read()
        if self._thread.is_alive():
            raise DeviceError(
                f"the bus of the arms hangs: nothing came back within {_END_S:g} s; expected it to "
                "be let go: the motors keep the last target, see that they are powered"
            )
        if not self._bus.has_let_go:
            raise DeviceError(self._bus.complaint)

    def _is_over(self) -> bool:
        """Does nobody talk to the bus any more?"""
        return not self._thread.is_alive()
