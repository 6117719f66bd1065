"""Cameras from what was asked for; what drives them is imported when one starts."""

from collections.abc import Mapping, Sequence

from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.camera_rules import NOISELESS, CameraRules
from memorywam_robot.cameras.camera_thread import ThreadedCamera
from memorywam_robot.cameras.frame_faults import FaultSchedule
from memorywam_robot.cameras.realsense import RealSenseCamera
from memorywam_robot.cameras.realsense_injected import InjectedRealSense
from memorywam_robot.cameras.source_camera import Source, SourceCamera
from memorywam_runtime.errors import InputError

__all__ = ["cameras_from_specs"]


def cameras_from_specs(
    specs: Sequence[CameraSpec],
    *,
    rules: CameraRules | None = None,
    sources: Mapping[str, Source] | None = None,
    hz: float = 30.0,
    faults: FaultSchedule | None = None,
) -> dict[str, ThreadedCamera]:
    """Return cameras by name, none of them started.

    Args:
        specs: What was asked for.
        rules: All numbers; the defaults unless told, for images of sources those without noise.
        sources: By camera: who makes the images of `realsense-sim` and `source`.
        hz: Images a second of those.
        faults: What goes wrong with `realsense-sim`.

    Raises:
        InputError: no source of a camera, faults of a camera that is not simulated or not there,
            or a type or options that LeRobot does not know.
        MissingPartError: LeRobot or what the camera needs is not installed.
    """
    names = {spec.name for spec in specs}
    simulated = {spec.name for spec in specs if spec.kind == "realsense-sim"}
    for fault in faults.faults if faults else ():
        if (fault.camera and fault.camera not in simulated) or not simulated:
            raise InputError(
                f"the fault schedule names camera '{fault.camera}'; expected one of kind "
                f"realsense-sim: {', '.join(sorted(simulated)) or 'there is none'}"
            )
    made: dict[str, ThreadedCamera] = {}
    for spec in specs:
        if spec.realsense is not None:
            made[spec.name] = RealSenseCamera(spec.name, spec.realsense, rules)
            continue
        if spec.lerobot:
            made[spec.name] = _lerobot(spec, rules)
            continue
        source = (sources or {}).get(spec.name)
        if source is None:
            known = ", ".join(sorted(sources or {})) or "none"
            raise InputError(
                f"no images for camera '{spec.name}' ({spec.kind}); this robot makes those of "
                f"{known}, of {', '.join(sorted(names))} asked for"
            )
        if spec.kind == "source":
            made[spec.name] = SourceCamera(spec.name, source, hz, rules or NOISELESS)
        else:
            made[spec.name] = InjectedRealSense(
                spec.name, source, hz, rules or NOISELESS, faults=faults
            )
    return made


def _lerobot(spec: CameraSpec, rules: CameraRules | None) -> ThreadedCamera:
    """Return one of LeRobot's."""
    from memorywam_robot.adapters.lerobot_camera import LeRobotCamera
    from memorywam_robot.adapters.lerobot_opening import camera_from_lerobot
    from memorywam_robot.adapters.robot_words import words_from_argument

    camera = camera_from_lerobot(words_from_argument(spec.lerobot))
    return LeRobotCamera(spec.name, camera, rules)
