"""The one door to LeRobot: `--robot lerobot:TYPE,key=value,...` to a connected robot."""

import contextlib
import dataclasses
import importlib
import logging
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from memorywam_robot.adapters.lerobot_cameras import LeRobotCameras
from memorywam_robot.adapters.lerobot_device import buses_of
from memorywam_robot.adapters.lerobot_joints import (
    JointMap,
    check_modes,
    joint_map_from_contract,
)
from memorywam_robot.adapters.lerobot_robot import LeRobotArm, LeRobotRobot
from memorywam_robot.adapters.robot_words import RobotWords
from memorywam_robot.robot import Job
from memorywam_runtime.contract import ActionSpace, InferenceContract
from memorywam_runtime.errors import DeviceError, InputError, MissingPartError

__all__ = [
    "DEFAULT_STEPS",
    "camera_from_lerobot",
    "config_from_lerobot",
    "connecting",
    "device_from_lerobot",
    "keep_torque",
    "robot_from_lerobot",
    "without_cameras",
]

DEFAULT_STEPS = 600
"""Of an episode, where `steps` does not say; a minute at 10 Hz."""

_FLAG = "disable_torque_on_disconnect"


def robot_from_lerobot(words: RobotWords, contract: InferenceContract) -> LeRobotRobot:
    """Open a robot whose type LeRobot knows; its arms may go limp while it is configured.

    Ours of the options are `units=rad:degrees+fraction:range_0_100` (the contract's units to
    LeRobot's), `joints=NAME:KEY+...`, `views=CAMERA:CAMERA+...`, `instruction`, `steps` and
    `may_drop=true`; all others are LeRobot's.

    Raises:
        InputError: an unknown type or option, joints or units that do not fit, a robot that is not
            calibrated, or one whose arms would drop when it is let go.
        MissingPartError: LeRobot or what the robot needs is not installed.
        DeviceError: it cannot be reached.
    """
    job = Job(instruction=words.take("instruction"), num_steps=words.steps(DEFAULT_STEPS))
    views = {one: one for one in contract.observations.cameras} | words.pairs("views")
    device, joints = device_from_lerobot(words, contract.actions)
    with connecting(device, words.name):
        return LeRobotRobot(
            device,
            LeRobotArm(device, joints, contract.observations.control_hz),
            LeRobotCameras(device, views),
            job,
        )


def device_from_lerobot(
    words: RobotWords, actions: ActionSpace, *, has_cameras: bool = True
) -> tuple[Any, JointMap]:
    """Make a robot of LeRobot's, not connected, and the map of its joints.

    Args:
        words: Its type, with the options `units`, `joints`, `may_drop` and LeRobot's own.
        actions: Names and units of the contract's joints.
        has_cameras: It may open cameras of its own; else it is made without.

    Raises:
        InputError: an unknown type or option, units that do not fit, cameras that it will not go
            without, or arms that would drop when it is let go.
        MissingPartError: LeRobot or what the robot needs is not installed.
    """
    units, names = words.pairs("units"), words.pairs("joints")
    may_drop = words.take("may_drop") == "true"
    joints = joint_map_from_contract(actions, units, keys=names)
    with _quiet():
        config = _config("robots", "RobotConfig", words)
        if not keep_torque(config) and not may_drop:
            raise InputError(
                f"'{words.name}' has no {_FLAG}: its torque goes off when the program ends; say "
                "may_drop=true if its arms cannot fall"
            )
        if not has_cameras:
            without_cameras(config)
        device = _made("lerobot.robots", "make_robot_from_config", config)
    check_modes(joints, actions, units, _modes(device))
    seen = getattr(device, "observation_features", {})
    if not has_cameras and (images := [key for key, one in seen.items() if isinstance(one, tuple)]):
        raise InputError(
            f"'{words.name}' opens cameras of its own: {', '.join(images)}; expected joints alone, "
            "for their process waits for no image: turn them off by its options"
        )
    return device, joints


@contextlib.contextmanager
def connecting(device: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """Connect a robot, and let go of it again if what is done with it then fails.

    Raises:
        InputError: it is not calibrated.
        DeviceError: it cannot be reached.
    """
    try:
        _connect(device)
        yield
    except BaseException as error:
        with contextlib.suppress(Exception):
            device.disconnect()
        if isinstance(error, OSError):
            raise DeviceError(f"'{name}': {error}") from error
        raise


def camera_from_lerobot(words: RobotWords) -> Any:  # noqa: ANN401
    """Return a camera, not connected, whose type LeRobot knows.

    Raises:
        InputError: an unknown type or option.
        MissingPartError: LeRobot or what the camera needs is not installed.
    """
    with _quiet():
        config = _config("cameras", "CameraConfig", words)
        made = _made("lerobot.cameras", "make_cameras_from_configs", {words.name: config})
    return made[words.name]


def config_from_lerobot(words: RobotWords) -> Any:  # noqa: ANN401
    """Return the configuration of a robot, of the options that are left.

    Raises:
        InputError: an unknown type or option.
        MissingPartError: LeRobot is not installed.
    """
    with _quiet():
        return _config("robots", "RobotConfig", words)


def keep_torque(config: Any) -> int:  # noqa: ANN401
    """Make a configuration and its parts keep the torque when let go; return how many can."""
    found = 0
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == _FLAG:
            setattr(config, _FLAG, False)
            found += 1
        elif dataclasses.is_dataclass(value):
            found += keep_torque(value)
    return found


def _connect(device: Any) -> None:  # noqa: ANN401
    """Connect without calibrating: that would let the arms go limp and ask at the keyboard."""
    device.connect(calibrate=False)
    if not device.is_calibrated:
        raise InputError(f"{device} is not calibrated: run LeRobot's lerobot-calibrate first")


def without_cameras(config: Any) -> None:  # noqa: ANN401
    """Take the cameras out of a configuration and its parts."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "cameras" and isinstance(value, dict):
            config.cameras = {}
        elif dataclasses.is_dataclass(value):
            without_cameras(value)


def _config(part: str, base: str, words: RobotWords) -> Any:  # noqa: ANN401
    """Return the configuration of a type, made of the options that are left."""
    module, draccus = _module(f"lerobot.{part}"), _module("draccus")
    registry = getattr(module, base)
    _register(module, registry, words.name)
    known = registry.get_known_choices()
    if words.name not in known:
        raise InputError(f"LeRobot knows no '{words.name}'; expected one of {', '.join(known)}")
    args = [f"--{key}={value}" for key, value in words.options.items()]
    try:
        return draccus.parse(registry.get_choice_class(words.name), args=args)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"'{words.name}' refuses {', '.join(args) or 'no options'}: {error}"
        ) from error


def _register(module: ModuleType, registry: Any, name: str) -> None:  # noqa: ANN401
    """Import LeRobot's own types, then plug-ins, until one of this name is known."""
    for found in pkgutil.iter_modules(module.__path__, f"{module.__name__}."):
        if name in registry.get_known_choices():
            return
        if found.ispkg:
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)
    if name not in registry.get_known_choices():
        _module("lerobot.utils.import_utils").register_third_party_plugins()


def _modes(device: object) -> dict[str, str]:
    """Return what the motors of a device, or of its two arms, are set to, by key."""
    return {
        f"{prefix}{name}.pos": str(motor.norm_mode.value)
        for prefix, bus in buses_of(device).items()
        for name, motor in (getattr(bus, "motors", None) or {}).items()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Give the root logger back its handlers and level: imports of LeRobot's change them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _made(module: str, maker: str, config: Any) -> Any:  # noqa: ANN401
    """Return what LeRobot makes of a configuration, or say what package it lacks."""
    try:
        return getattr(_module(module), maker)(config)
    except ImportError as error:
        raise _missing(error) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _missing(error: ImportError) -> MissingPartError:
    """Return our error for a package that is not there."""
    return MissingPartError(
        f"LeRobot lacks a part ({error}); install it beside this package, with the extra of your "
        "robot: pip install 'lerobot[feetech]', for one"
    )


def _module(name: str) -> Any:  # noqa: ANN401
    """Import a module of LeRobot's, or say what is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(error) from error
