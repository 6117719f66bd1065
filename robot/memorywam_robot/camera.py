"""Cameras: what the loop asks of a robot's eyes, and what it may rely on."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cameras"]


class Cameras(Protocol):
    """All cameras that one policy sees through."""

    def images(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return one new RGB image [rows, columns, 3] of every camera, by name.

        Each was taken after the call began, and belongs to the caller: the next call does not
        write into it.
        """
        ...
