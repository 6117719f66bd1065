"""What a Jetson says of itself: board, JetPack, power mode and clocks."""

import re
from collections.abc import Iterator
from pathlib import Path

from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.doctor.doctor_machine import text_of

__all__ = ["jetson_findings"]

_JETPACKS = {35: "5", 36: "6", 38: "7", 39: "7"}
"""By the major number of L4T."""
_FLOOR = 36


def jetson_findings(root: Path) -> Iterator[Finding]:
    """Look at the board, if it is a Jetson; nothing is said of others."""
    release = re.match(
        r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(root / "etc/nv_tegra_release") or ""
    )
    model = text_of(root / "sys/firmware/devicetree/base/model") or ""
    if release is None and "Jetson" not in model:
        return
    yield _jetpack(model or "a Jetson", release)
    yield from _power_mode(root)
    yield from _clocks(root)


def _jetpack(model: str, release: re.Match[str] | None) -> Finding:
    if release is None:
        fix = "a container? mount /etc/nv_tegra_release from the host"
        return Finding(part="Jetson", status="warn", found=f"{model}, JetPack not told", fix=fix)
    major = int(release[1])
    jetpack = _JETPACKS.get(major)
    found = f"{model}, L4T {major}.{release[2]}" + f" (JetPack {jetpack})" * bool(jetpack)
    if major >= _FLOOR:
        return Finding(part="Jetson", status="ok", found=found)
    fix = "flash JetPack 6 or newer: older ones have Python 3.8 and TensorRT 8"
    return Finding(part="Jetson", status="missing", found=found, fix=fix)


def _power_mode(root: Path) -> Iterator[Finding]:
    status = re.match(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    catalogue = text_of(root / "etc/nvpmodel.conf") or ""
    modes = {
        int(number): name
        for number, name in re.findall(
            r"^< *POWER_MODEL +ID=(\d+) +NAME=(\S+) *>", catalogue, re.MULTILINE
        )
    }
    if status is None or not modes:
        return
    now = int(status[1])
    name = modes.get(now, "unknown")
    # Numbers mean nothing: on an Orin Nano, 0 is 15 W and 2 is MAXN_SUPER.
    best = max(modes, key=lambda number: _watts(modes[number]))
    if _watts(name) >= _watts(modes[best]):
        yield Finding(part="power mode", status="ok", found=name)
    else:
        fix = f"sudo nvpmodel -m {best}"
        found = f"{name}; {modes[best]} is faster"
        yield Finding(part="power mode", status="warn", found=found, fix=fix)


def _watts(name: str) -> float:
    """Return the power of a mode by its name: MAXN has no limit."""
    if name.startswith("MAXN"):
        return 1e6 + name.endswith("SUPER")
    number = re.search(r"(\d+)W", name)
    return float(number[1]) if number else 0.0


def _clocks(root: Path) -> Iterator[Finding]:
    """Look whether the GPU may slow down while it is idle: the next chunk is late then."""
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    for folder in folders:
        if not re.search(r"gpu|ga10b|gv11b", folder.name):
            continue
        low, high, now = (text_of(folder / f"{name}_freq") for name in ("min", "max", "cur"))
        if low is None or high is None:
            continue
        found = f"{folder.name} {_mhz(low)} to {_mhz(high)} MHz, now {_mhz(now or '0')}"
        if low == high:
            yield Finding(part="GPU clock", status="ok", found=f"{found}: locked")
        else:
            fix = "sudo jetson_clocks, after nvpmodel and after every boot"
            yield Finding(part="GPU clock", status="warn", found=found, fix=fix)


def _mhz(hertz: str) -> int:
    return int(hertz) // 1_000_000 if hertz.isdecimal() else 0
