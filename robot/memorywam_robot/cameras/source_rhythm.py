"""When a source of images is asked: at a fixed rate, in phase with every other one of it."""

import time

from memorywam_runtime.errors import InputError

__all__ = ["SourceRhythm"]


class SourceRhythm:
    """Counts periods; whoever is too slow for them loses whole ones."""

    def __init__(self, hz: float) -> None:
        """Stand still until `begin`.

        Raises:
            InputError: a rate that is none.
        """
        if not 0 < hz <= 1000:
            raise InputError(f"a camera of {hz} Hz; expected above 0 and at most 1000")
        self.period_ns = round(1e9 / hz)
        """From one image to the next."""
        self._start_ns, self._number = 0, -1

    def begin(self, first: int = 0) -> None:
        """Count anew; the first image will have this number, or a later one."""
        now_ns = time.monotonic_ns()
        self._start_ns, self._number = now_ns - now_ns % self.period_ns, first - 1

    def next(self, now_ns: int) -> tuple[int, int]:
        """Return number and time of the image that is due next, or now."""
        number = max(self._number + 1, (now_ns - self._start_ns) // self.period_ns)
        return number, self._start_ns + number * self.period_ns

    def took(self, number: int) -> None:
        """Hear that the image of a number was made."""
        self._number = number
