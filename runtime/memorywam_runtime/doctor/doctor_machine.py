"""What the machine has: disk, memory, clock, CPU governor, heat, leave to run in real time."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from memorywam_runtime.doctor.doctor_finding import Finding

__all__ = ["machine_findings", "number_of", "text_of"]

_GIB = 1 << 30
_LOW_DISK_BYTES = 5 * _GIB
_IMAGES_DISK_BYTES = 2 * _GIB
"""With less, recordings leave images out."""
_LOW_MEMORY_BYTES = 4 * _GIB
_COARSE_CLOCK_S = 1e-6
_HEADROOM_C = 10.0
_UNBOUNDED = -1
_GROUP = "realtime"
_PRIORITY = 50
"""That the process of the arms asks for."""
_LEAVES = {"rtprio": 23, "memlock": 14}
"""Capabilities that need no limit: CAP_SYS_NICE and CAP_IPC_LOCK."""


def machine_findings(root: Path, folder: Path, *, moves: bool) -> Iterator[Finding]:
    """Look at the machine.

    Args:
        root: Where /proc, /sys and /etc are.
        folder: Whose disk is looked at.
        moves: Whether a robot was asked for: then the leave to run in real time counts.
    """
    yield _disk(folder)
    yield _memory(root)
    yield from _swap(root)
    yield _clock()
    yield from _governor(root)
    yield from _heat(root)
    if moves:
        yield from _real_time(root)


def text_of(path: Path) -> str | None:
    """Return what a file of the system says, stripped; None if it says nothing.

    Those of sensors that are switched off exist and cannot be read.
    """
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \n\t")
    except OSError:
        return None


def number_of(path: Path) -> float | None:
    """Return the number that a file of the system holds; None if it holds none."""
    try:
        return float(text_of(path) or "")
    except ValueError:
        return None


def _disk(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    found = f"{free_bytes / _GIB:.1f} GiB free in {folder}"
    if free_bytes >= _LOW_DISK_BYTES:
        return Finding(part="disk", status="ok", found=found)
    if free_bytes < _IMAGES_DISK_BYTES:
        found += ": too little to record images"
    fix = f"free {_LOW_DISK_BYTES / _GIB:.0f} GiB, or work elsewhere"
    return Finding(part="disk", status="warn", found=found, fix=fix)


def _memory_bytes(root: Path) -> dict[str, int]:
    """Return the lines of /proc/meminfo in bytes."""
    lines = (text_of(root / "proc/meminfo") or "").splitlines()
    found = (re.match(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {match[1]: int(match[2]) * 1024 for match in found if match}


def _memory(root: Path) -> Finding:
    sizes = _memory_bytes(root)
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if total is None or free is None:
        fix = "look for yourself: 4 GiB and the bundle must fit"
        return Finding(part="memory", status="warn", found="unknown on this system", fix=fix)
    found = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB available"
    if total >= _LOW_MEMORY_BYTES:
        return Finding(part="memory", status="ok", found=found)
    fix = "use a smaller bundle, or a machine with more"
    return Finding(part="memory", status="warn", found=found, fix=fix)


def _swap(root: Path) -> Iterator[Finding]:
    sizes = _memory_bytes(root)
    total, free = sizes.get("SwapTotal"), sizes.get("SwapFree")
    if total is None or free is None:
        return
    used = total - free
    found = f"{used / _GIB:.1f} of {total / _GIB:.1f} GiB in use" if total else "none"
    if used <= total / 10:
        yield Finding(part="swap", status="ok", found=found)
    else:
        fix = "close other programs, then `sudo swapoff -a && sudo swapon -a`: a page-in is a stall"
        yield Finding(part="swap", status="warn", found=found, fix=fix)


def _clock() -> Finding:
    clock = time.get_clock_info("monotonic")
    found = f"monotonic, to {clock.resolution * 1e9:.0f} ns; setting the time of day moves nothing"
    if clock.resolution <= _COARSE_CLOCK_S:
        return Finding(part="clock", status="ok", found=found)
    fix = "use a kernel with high-resolution timers"
    return Finding(part="clock", status="warn", found=found, fix=fix)


def _governor(root: Path) -> Iterator[Finding]:
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    names = {text_of(policy / "scaling_governor") for policy in policies} - {None}
    if not names:
        return  # a virtual machine: the host decides
    found = " and ".join(sorted(name for name in names if name))
    lows = [_locked_khz(policy) for policy in policies]
    if names == {"performance"} or all(lows):
        yield Finding(part="CPU governor", status="ok", found=found)
    else:
        fix = "sudo cpupower frequency-set -g performance; on a Jetson sudo jetson_clocks"
        yield Finding(part="CPU governor", status="warn", found=found, fix=fix)


def _locked_khz(policy: Path) -> bool:
    """Is the clock pinned, whatever the governor?"""
    low, high = (text_of(policy / f"scaling_{end}_freq") for end in ("min", "max"))
    return low is not None and low == high


def _heat(root: Path) -> Iterator[Finding]:
    worst: tuple[float, str, float, float] | None = None
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        now, limit = number_of(zone / "temp"), _throttles_at(zone)
        if now is None or limit is None:
            continue
        told = (limit - now / 1e3, text_of(zone / "type") or zone.name, now / 1e3, limit)
        worst = told if worst is None else min(worst, told)
    if worst is None:
        return
    left, name, now_c, limit_c = worst
    found = f"{name} {now_c:.0f} degrees C, slows down at {limit_c:.0f}"
    if left >= _HEADROOM_C:
        yield Finding(part="heat", status="ok", found=found)
    else:
        fix = "let it cool, clean or speed up the fan, or choose a power mode with fewer watts"
        yield Finding(part="heat", status="warn", found=found, fix=fix)


def _throttles_at(zone: Path) -> float | None:
    """Return the least temperature at which the zone slows anything down."""
    found = []
    for kind in zone.glob("trip_point_*_type"):
        limit = number_of(zone / kind.name.replace("_type", "_temp"))
        if text_of(kind) in ("passive", "hot", "critical") and limit is not None and limit > 0:
            found.append(limit / 1e3)
    return min(found, default=None)


def _real_time(root: Path) -> Iterator[Finding]:
    """Look at what the process of the arms may do to wake in time."""
    limits, held = _limits_of_process(root), _capabilities(root)
    for part, name, word, wanted in (
        ("real-time priority", "Max realtime priority", "rtprio", str(_PRIORITY)),
        ("locked memory", "Max locked memory", "memlock", "unlimited"),
    ):
        allowed = limits.get(name)
        if allowed is None:
            continue
        found = "without limit" if allowed == _UNBOUNDED else f"up to {allowed}"
        is_enough = allowed == _UNBOUNDED or (word == "rtprio" and allowed >= _PRIORITY)
        if is_enough or held >> _LEAVES[word] & 1:
            found = found if is_enough else "by capability"
            yield Finding(part=part, status="ok", found=found)
        elif _is_set(root, word):
            fix = "log in again: the limit is set, and this session is older"
            yield Finding(part=part, status="warn", found=found, fix=fix)
        else:
            line = f"@{_GROUP} - {word} {wanted}"
            fix = f"put '{line}' into /etc/security/limits.d/{_GROUP}.conf, join group {_GROUP}"
            yield Finding(part=part, status="warn", found=found, fix=f"{fix}, log in again")


def _is_set(root: Path, word: str) -> bool:
    """Is there a limit of this name for anybody, which a new session would have?"""
    folder = root / "etc/security"
    files = [folder / "limits.conf", *sorted((folder / "limits.d").glob("*.conf"))]
    line = re.compile(rf"^[^#\n]*\s{word}\s", re.MULTILINE)
    return any(line.search(text_of(file) or "") for file in files)


def _capabilities(root: Path) -> int:
    """Return what this process may do without being asked, one bit each."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", text_of(root / "proc/self/status") or "", re.M)
    return int(match[1], 16) if match else 0


def _limits_of_process(root: Path) -> dict[str, int]:
    """Return the soft limits of this process, -1 where there is none."""
    found = {}
    for line in (text_of(root / "proc/self/limits") or "").splitlines()[1:]:
        name, *columns = re.split(r"\s{2,}", line.strip())
        if columns:
            found[name] = _UNBOUNDED if columns[0] == "unlimited" else int(columns[0])
    return found
