"""What the guard of the arms can be in, why, and what it counts: numbers that cross processes."""

from enum import IntEnum

__all__ = ["REASONS", "Count", "Mode", "Reason"]


class Mode(IntEnum):
    """What the guard does with the joints."""

    HOLDING = 0
    """At rest with nothing to do; an episode may start."""
    FOLLOWING = 1
    """Commands are executed."""
    BRAKING = 2
    """Losing speed as fast as the limits allow; at rest, if it may still go on."""
    STOPPED = 3
    """At rest until an operator resets."""
    HOMING = 4
    """On the slow way home."""


class Reason(IntEnum):
    """Why it is not following."""

    NONE = 0
    STOP_ASKED = 1
    OVERDUE = 2
    SILENCE = 3
    BAD_COMMANDS = 4
    ESTOP = 5
    DRIVER = 6
    PARENT_GONE = 7
    TERMINATED = 8
    CLOSED = 9
    START_REFUSED = 10
    HOME_REFUSED = 11
    MOVED = 12
    INTERNAL = 13


REASONS: dict[Reason, str] = {
    Reason.NONE: "",
    Reason.STOP_ASKED: "stop asked",
    Reason.OVERDUE: "command overdue",
    Reason.SILENCE: "no command for too long",
    Reason.BAD_COMMANDS: "commands that are no position of these joints",
    Reason.ESTOP: "emergency stop",
    Reason.DRIVER: "the driver fails",
    Reason.PARENT_GONE: "the policy's process is gone",
    Reason.TERMINATED: "told to end",
    Reason.CLOSED: "closed",
    Reason.START_REFUSED: "start refused",
    Reason.HOME_REFUSED: "return home refused",
    Reason.MOVED: "the joints were put elsewhere",
    Reason.INTERNAL: "a fault of the supervisor itself",
}
"""In words, for people."""


class Count(IntEnum):
    """What is counted, as an index."""

    COMMANDS = 0
    """Executed: in order, of this episode, finite, in time."""
    BAD = 1
    """Not finite, or of the wrong size."""
    OLD = 2
    """Of an earlier sequence number or of another episode."""
    LATE = 3
    """No longer good when they came."""
    OVERDUE = 4
    """Times that a command was overdue."""
    RESUMED = 5
    """Times that commands came back soon enough."""
    REFUSED_STARTS = 6
    REFUSED_RESETS = 7
    REFUSED_HOMES = 8
    FAILED_READS = 9
    FAILED_WRITES = 10
    CLIPPED = 11
    """Targets that a `SlowDriver` sent on as others."""
