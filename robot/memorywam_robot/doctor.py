"""What the doctor looks at for the robot: cameras, their bus, arms, ticks in time, speed."""

from collections.abc import Iterator

from memorywam_runtime.doctor.doctor_finding import Asked, Finding

__all__ = ["findings"]


def findings(asked: Asked) -> Iterator[Finding]:
    """Look at what a robot needs, as far as it was asked for.

    Raises:
        InputError: a camera that is no `NAME=KIND:ID`.
        MemorywamError: a bundle that cannot be opened to be measured.
    """
    # Each part when it is asked for: a machine without a robot needs none of their packages.
    from memorywam_robot.doctor_usb import usb_findings

    if asked.cameras:
        from memorywam_robot.doctor_cameras import camera_findings

        yield from camera_findings(asked.cameras)
    yield from usb_findings(asked.root)
    if asked.robot:
        from memorywam_robot.doctor_arms import arm_findings
        from memorywam_robot.doctor_ticks import tick_findings

        yield from arm_findings(asked.robot, asked.bundle)
        yield from tick_findings()
    if asked.measures_budget and asked.bundle is not None:
        from memorywam_robot.doctor_budget import budget_finding

        yield budget_finding(asked.bundle, asked.backend)
