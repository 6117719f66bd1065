"""Heat and power of the machine while it is measured, as far as its kernel tells them."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Sensed", "sensed", "sensors_between", "sensors_text"]

_ROOT = Path("/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensed:
    """What the sensors told at one time; empty where there are none, or none may be read."""

    at_ns: int
    temperatures_c: Mapping[str, float]
    power_w: Mapping[str, float]
    """Of the board's own sensors, now."""
    energy_j: Mapping[str, tuple[float, float]]
    """Of the processor's counters: where it stands, and where it begins again."""


def sensed(root: Path = _ROOT) -> Sensed:
    """Return what the sensors tell now.

    Args:
        root: Where the kernel shows its devices.
    """
    return Sensed(
        at_ns=time.monotonic_ns(),
        temperatures_c=_numbered(_temperatures(root)),
        power_w=_numbered(_powers(root)),
        energy_j=_numbered(_energies(root)),
    )


def sensors_between(before: Sensed, after: Sensed) -> dict[str, Any]:
    """Return what stands beside a measurement; None for what this machine does not tell."""
    seconds = (after.at_ns - before.at_ns) / 1e9
    means = {
        name: ((after.energy_j[name][0] - start) % wrap) / seconds
        for name, (start, wrap) in before.energy_j.items()
        if name in after.energy_j and seconds > 0
    }
    return {
        "temperatures_c": _both(before.temperatures_c, after.temperatures_c),
        "power_w": _both(before.power_w, after.power_w),
        "mean_power_w": means or None,
    }


def sensors_text(told: Mapping[str, Any]) -> str:
    """Return what `sensors_between` found, in a sentence."""
    parts = []
    for quantity, unit in (("temperatures_c", "C"), ("power_w", "W")):
        found = told[quantity]
        if found is not None:
            times = [found[time] for time in ("before", "after")]
            parts += [
                f"{name} {'/'.join(f'{time[name]:.1f}' for time in times if name in time)} {unit}"
                for name in dict.fromkeys(name for time in times for name in time)
            ]
    parts += [
        f"{name} {watts:.1f} W on average" for name, watts in (told["mean_power_w"] or {}).items()
    ]
    return f"before/after: {', '.join(parts)}" if parts else "no sensor tells heat or power here"


def _both(
    before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, dict[str, float]] | None:
    found = {"before": dict(before), "after": dict(after)}
    return found if before or after else None


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    """Yield each thermal zone's name and temperature."""
    for zone in sorted(root.glob("class/thermal/thermal_zone*")):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None:
            yield _text(zone / "type") or zone.name, millidegrees / 1e3


def _powers(root: Path) -> Iterator[tuple[str, float]]:
    """Yield each monitor's channels: power, or voltage times current where it tells these."""
    for monitor in sorted(root.glob("class/hwmon/hwmon*")):
        chip = _text(monitor / "name") or monitor.name
        for channel in range(1, 9):
            power = _number(monitor / f"power{channel}_input")
            if power is None:
                power = _number(monitor / f"power{channel}_average")
            volts, amperes = (
                _number(monitor / f"{kind}{channel}_input") for kind in ("in", "curr")
            )
            if power is None and volts is not None and amperes is not None:
                power = volts * amperes  # thousandths of both
            if power is not None:
                labels = (_text(monitor / f"{kind}{channel}_label") for kind in ("power", "in"))
                yield f"{chip} {next(filter(None, labels), channel)}", power / 1e6


def _energies(root: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield each counter of energy; most systems show them to the administrator alone."""
    for counter in sorted(root.glob("class/powercap/*:*")):
        energy, wrap = (_number(counter / f"{name}_uj") for name in ("energy", "max_energy_range"))
        if energy is not None and wrap:
            yield _text(counter / "name") or counter.name, (energy / 1e6, wrap / 1e6)


def _numbered(found: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Return them by name, a name that comes again with its number."""
    named: dict[str, Any] = {}
    for name, value in found:
        count = 1 + sum(other.split(" #")[0] == name for other in named)
        named[name if count == 1 else f"{name} #{count}"] = value
    return named


def _text(path: Path) -> str | None:
    """Return what a sensor's file says; None if it cannot be read, or is switched off."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> int | None:
    """Return a sensor's number."""
    try:
        return int(_text(path) or "")
    except ValueError:
        return None
