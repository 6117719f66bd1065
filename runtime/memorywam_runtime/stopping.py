"""Signals that stop the program: they unwind it, and nothing that it has begun stays behind."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

__all__ = ["EXIT_BY_SIGNAL", "Stop", "stopping_unwinds"]

EXIT_BY_SIGNAL = 128
"""Exit status of a program that a signal ended, less the signal's number."""
_UNWINDING_S = 2.0
"""From the first signal: what comes meanwhile is the same wish."""


@dataclass(slots=True)
class Stop:
    """Whether the program was told to stop."""

    number: int = 0
    """The last signal; none came while it is 0."""


@contextlib.contextmanager
def stopping_unwinds(*, is_whole_process: bool = False) -> Iterator[Stop]:
    """Make signals unwind like an error, once: drafts are removed and devices are closed.

    What was ignored before, as in a background job or under nohup, stays ignored.

    Args:
        is_whole_process: Nothing comes after: a signal while the interpreter ends just ends it.

    Yields:
        What came: a library may make another error of it than was raised.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stopped_s = -math.inf

    def leave(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_s
        now_s = time.monotonic()
        if now_s - stopped_s < _UNWINDING_S:  # an impatient second one would stop the cleaning
            return
        stopped_s, stop.number = now_s, number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_BY_SIGNAL + number)

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number)) in defaults
    }
    for number in before:
        signal.signal(number, leave)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if is_whole_process else handler)
