"""Real arms, by LeRobot or a driver of one's own, and real cameras, behind the supervisor."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from memorywam_robot.arms.limits import JointLimits, joint_limits_from_maker
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.camera_opening import cameras_from_specs
from memorywam_robot.cameras.camera_thread import ThreadedCamera
from memorywam_robot.cameras.shared_signal import signal_from_specs
from memorywam_robot.live.live_robot import ShadowBody, SupervisedBody
from memorywam_robot.robot import Job, Verdict
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import DeviceError, InputError
from memorywam_runtime.files import read_file

__all__ = ["LiveHardware", "MakerLimits", "read_limits"]

_READY_S = 60.0
"""For the driver to open: LeRobot imports torch, which takes a Jetson many seconds."""


class MakerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A maker's sheet as a JSON file: one number a joint, in the contract's order and units."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    """Greatest by the maker; half of it is used."""
    acceleration: tuple[float, ...]
    step: tuple[float, ...] | None = None
    home: tuple[float, ...] | None = None


def read_limits(path: Path, contract: InferenceContract) -> tuple[JointLimits, MakerLimits]:
    """Return the limits of a file, and the file's own words.

    Raises:
        InputError: it cannot be read, is of another form, or fits other joints.
    """
    try:
        sheet = msgspec.json.decode(read_file(path, 1 << 20), type=MakerLimits)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: {error}; expected lower, upper, velocity and acceleration, each with one "
            "number a joint"
        ) from error
    num_joints = contract.actions.action_dim
    if len(sheet.lower) != num_joints:
        raise InputError(
            f"{path} is of {len(sheet.lower)} joints; expected the contract's {num_joints}: "
            f"{', '.join(contract.actions.names) or 'joint_0, joint_1, ...'}"
        )
    limits = joint_limits_from_maker(
        sheet.lower,
        sheet.upper,
        sheet.velocity,
        sheet.acceleration,
        units=contract.actions.units,
        step=sheet.step,
    )
    return limits, sheet


class LiveHardware:
    """A `LiveRobot`: nobody resets the table, and nobody judges."""

    def __init__(
        self,
        driver: str,
        cameras: Sequence[CameraSpec],
        contract: InferenceContract,
        *,
        limits: Path,
        job: Job,
        is_shadow: bool = False,
    ) -> None:
        """Start the supervisor, and then the cameras.

        Args:
            driver: `python:MODULE:FUNCTION[:TEXT]` or `lerobot:TYPE[,KEY=VALUE...]`.
            cameras: One for each of the contract's.
            contract: Of the policy.
            limits: A maker's sheet.
            job: What is to be done.
            is_shadow: Somebody else moves the arms; here they are only watched.

        Raises:
            InputError: cameras or limits do not fit the contract.
            MissingPartError: a part that is not installed.
            DeviceError: arms or cameras do not start.
        """
        wanted, given = contract.observations.cameras, [spec.name for spec in cameras]
        if sorted(wanted) != sorted(given):
            raise InputError(
                f"found cameras {', '.join(given) or 'none'}; expected {', '.join(wanted)}: name "
                "each with --cameras NAME=realsense:SERIAL"
            )
        self.limits, sheet = read_limits(limits, contract)
        self.signal = signal_from_specs(cameras)
        self._job, self._is_shadow = job, is_shadow
        self._cameras: list[ThreadedCamera] = []
        home = None if sheet.home is None else np.array(sheet.home)
        self.arm = SupervisedArm.open(
            driver,
            self.limits,
            actions=contract.actions,
            home=home,
            is_watching=is_shadow,
            ready_s=_READY_S,
        )
        try:
            self.body = (ShadowBody if is_shadow else SupervisedBody)(self.arm)
            self._cameras = list(cameras_from_specs(cameras).values())
            with ThreadPoolExecutor(len(self._cameras)) as pool:  # each may take seconds
                list(pool.map(ThreadedCamera.start, self._cameras))
        except BaseException:
            self.close()
            raise

    @property
    def cameras(self) -> Sequence[ThreadedCamera]:
        """Return its cameras."""
        return self._cameras

    def start(self, seed: int) -> Job:
        """Let the arms follow from where they are held; put them at the start pose before.

        Raises:
            DeviceError: the arms are not holding.
        """
        if not self.arm.wait_for("holding", 5.0):
            raise DeviceError(f"the arms are {self.arm.mode}: {self.arm.reason}; expected holding")
        for camera in self._cameras:
            camera.permit_reset(is_permitted=True)
        if not self._is_shadow:
            held = np.zeros(len(self.limits.lower))
            self.body.sent(held)
            self.arm.start(held)
        return self._job

    def begun(self) -> None:
        """Let no camera be reset from now on: without eyes for long, arms must not move."""
        for camera in self._cameras:
            camera.permit_reset(is_permitted=False)

    def verdict(self) -> Verdict:
        """Return no judgement."""
        return Verdict(success=None)

    def close(self) -> None:
        """Stop the cameras, then the arms."""
        for camera in self._cameras:
            camera.close()
        self.arm.close()
