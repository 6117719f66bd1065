"""LeRobotBus: what one thread does with a LeRobot robot's connection, again and again."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.lerobot_device import has_torque, read_device, send_device
from memorywam_robot.adapters.lerobot_joints import JointMap
from memorywam_robot.arms.arm_channel import Channel, channel_bytes
from memorywam_robot.arms.real_time import has_priority, raise_priority, sharpen_timers
from memorywam_runtime.errors import DeviceError

__all__ = ["LeRobotBus"]

_TURN_NS = 5_000_000
"""At most one turn in half a period of the supervisor's: who is fast must not keep a core busy."""
_REST_SHARE = 0.1
"""Of a turn, after it, however long it takes: before ordinary processes Linux lets nobody run for
more than 0.95 of a second, and would take the tick off its core too."""
_TORQUE_NS = 1_000_000_000
"""Motors are asked for their torque so often: it costs as much as asking where they are."""
_MOST_UNANSWERED = 3
"""Questions for the torque, before the first answer."""
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
                ("goal", "<f8", (len(joints.keys),)),
                *((name, "<i8") for name in ("measured_ns", "sent", "num_clipped")),
                *((name, "<i8") for name in ("is_powered", "failed_reads", "failed_writes")),
            ]
        )
        self._memory = memoryview(bytearray(channel_bytes(self._dtype)))
        self._told = Channel(self._memory, self._dtype)
        self._is_ending = False
        self._asked_ns = self._num_unanswered = 0
        self._knows_torque, self._has_answered = True, False
        self.complaint = "the thread of the arms' bus has ended"
        """Why the last call failed."""
        self.has_let_go = False
        """Of the device, at the end."""
        self._told.record["measured"] = self._told.record["goal"] = self._measured()
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
        else:
            self.has_let_go = True

    def _turn(self) -> None:
        """Send, ask, tell."""
        self._send()
        self._told.write()  # now: the question that follows may hang
        record = self._told.record
        try:
            record["measured"] = self._measured()
        except Exception as error:  # whatever a vendor raises must not end this thread
            self.complaint = str(error) or repr(error)
            record["failed_reads"] += 1
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
            found = _finite(self._joints.from_values(sent))
        except Exception as error:  # the same
            self.complaint = str(error) or repr(error)
            record["failed_writes"] += 1
            return
        record["goal"] = found
        record["num_clipped"] += not np.allclose(found, target, rtol=0, atol=_SAME)
        record["sent"] = self._targets.sequence

    def _measured(self) -> NDArray[np.float64]:
        """Return where the joints are, and note when: in the middle of the call."""
        began_ns = time.monotonic_ns()
        found = _finite(self._joints.from_values(read_device(self._device)))
        self._told.record["measured_ns"] = (began_ns + time.monotonic_ns()) // 2
        return found

    def _ask_torque(self) -> None:
        """Ask the motors, where they can be asked; who never answered is not asked for ever."""
        if not self._knows_torque:
            return
        try:
            found = has_torque(self._device)
        except Exception as error:  # a lost packet, or a bus without such a register
            self._num_unanswered += 1
            is_lost = isinstance(error, OSError) and self._num_unanswered < _MOST_UNANSWERED
            self._knows_torque = self._has_answered or is_lost
            found = None
        else:
            self._has_answered = self._knows_torque = found is not None
        if found is not None:
            self._told.record["is_powered"] = found
        self._asked_ns = time.monotonic_ns()


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a robot said of its joints.

    Raises:
        DeviceError: one is not finite.
    """
    if not np.isfinite(values).all():
        raise DeviceError(f"the robot says {values.tolist()}; expected finite numbers")
    return values
