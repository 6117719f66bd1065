"""Whether the driver of the arms that were asked for could be opened; nothing is opened."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.arms.arm_drivers import opener_from_argument
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.errors import MemorywamError

__all__ = ["arm_findings"]

_CLOSED = "not connected: run --dry-run does that, and moves nothing"
_ELSEWHERE = ("instruction", "steps", "views")
"""Of the loop that waits for chunks."""


def arm_findings(robot: str, bundle: str | None = None) -> Iterator[Finding]:
    """Say of arms by a driver, or of LeRobot's, whether they are installed and configured.

    Args:
        robot: As for run; simulated ones are looked at elsewhere.
        bundle: With the names and units of joints; without it they are not compared.
    """
    kind, _, rest = robot.partition(":")
    try:
        if kind == "driver":
            opener_from_argument(rest)
            yield Finding(part="arms", status="ok", found=f"{rest} is there; {_CLOSED}")
        elif kind == "lerobot":
            yield from _lerobot(rest, bundle)
    except MemorywamError as error:
        fix = "do as it says, and ask again"
        yield Finding(part="arms", status="missing", found=str(error), fix=fix)
    except Exception as error:  # the module that is imported raises what it likes
        fix = "look at what its module does when it is imported"
        yield Finding(part="arms", status="missing", found=f"{robot}: {error!r}", fix=fix)


def _lerobot(text: str, bundle: str | None) -> Iterator[Finding]:
    """Make a robot of LeRobot's, not connected, and look for its ports."""
    from memorywam_robot.adapters.lerobot_opening import config_from_lerobot, device_from_lerobot

    words = words_from_argument(text)
    for key in _ELSEWHERE:
        words.take(key)
    if bundle is None:
        for key in ("units", "joints", "may_drop"):
            words.take(key)
        config = config_from_lerobot(words)
        found = "known to LeRobot, and configured; name a bundle to have its joints compared"
    else:
        device, joints = device_from_lerobot(words, read_manifest(Path(bundle)).contract.actions)
        config = getattr(device, "config", None)
        found = f"known to LeRobot, configured, with the contract's {len(joints.keys)} joints"
    yield Finding(part="arms", status="ok", found=f"{words.name}: {found}; {_CLOSED}")
    for port in _ports(config):
        yield _port(port)


def _ports(config: Any) -> list[Path]:  # noqa: ANN401
    """Return the device files that a configuration, or one of its two arms, names."""
    found = []
    for name, value in vars(config).items() if hasattr(config, "__dict__") else ():
        if "port" in name and isinstance(value, str) and value.startswith("/dev/"):
            found.append(Path(value))
        elif name.endswith("_arm_config"):
            found += _ports(value)
    return found


def _port(path: Path) -> Finding:
    """Look for a port."""
    part = f"arms' port {path}"
    if not path.exists():
        fix = "plug the arm in and see that it is powered: ls /dev/serial/by-id names it for good"
        return Finding(part=part, status="missing", found="not there", fix=fix)
    if not os.access(path, os.R_OK | os.W_OK):
        fix = f"sudo usermod -aG {path.group()} $USER, and log in again"
        return Finding(part=part, status="missing", found="may not be opened by you", fix=fix)
    return Finding(part=part, status="ok", found="there, and may be opened")
