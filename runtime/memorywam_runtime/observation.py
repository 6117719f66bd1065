"""Observation: all camera images and the joint state at one environment step."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Observation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the robot saw and where its joints were."""

    images: Mapping[str, NDArray[np.uint8]]
    """Camera name to RGB image [rows, columns, 3]."""
    state: NDArray[np.float64]
    """Joint positions [state_dim], in the units of the contract."""
    step: int
    """Environment steps since reset."""
