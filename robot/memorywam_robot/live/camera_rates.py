"""Whether cameras are fast enough for the memory clock, said before anything moves."""

from collections.abc import Iterable, Mapping, Sequence

from memorywam_robot.camera import Camera
from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.realsense_options import DEFAULT_STREAM
from memorywam_robot.live.grid_rules import GridShape
from memorywam_runtime.errors import InputError

__all__ = ["asked_rates", "check_rates", "needed_hz", "running_rates", "slow_cameras"]

_TOLERANCE = 0.99
"""A stream of 30 Hz may be one of 29.97."""


def needed_hz(shape: GridShape) -> float:
    """Return the least rate with an image for every slot, whenever the camera began.

    A slot takes what was captured from its time on, and no later than half a period after it.
    """
    return 2e9 / shape.period_ns


def asked_rates(
    names: Iterable[str], specs: Sequence[CameraSpec], source_hz: float
) -> dict[str, float]:
    """Return images a second by camera, as they were asked for; nothing is opened.

    Args:
        names: Of all cameras.
        specs: Of some of them; the others are sources.
        source_hz: Of sources and simulated cameras.
    """
    given = {spec.name: spec for spec in specs}
    rates = {}
    for name in names:
        options = given[name].realsense if name in given else None
        if name in given and given[name].lerobot:
            continue  # it says when it is made
        if options is None:
            rates[name] = source_hz
        elif options.wanted is not None or options.file is None:  # a file's is in the file
            rates[name] = float((options.wanted or DEFAULT_STREAM)[2])
    return rates


def running_rates(cameras: Iterable[Camera], other_hz: float) -> dict[str, float]:
    """Return images a second by camera, as their open streams say; `other_hz` where they do not."""
    rates = {}
    for camera in cameras:
        period_ns = getattr(camera, "period_ns", 0)
        rates[camera.name] = 1e9 / period_ns if period_ns else other_hz
    return rates


def slow_cameras(shape: GridShape, rates: Mapping[str, float]) -> dict[str, str]:
    """Return the cameras that are too slow for a grid, each with found and expected."""
    least = needed_hz(shape)
    every_ms = shape.period_ns / 1e6
    return {
        name: f"found {hz:.3g} images a second; expected at least {least:.3g}: memory takes one "
        f"every {every_ms:.0f} ms, captured within {every_ms / 2:.0f} ms of its time"
        for name, hz in rates.items()
        if not hz >= least * _TOLERANCE
    }


def check_rates(shape: GridShape, rates: Mapping[str, float]) -> None:
    """Refuse cameras that are too slow for a grid.

    Raises:
        InputError: naming them, with the numbers.
    """
    for name, complaint in slow_cameras(shape, rates).items():
        raise InputError(
            f"camera '{name}': {complaint}; raise --camera-hz, or ask for a faster stream such as "
            f"{name}=realsense:SERIAL,640x480@30"
        )
