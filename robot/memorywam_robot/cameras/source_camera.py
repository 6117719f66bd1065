"""A camera around any function that returns an image, such as a simulator's view."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.cameras.camera_feed import RawFrame
from memorywam_robot.cameras.camera_rules import NOISELESS, CameraRules
from memorywam_robot.cameras.camera_thread import ThreadedCamera
from memorywam_robot.cameras.source_rhythm import SourceRhythm
from memorywam_runtime.errors import DeviceError, InputError, MemorywamError

__all__ = ["Source", "SourceCamera", "SourceFeed", "image_from_source"]

Source = Callable[[], NDArray[np.uint8]]
"""Returns the view now, RGB [rows, columns, 3]; called from the camera's thread only."""


class SourceFeed:
    """Asks a source at a fixed rate; a source that is too slow loses whole periods, and says so."""

    def __init__(self, source: Source, hz: float) -> None:
        """Make a feed that is not open.

        Raises:
            InputError: a rate that is none.
        """
        self._source = source
        self._rhythm = SourceRhythm(hz)

    @property
    def period_ns(self) -> int:
        """Return the time from one image to the next."""
        return self._rhythm.period_ns

    @property
    def has_ended(self) -> bool:
        """Return False: a source goes on for ever."""
        return False

    @property
    def can_reset(self) -> bool:
        """Return False: there is no hardware."""
        return False

    def open(self) -> None:
        """Begin to count, in phase with every other source of this rate on this machine."""
        self._rhythm.begin(first=1)

    def wait(self, timeout_s: float) -> RawFrame | None:
        """Ask for the next image when its time has come.

        Raises:
            InputError: the source gave no image.
            DeviceError: it failed.
        """
        now_ns = time.monotonic_ns()
        number, due_ns = self._rhythm.next(now_ns)
        if due_ns > now_ns:
            time.sleep(min((due_ns - now_ns) * 1e-9, timeout_s))
            if time.monotonic_ns() < due_ns:
                return None
        stamp_ns = time.monotonic_ns()
        image = image_from_source(self._source)
        self._rhythm.took(number)
        received_ns = time.monotonic_ns()
        return RawFrame(
            image=image,
            number=number,
            stamp_ns=stamp_ns,
            domain="host",
            received_ns=received_ns,
            arrived_ns=received_ns,
        )

    def settled(self) -> bool:
        """Change nothing: a source has no exposure."""
        return False

    def reset(self) -> None:
        """Do nothing: there is no hardware."""

    def close(self) -> None:
        """Do nothing: a source is its owner's."""


class SourceCamera(ThreadedCamera):
    """A live camera whose images a function makes."""

    def __init__(
        self, name: str, source: Source, hz: float, rules: CameraRules = NOISELESS
    ) -> None:
        """Make a camera that is closed.

        Args:
            name: In the contract.
            source: Asked from the camera's thread.
            hz: Images a second.
            rules: All numbers; those for rendered images unless told.

        Raises:
            InputError: a rate that is none.
        """
        super().__init__(name, SourceFeed(source, hz), rules)


def image_from_source(source: Source) -> NDArray[np.uint8]:
    """Return a copy of the view now, RGB [rows, columns, 3].

    Raises:
        InputError: it gave no RGB image.
        DeviceError: it failed.
    """
    try:
        image = np.array(source(), copy=True, order="C")
    except MemorywamError:
        raise
    except Exception as error:
        raise DeviceError(f"the source of images failed: {error!r}") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"the source gave {image.dtype} {list(image.shape)}; expected uint8 [rows, columns, 3]"
        )
    return image
