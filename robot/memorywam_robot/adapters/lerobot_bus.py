"""LeRobotBus: what one thread does with a LeRobot robot's connection, again and again."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.lerobot_device import has_torque, read_device, send_device
from memorywam_robot.adapters.lerobot_joints import JointMap
from memorywam_robot.arms.arm_channel import Channel, channel_bytes
from memorywam_robot.arms.real_time import has_priority, raise_priority, sharpen_timers

__all__ = ["LeRobotBus"]

_TURN_NS = 5_000_000
"""At most one turn in half a period of the supervisor's: who is fast must not keep a core busy."""
_REST_SHARE = 0.1
"""Of a turn, after it, however long it takes: before ordinary processes Linux lets nobody run for
more than 0.95 of a second, and would take the tick off its core too."""
_TORQUE_NS = 1_000_000_000
"""Motors are asked for their torque so often: it costs as much as asking where they are."""
_SAME = 1e-6
"""Units of the contract: what the robot sent on is what it was given."""


class LeRobotBus:
    """Sends the newest target, asks where the joints are, tells both, and raises nothing.

    Nobody else touches the device, not even to let go of it.
    """

    def __init__(self, device: Any, joints: JointMap, targets: Channel) -> None:  # noqa: ANN401
        """Take a connected device, and ask it once.

        Args:
            device: LeRobot's.
            joints: To its keys and units.
            targets: What to send, written by another thread.

        Raises:
            DeviceError: it does not answer.
        """
        self._device, self._joints, self._targets = device, joints, targets
        self._dtype = np.dtype(
            [
                ("measured", "<f8", (len(joints.keys),)),
                *((name, "<i8") for name in ("measured_ns", "sent", "num_clipped")),
                *((name, "<i8") for name in ("is_powered", "has_failed_reading")),
                ("has_failed_writing", "<i8"),
            ]
        )
        self._memory = memoryview(bytearray(channel_bytes(self._dtype)))
        self._told = Channel(self._memory, self._dtype)
        self._is_ending = False
        self._asked_ns = 0
        self._knows_torque = True
        self.complaint = "the thread of the arms' bus has ended"
        """Why the last call failed."""
        self._told.record["measured"] = self._measured()
        self._told.record["is_powered"] = True
        self._ask_torque()
        self._told.write()

    def told(self) -> Channel:
        """Return a view, for one reader, of what this tells."""
        return Channel(self._memory, self._dtype)

    def end(self) -> None:
        """Let `run` send what is newest, let go of the device, and return."""
        self._is_ending = True

    def run(self) -> None:
        """Talk to the device until `end`; then let go of it, the torque as it is configured."""
        sharpen_timers()
        # What the tick waits for must not wait for others: with this thread an ordinary one, 99 of
        # 100 ticks were up to 4.7 ms late on a busy machine, and else up to 1.3 ms.
        is_raised = False
        while not self._is_ending:
            began_ns = time.monotonic_ns()
            is_raised = is_raised or (has_priority() and raise_priority())
            self._turn()
            took_ns = time.monotonic_ns() - began_ns
            time.sleep(max(_TURN_NS - took_ns, took_ns * _REST_SHARE) / 1e9)
        self._send()
        self._told.write()
        try:
            self._device.disconnect()
        except Exception as error:  # whatever a vendor raises: it is over, and the motors hold
            self.complaint = f"the arms were not let go: {error!r}"

    def _turn(self) -> None:
        """Send, ask, tell."""
        self._send()
        record = self._told.record
        try:
            record["measured"] = self._measured()
            record["has_failed_reading"] = False
        except Exception as error:  # whatever a vendor raises must not end this thread
            self.complaint = str(error) or repr(error)
            record["has_failed_reading"] = True
        if time.monotonic_ns() - self._asked_ns > _TORQUE_NS:
            self._ask_torque()
        self._told.write()

    def _send(self) -> None:
        """Send the newest target, if there is one that was not taken yet."""
        self._targets.read()
        record = self._told.record
        if self._targets.sequence == record["sent"]:
            return
        target: NDArray[np.float64] = self._targets.record["target"]
        try:
            sent = send_device(self._device, self._joints.to_values(target))
            found = self._joints.from_values(sent)
            record["has_failed_writing"] = False
        except Exception as error:  # the same
            self.complaint = str(error) or repr(error)
            record["has_failed_writing"] = True
            return
        record["num_clipped"] += not np.allclose(found, target, rtol=0, atol=_SAME)
        record["sent"] = self._targets.sequence

    def _measured(self) -> NDArray[np.float64]:
        """Return where the joints are, and note when: in the middle of the call."""
        began_ns = time.monotonic_ns()
        found = self._joints.from_values(read_device(self._device))
        self._told.record["measured_ns"] = (began_ns + time.monotonic_ns()) // 2
        return found

    def _ask_torque(self) -> None:
        """Ask the motors, where they can be asked; who does not answer once is not asked again."""
        if not self._knows_torque:
            return
        try:
            found = has_torque(self._device)
        except Exception:  # a bus without such a register, or a lost packet
            self._knows_torque = self._asked_ns > 0
            found = None
        else:
            self._knows_torque = found is not None
        if found is not None:
            self._told.record["is_powered"] = found
        self._asked_ns = time.monotonic_ns()
