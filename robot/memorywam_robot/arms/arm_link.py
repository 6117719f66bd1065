"""ArmLink: the shared memory between the policy's process and the one that owns the arms."""

import mmap
import os
import tempfile

import numpy as np

from memorywam_robot.arms.arm_channel import Channel, channel_bytes
from memorywam_robot.arms.arm_command import ArmCommand, ArmRequests
from memorywam_robot.arms.guard_words import Count
from memorywam_runtime.errors import InputError

__all__ = ["DETAIL_BYTES", "PAGE_BYTES", "ArmLink"]

PAGE_BYTES = 4096
"""What a driver and its reader may share besides, laid out by themselves."""
DETAIL_BYTES = 240
_LAYOUT = 0x6D77616D_00000002
"""Mark and version, the first word."""
_HEAD_BYTES = 128
_WORDS = ("estop_is_pressed", "estop_presses", "resets", "homes", "stops", "stop_epoch", "closing")


def _command_dtype(num_joints: int) -> np.dtype[np.void]:
    whole = ("sequence", "epoch", "sent_ns", "valid_ns", "ramp_ns", "kind", "num_values")
    return np.dtype([*((name, "<i8") for name in whole), ("action", "<f8", (num_joints,))])


def _state_dtype(num_joints: int) -> np.dtype[np.void]:
    whole = (
        "tick",
        "tick_ns",
        "measured_ns",
        "epoch",
        "refused_epoch",
        "mode",
        "reason",
        "is_latched",
        "is_approaching",
        "is_at_rest",
        "is_powered",
        "is_closed",
        "is_scheduled",
        "is_locked",
        "braked_ns",
        "rested_ns",
        "num_skipped",
        "num_limited",
        "late_p50_ns",
        "late_p99_ns",
        "late_max_ns",
        "work_max_ns",
    )
    return np.dtype(
        [
            *((name, "<i8") for name in whole),
            ("counts", "<i8", (len(Count),)),
            ("measured", "<f8", (num_joints,)),
            ("target", "<f8", (num_joints,)),
            ("detail", f"S{DETAIL_BYTES}"),
        ]
    )


class ArmLink:
    """Commands down, state up, requests of people, and a page for the driver.

    The memory has no name and belongs to no process: a child inherits its descriptor, and it lives
    as long as anybody has it. Nothing is left behind when one is killed, and nothing of it vanishes
    for the others.

    Commands have one writer, in one thread; so has the state. A request is one word, written whole:
    by anybody, from any thread, in a signal handler too.
    """

    def __init__(self, descriptor: int, num_joints: int | None = None) -> None:
        """Map the memory; the descriptor stays the caller's.

        Args:
            descriptor: Of the memory.
            num_joints: Makes a new one; None takes what is there.

        Raises:
            InputError: the memory is no link of this layout.
        """
        if num_joints is not None:
            os.ftruncate(descriptor, _size(num_joints))
        else:
            head = np.frombuffer(os.pread(descriptor, 16, 0).ljust(16, b"\0"), np.uint64)
            if int(head[0]) != _LAYOUT:
                raise InputError(
                    f"found shared memory marked {int(head[0]):#x}; expected {_LAYOUT:#x}: the "
                    "supervisor is of another version, or this is no link to one"
                )
            num_joints = int(head[1])
        self.descriptor, self.num_joints = descriptor, num_joints
        memory = memoryview(mmap.mmap(descriptor, _size(num_joints)))
        head = np.frombuffer(memory, np.uint64, _HEAD_BYTES // 8)
        head[:2] = _LAYOUT, num_joints
        self._words = head[2 : 2 + len(_WORDS)]
        command, state = _command_dtype(num_joints), _state_dtype(num_joints)
        at = _HEAD_BYTES
        self.command = Channel(memory[at:], command)
        at += channel_bytes(command)
        self.state = Channel(memory[at:], state)
        at += channel_bytes(state)
        self.page = memory[at : at + PAGE_BYTES]
        """The driver's own."""

    @classmethod
    def create(cls, num_joints: int) -> "ArmLink":
        """Make a link for so many joints; its descriptor is the caller's to close."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("memorywam-arm-link"), num_joints)
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()), num_joints)

    @classmethod
    def attach(cls, path: str) -> "ArmLink":
        """Open a link by `SupervisedArm.link_path`, from another process of the same user."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            return cls(descriptor)
        finally:
            os.close(descriptor)

    def read_command(self, into: ArmCommand) -> bool:
        """Fill in the newest command; return whether it is a new one."""
        if not self.command.read():
            return False
        record = self.command.record
        into.sequence = int(record["sequence"])
        into.epoch = int(record["epoch"])
        into.sent_ns = int(record["sent_ns"])
        into.valid_ns = int(record["valid_ns"])
        into.ramp_ns = int(record["ramp_ns"])
        into.kind = int(record["kind"])
        into.num_values = int(record["num_values"])
        into.action[:] = record["action"]
        return True

    def read_requests(self, into: ArmRequests) -> None:
        """Fill in what people ask for."""
        words = self._words
        into.estop_is_pressed = int(words[0])
        into.estop_presses = int(words[1])
        into.resets = int(words[2])
        into.homes = int(words[3])
        into.stops = int(words[4])
        into.stop_epoch = int(words[5])

    @property
    def is_closing(self) -> bool:
        """The supervisor is asked to end."""
        return bool(self._words[6])

    def press_estop(self) -> None:
        """Stop for good, now."""
        self._words[0] = 1
        self._words[1] += np.uint64(1)

    def release_estop(self) -> None:
        """The cause is cleared; nothing moves yet."""
        self._words[0] = 0

    def ask_reset(self) -> None:
        """Let the joints be used again: an operator's word, that it is safe."""
        self._words[2] += np.uint64(1)

    def ask_home(self) -> None:
        """Go home slowly; free of collisions only if whoever asks has seen to it."""
        self._words[3] += np.uint64(1)

    def ask_stop(self, epoch: int) -> None:
        """End all episodes up to this one."""
        self._words[5] = epoch
        self._words[4] += np.uint64(1)

    def ask_close(self) -> None:
        """Brake, let go of the arms with the torque on, and end."""
        self._words[6] = 1


def _size(num_joints: int) -> int:
    """Return the bytes of a whole link."""
    channels = channel_bytes(_command_dtype(num_joints)) + channel_bytes(_state_dtype(num_joints))
    return _HEAD_BYTES + channels + PAGE_BYTES
