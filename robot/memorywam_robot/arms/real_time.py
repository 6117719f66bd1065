"""What a process may do to wake in time: priority, memory that stays, exact timers."""

import ctypes
import gc
import os

__all__ = [
    "freeze_garbage",
    "has_priority",
    "lock_memory",
    "lower_priority",
    "raise_priority",
    "sharpen_timers",
]

_PRIORITY = 50
"""As ros2_control: above all that is ordinary, below the kernel's interrupt threads."""
_LOCK_CURRENT_AND_FUTURE = 3
_SET_TIMER_SLACK = 29


def raise_priority() -> bool:
    """Run before every ordinary process; return whether that was permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        return False
    return True


def has_priority() -> bool:
    """Return whether this process's main thread runs before every ordinary process."""
    try:
        return os.sched_getscheduler(os.getpid()) == os.SCHED_FIFO
    except (AttributeError, OSError):
        return False


def lower_priority() -> None:
    """Run as an ordinary process again."""
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except (AttributeError, OSError):
        return


def lock_memory() -> bool:
    """Keep all memory from being paged out; return whether that was permitted."""
    try:
        return bool(ctypes.CDLL(None).mlockall(_LOCK_CURRENT_AND_FUTURE) == 0)
    except (AttributeError, OSError):
        return False


def sharpen_timers() -> None:
    """Wake when asked, not within 50 microseconds of it; needs no permission."""
    try:
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1, 0, 0, 0)
    except (AttributeError, OSError):
        return


def freeze_garbage() -> None:
    """Never search for garbage from now on: what a tick makes is freed by its last reference."""
    gc.collect()
    gc.freeze()
    gc.disable()
