"""The machine that a measurement was made on: processor, clocks, load, priority."""

import os
import platform
from pathlib import Path
from typing import Any

from memorywam_runtime.free_memory import available_bytes

__all__ = ["machine", "usable_cores"]

_CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_POLICIES = {"SCHED_OTHER": "other", "SCHED_FIFO": "fifo", "SCHED_RR": "round robin",
             "SCHED_BATCH": "batch", "SCHED_IDLE": "idle"}  # fmt: skip


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what is known of this machine now; None for what it does not tell."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "clocks_mhz": {
            "now": _clocks_now(),
            "min": _khz("cpuinfo_min_freq"),
            "max": _khz("cpuinfo_max_freq"),
        },
        "governor": _word(_CLOCKS / "scaling_governor"),
        "load_average": list(os.getloadavg()),
        "scheduling": _scheduling(),
        "nice": os.nice(0),
        "memory_available_bytes": available_bytes(),
    }


def _cpu_model() -> str:
    """Return the processor's name."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _clocks_now() -> list[float]:
    """Return each core's frequency, MHz; under a hypervisor it is a nominal one, or none."""
    lines = _lines(Path("/proc/cpuinfo"))
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _khz(name: str) -> float | None:
    """Return one of the driver's frequencies, MHz."""
    word = _word(_CLOCKS / name)
    return int(word) / 1000 if word is not None and word.isdigit() else None


def _scheduling() -> str | None:
    """Return the policy and priority that this process runs under."""
    if not hasattr(os, "sched_getscheduler"):
        return None
    policy = os.sched_getscheduler(0)
    name = next((text for key, text in _POLICIES.items() if getattr(os, key, None) == policy), "")
    return f"{name or policy}, priority {os.sched_getparam(0).sched_priority}"


def _word(path: Path) -> str | None:
    """Return what a file holds, or None if it cannot be read."""
    lines = _lines(path)
    return lines[0].strip() if lines else None


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
