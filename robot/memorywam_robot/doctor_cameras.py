"""What the camera library says of the cameras that were asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memorywam_robot.cameras.camera_arguments import CameraSpec, cameras_from_arguments
from memorywam_robot.cameras.camera_opening import cameras_from_specs
from memorywam_robot.cameras.realsense import librealsense
from memorywam_robot.cameras.realsense_device import MIN_USB, colour_sensor, said
from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.errors import InputError, MissingPartError

__all__ = ["SeenCamera", "camera_findings", "seen_cameras"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCamera:
    """One RealSense on the bus, not opened."""

    serial: str
    name: str
    firmware: str
    recommended: str
    """Firmware that the library would like to see; empty if it does not say."""
    usb: str
    has_global_time: bool
    """Its stamps can be translated to this machine's clock; else they are its own."""


def seen_cameras() -> list[SeenCamera]:
    """Return all that are plugged in.

    Raises:
        MissingPartError: the library is not installed.
    """
    rs = librealsense()
    info, found = rs.camera_info, []
    for device in rs.context().query_devices():
        try:
            sensor = colour_sensor(device, rs)
        except InputError:
            sensor = None
        found.append(
            SeenCamera(
                serial=said(device, info.serial_number),
                name=said(device, info.name),
                firmware=said(device, info.firmware_version),
                recommended=said(device, info.recommended_firmware_version),
                usb=said(device, info.usb_type_descriptor),
                has_global_time=sensor is not None
                and bool(sensor.supports(rs.option.global_time_enabled)),
            )
        )
    return found


def camera_findings(
    arguments: Sequence[str], look: Callable[[], list[SeenCamera]] = seen_cameras
) -> Iterator[Finding]:
    """Say of each camera that was asked for whether it is there and in order.

    Args:
        arguments: `NAME=KIND:ID`, as for run.
        look: Returns what is plugged in.

    Raises:
        InputError: an argument of another form.
    """
    specs = cameras_from_arguments(arguments)
    for spec in specs:
        if spec.kind == "realsense-file":
            yield _file(spec)
        if spec.lerobot:
            yield _lerobot(spec)
    wanted = {
        spec.realsense.serial: spec for spec in specs if spec.realsense and spec.realsense.serial
    }
    if not wanted:
        return
    try:
        seen = {one.serial: one for one in look()}
    except (MissingPartError, RuntimeError) as error:
        for spec in wanted.values():
            fix = "pip install 'memorywam[realsense]'; check cable, port and power"
            yield Finding(part=f"camera {spec.name}", status="missing", found=str(error), fix=fix)
        return
    for serial, spec in wanted.items():
        if serial in seen:
            yield from _camera(spec, seen[serial])
        else:
            others = ", ".join(sorted(seen)) or "none"
            yield Finding(
                part=f"camera {spec.name}",
                status="missing",
                found=f"no RealSense with serial {serial}; plugged in: {others}",
                fix="check cable, port and power, and the serial",
            )
    for one in seen.values():
        if one.serial not in wanted:
            found = f"{one.name} {one.serial}, which nobody asked for"
            yield Finding(part="another camera", status="ok", found=found)


def _file(spec: CameraSpec) -> Finding:
    """Look for a recording."""
    path = spec.realsense.file if spec.realsense else None
    part = f"camera {spec.name}"
    if path is not None and path.is_file():
        return Finding(part=part, status="ok", found=f"recording {path}")
    fix = "name a recording (.db3) that is there"
    return Finding(part=part, status="missing", found=f"no recording {path}", fix=fix)


def _lerobot(spec: CameraSpec) -> Finding:
    """Make a camera of LeRobot's, not connected."""
    part = f"camera {spec.name}"
    try:
        cameras_from_specs([spec])
    except (InputError, MissingPartError) as error:
        fix = "do as it says, and ask again"
        return Finding(part=part, status="missing", found=str(error), fix=fix)
    return Finding(part=part, status="ok", found=f"{spec.lerobot}: configured, not connected")


def _camera(spec: CameraSpec, seen: SeenCamera) -> Iterator[Finding]:
    """Say what a camera is like that is there."""
    part = f"camera {spec.name}"
    yield Finding(
        part=part,
        status="ok",
        found=f"{seen.name} {seen.serial}, firmware {seen.firmware}, USB {seen.usb or 'none'}",
    )
    is_allowed = spec.realsense is not None and spec.realsense.is_usb2_allowed
    if _version(seen.usb) and _version(seen.usb) < [int(MIN_USB)] and not is_allowed:
        fix = "use a USB 3 cable and port, or add the option usb2 to take it as it is"
        yield Finding(part=part, status="missing", found=f"on USB {seen.usb}", fix=fix)
    if seen.recommended and _version(seen.firmware) < _version(seen.recommended):
        fix = f"update it with rs-fw-update or realsense-viewer to {seen.recommended}"
        found = f"firmware {seen.firmware} is older than its library likes"
        yield Finding(part=part, status="warn", found=found, fix=fix)
    if not seen.has_global_time:
        found = "stamps in its own clock alone, translated here by the fastest frame"
        fix = "use librealsense's native backend (kernel patches): it has stamps of this machine"
        yield Finding(part=part, status="warn", found=found, fix=fix)


def _version(text: str) -> list[int]:
    """Return the numbers of a version; none if it is not one."""
    return [int(part) for part in text.split(".") if part.isdecimal()]
