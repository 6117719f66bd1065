"""SharedSignal: the stamps of cameras whose shutters one signal is to open, and what they say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.camera_sync import synchrony
from memorywam_runtime.errors import InputError

__all__ = ["SharedSignal", "signal_from_specs"]

_NUM_KEPT = 4096
"""Stamps of each camera, the newest: more than two minutes at 30 Hz."""


class SharedSignal:
    """Keeps stamps as frames come; nothing is allocated after `__init__`."""

    def __init__(self, names: Sequence[str]) -> None:
        """Hear of these cameras."""
        self._stamps = {name: np.zeros(_NUM_KEPT, np.int64) for name in names}
        self._counts = dict.fromkeys(names, 0)

    def see(self, camera: str, captured_ns: int) -> None:
        """Hear of a frame of any camera."""
        stamps = self._stamps.get(camera)
        if stamps is not None:
            stamps[self._counts[camera] % _NUM_KEPT] = captured_ns
            self._counts[camera] += 1

    def report(self) -> dict[str, Mapping[str, Any]]:
        """Return for each camera but the first whether it was exposed together with that."""
        first, *others = self._stamps
        return {f"{first} and {other}": self._pair(first, other) for other in others}

    def _pair(self, first: str, second: str) -> Mapping[str, Any]:
        try:
            found = synchrony(self._kept(first), self._kept(second))
        except InputError as error:
            return {"is_synchronised": None, "complaint": str(error)}
        return {
            "is_synchronised": found.is_synchronised,
            "share": found.share,
            "median_ms": found.median_ns / 1e6,
            "num_pairs": found.num_pairs,
        }

    def _kept(self, camera: str) -> list[int]:
        """Return a camera's stamps in order."""
        return sorted(self._stamps[camera][: self._counts[camera]].tolist())


def signal_from_specs(specs: Sequence[CameraSpec]) -> SharedSignal | None:
    """Return what to hear of the cameras that were asked to share a signal; None if not two."""
    names = [spec.name for spec in specs if spec.realsense is not None and spec.realsense.sync]
    return SharedSignal(names) if len(names) > 1 else None
