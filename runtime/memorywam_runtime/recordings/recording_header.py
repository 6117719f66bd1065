"""Can a recording's header be true? Asked before anything is made of its numbers."""

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Header
from memorywam_runtime.recordings.recording_messages import StartMessage, Time
from memorywam_runtime.recordings.recording_rate import checked_rate

__all__ = ["MAX_CAMERAS", "MAX_JOINTS", "check_start"]

_MAX_STEPS = 1 << 32
MAX_JOINTS = 1 << 10
MAX_CAMERAS = 16
_MAX_S = 1 << 33
"""Seconds of a clock: 272 years, which are nanoseconds in 64 bits."""


def check_start(name: str, start: StartMessage) -> None:
    """Refuse a start that no recorder has written.

    Args:
        name: Of the file, for errors.
        start: As it was read.

    Raises:
        InputError: the first thing that cannot be.
    """
    header = start.header
    checked_rate(name, header.control_hz)
    for what, found, most in (
        ("max_steps", header.max_steps, _MAX_STEPS),
        ("state_dim", header.state_dim, MAX_JOINTS),
        ("action_dim", header.action_dim, MAX_JOINTS),
        ("cameras", len(header.cameras), MAX_CAMERAS),
    ):
        if not 0 <= found <= most:
            raise InputError(
                f"{name}: found {what} {found}; expected 0 to {most:,}: the file is damaged"
            )
    _check_names(name, header)
    if not all(_is_time(clock) for clock in (start.monotonic, start.wall)):
        raise InputError(f"{name}: found a clock beyond {_MAX_S:,} s: the file is damaged")


def _check_names(name: str, header: Header) -> None:
    """Refuse names that do not fit what they name."""
    if len(set(header.cameras)) != len(header.cameras):
        raise InputError(
            f"{name}: found the cameras {list(header.cameras)}; expected each once: the file is "
            "damaged"
        )
    if header.action_names and len(header.action_names) != header.action_dim:
        raise InputError(
            f"{name}: found {len(header.action_names)} action_names for actions of "
            f"{header.action_dim} numbers; expected as many, or none: the file is damaged"
        )


def _is_time(clock: Time) -> bool:
    """Can this be shown by a clock?"""
    return abs(clock.sec) <= _MAX_S and 0 <= clock.nsec < 1_000_000_000
