"""Arm: what the loop asks of a robot's joints, and what it may rely on."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arm", "ArmDriver", "ResettableDriver", "SlowDriver"]


class Arm(Protocol):
    """All joints that one policy moves, in the contract's order and units."""

    def state(self) -> NDArray[np.float64]:
        """Return the joint positions [state_dim], measured after the last command returned."""
        ...

    def command(self, action: NDArray[np.floating]) -> None:
        """Send joint targets [action_dim]; return when their control period is over.

        Targets beyond a joint's limits are clipped to them.

        Raises:
            InputError: a wrong shape or a number that is not finite; nothing moves.
        """
        ...

    def hold(self) -> None:
        """Stay where the joints are now; may be called at any time, twice, and after an error."""
        ...


class ArmDriver(Protocol):
    """The connection to the joints themselves; one process owns it, and nothing else commands.

    Every call returns within a fraction of the control period, or raises: whoever guards the joints
    waits for it. One that fails leaves the joints at the last target.
    """

    @property
    def num_joints(self) -> int:
        """Return how many joints a command has."""
        ...

    def read(self, out: NDArray[np.float64]) -> None:
        """Write the measured positions [num_joints], in the contract's order and units.

        What is written is the caller's; numbers that are not finite count as a failure.
        """
        ...

    def write(self, target: NDArray[np.float64]) -> None:
        """Send joint targets [num_joints]; return at once. The last target holds until the next.

        The array is the caller's, to be changed as soon as this returns.
        """
        ...

    @property
    def is_powered(self) -> bool:
        """Return whether every joint has torque: arms without it fall."""
        ...

    def close(self) -> None:
        """Let go of the connection with the torque on and the last target held; twice is fine."""
        ...


@runtime_checkable
class ResettableDriver(ArmDriver, Protocol):
    """A driver whose joints may be put elsewhere at once, as a simulator's are by an episode."""

    @property
    def num_resets(self) -> int:
        """Return how often that has happened; the next read is of the new place."""
        ...


@runtime_checkable
class SlowDriver(ArmDriver, Protocol):
    """A driver whose connection takes longer than a tick: it reads and writes what it has."""

    @property
    def measured_ns(self) -> int:
        """Return when the joints were where the last read said; monotonic."""
        ...

    @property
    def num_clipped(self) -> int:
        """Return how often the joints were sent elsewhere than was written."""
        ...

    def sent(self, out: NDArray[np.float64]) -> None:
        """Write the target [num_joints] that reached the joints last; before, where they stood."""
        ...
