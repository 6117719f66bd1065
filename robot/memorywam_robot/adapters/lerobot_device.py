"""What is asked of LeRobot's robots, and its errors as ours."""

from collections.abc import Mapping
from typing import Any, Protocol

from memorywam_runtime.errors import DeviceError

__all__ = ["LeRobotDevice", "buses_of", "has_torque", "read_device", "send_device"]


class LeRobotDevice(Protocol):
    """What is asked of LeRobot's `Robot`."""

    @property
    def action_features(self) -> Mapping[str, Any]:
        """Return the keys of an action."""
        ...

    def get_observation(self) -> Mapping[str, Any]:
        """Return joints and images by key."""
        ...

    def send_action(self, action: dict[str, float]) -> Mapping[str, Any] | None:
        """Send joint targets; return those that were really sent."""
        ...

    def disconnect(self) -> None:
        """Let go of it."""
        ...


def read_device(device: LeRobotDevice) -> Mapping[str, Any]:
    """Return what a device observes.

    Raises:
        DeviceError: it does not answer, or one of its cameras is stale.
    """
    try:
        return device.get_observation()
    except (OSError, RuntimeError) as error:
        raise DeviceError(f"the robot does not answer: {error}; hold the arms") from error


def send_device(device: LeRobotDevice, values: Mapping[str, float]) -> Mapping[str, Any]:
    """Send joint targets; return those that a device says it sent on.

    Raises:
        DeviceError: it takes none.
    """
    try:
        sent = device.send_action(dict(values))
    except (OSError, RuntimeError) as error:
        raise DeviceError(f"the robot took no command: {error}; hold the arms") from error
    return values if sent is None else sent


def buses_of(device: object, prefix: str = "") -> dict[str, Any]:
    """Return the motor buses of a device, or of its two arms, by what their joints begin with."""
    bus = getattr(device, "bus", None)
    found = {} if bus is None else {prefix: bus}
    for side in ("left", "right"):
        if (arm := getattr(device, f"{side}_arm", None)) is not None:
            found |= buses_of(arm, f"{side}_")
    return found


def has_torque(device: object) -> bool | None:
    """Return whether every motor says that it has torque; None where no bus can be asked."""
    buses = [bus for bus in buses_of(device).values() if hasattr(bus, "sync_read")]
    if not buses:
        return None
    said = [bus.sync_read("Torque_Enable", normalize=False) for bus in buses]
    return all(bool(value) for one in said for value in one.values())
