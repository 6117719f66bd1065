"""What the kernel says of cameras on USB: how fast each is, and what shares its wire."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.doctor.doctor_machine import number_of, text_of

__all__ = ["CAMERA_BYTES_PER_S", "usb_findings"]

_INTEL = "8086"
_REALSENSE = "RealSense"
_FAST_MBPS = 5000
CAMERA_BYTES_PER_S = 640 * 480 * 2 * 30
"""Colour at the default stream: two bytes a pixel on the wire."""
_PAYLOAD = 0.6
"""Of a wire's bits that reach a program; a choice on the safe side, for video shares its bus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Camera:
    """One RealSense on the bus."""

    port: str
    """As the kernel names it: bus, then ports from the root: `2-1.3`."""
    product: str
    mbps: float

    @property
    def wires(self) -> list[str]:
        """Return all links from the root down to it, itself left out: `usb2`, `2-1`."""
        bus, _, ports = self.port.partition("-")
        hops = ports.split(".")
        return [f"usb{bus}", *(f"{bus}-{'.'.join(hops[:n])}" for n in range(1, len(hops)))]


def usb_findings(root: Path) -> Iterator[Finding]:
    """Look at all RealSense cameras on USB; nothing is said where there is none.

    Args:
        root: Where /sys is.
    """
    folder = root / "sys/bus/usb/devices"
    cameras = [camera for path in sorted(folder.glob("*-*")) if (camera := _camera(path))]
    for camera in cameras:
        found = f"{camera.product} at {camera.port}, {camera.mbps:.0f} Mbit/s"
        if camera.mbps >= _FAST_MBPS:
            yield Finding(part="USB", status="ok", found=found)
        else:
            fix = "use a USB 3 cable and port, and plug it in quickly and fully"
            yield Finding(part="USB", status="warn", found=found, fix=fix)
    shared = sorted({wire for camera in cameras for wire in camera.wires})
    for wire in shared:
        behind = [camera for camera in cameras if wire in camera.wires]
        mbps = number_of(folder / wire / "speed")
        if len(behind) > 1 and mbps is not None:
            yield _shared(wire, behind, mbps)


def _shared(wire: str, cameras: list[_Camera], mbps: float) -> Finding:
    """Say whether the cameras behind one wire fit through it."""
    needed = len(cameras) * CAMERA_BYTES_PER_S
    room = mbps * 1e6 / 8 * _PAYLOAD
    kind = "root hub" if wire.startswith("usb") else "hub"
    found = (
        f"{len(cameras)} cameras behind {kind} {wire}: {needed / 1e6:.0f} MB/s of colour at "
        f"640x480@30, room for {room / 1e6:.0f}"
    )
    if needed <= room:
        return Finding(part="USB sharing", status="ok", found=found)
    fix = "plug them into ports of different root hubs, or ask for smaller streams"
    return Finding(part="USB sharing", status="warn", found=found, fix=fix)


def _camera(path: Path) -> _Camera | None:
    """Return the camera at a device's folder; None if it is something else."""
    if not re.fullmatch(r"\d+-\d+(\.\d+)*", path.name) or text_of(path / "idVendor") != _INTEL:
        return None
    product, mbps = text_of(path / "product") or "", number_of(path / "speed")
    if _REALSENSE not in product or mbps is None:
        return None
    return _Camera(port=path.name, product=product, mbps=mbps)
