"""The rate of a recording: steps a second that somebody may have recorded."""

from pathlib import Path

from memorywam_runtime.errors import InputError

__all__ = ["MAX_HZ", "MIN_HZ", "checked_rate"]

MIN_HZ, MAX_HZ = 1e-3, 1e6
"""Steps a second. Beyond, a step's time in nanoseconds is 0, or no number that fits 64 bits."""


def checked_rate(where: str | Path, rate_hz: float, found: str = "") -> float:
    """Return steps a second, unless nobody could have recorded so many or so few.

    Args:
        where: Names the file in an error.
        rate_hz: As the file says.
        found: The same in the file's own words.

    Raises:
        InputError: too many, too few, or no number.
    """
    if not MIN_HZ <= rate_hz <= MAX_HZ:  # NaN is not
        raise InputError(
            f"{where}: found {found or f'{rate_hz:g} steps a second'}; expected {MIN_HZ:g} to "
            f"{MAX_HZ:,.0f} steps a second: the file is damaged"
        )
    return rate_hz
