"""The simulated robot in real time: arms in a process of their own, cameras in threads of ours."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.camera_opening import cameras_from_specs
from memorywam_robot.cameras.camera_thread import ThreadedCamera
from memorywam_robot.cameras.frame_faults import FaultSchedule
from memorywam_robot.live.live_robot import ShadowBody, SupervisedBody
from memorywam_robot.robot import Job, Verdict
from memorywam_robot.sim.joint_limits import simulated_limits
from memorywam_robot.sim.mirror import WorldMirror
from memorywam_robot.sim.scene import CAMERA_SIZES
from memorywam_runtime.errors import DeviceError

__all__ = ["LiveSimulated"]


class LiveSimulated:
    """A `LiveRobot`: the world's physics follow the clock, whoever watches."""

    def __init__(
        self,
        task: str,
        cameras: Sequence[CameraSpec] = (),
        *,
        camera_hz: float = 10.0,
        faults: FaultSchedule | None = None,
        is_shadow: bool = False,
    ) -> None:
        """Start the supervisor, and then the cameras.

        Args:
            task: Of the simulator.
            cameras: How its views come here; straight from the renderer unless told.
            camera_hz: Of each of them: rendering takes a core 6 ms an image.
            faults: Of cameras of the kind `realsense-sim`.
            is_shadow: The expert moves the arms; here they are only watched.

        Raises:
            InputError: an unknown task or camera.
            MissingPartError: a part that is not installed.
            DeviceError: the arms or cameras do not start.
        """
        self._task = task
        self.signal = None
        self.limits: JointLimits = simulated_limits()
        self._is_shadow = is_shadow
        kind = "sim-expert" if is_shadow else "sim"
        self.arm = SupervisedArm.open(f"{kind}:{task}:0", self.limits, is_watching=is_shadow)
        self._mirrors: dict[str, WorldMirror] = {}
        """By camera, and the one that judges."""
        self._cameras: list[ThreadedCamera] = []
        try:
            self._judge = self._mirrors[""] = WorldMirror(task, self.arm.link.page)
            self.body = (ShadowBody if is_shadow else SupervisedBody)(self.arm)
            given = {spec.name: spec for spec in cameras}
            specs = [given.get(n, CameraSpec(name=n, kind="source")) for n in CAMERA_SIZES]
            made = cameras_from_specs(
                specs,
                sources={name: self._source(name) for name in CAMERA_SIZES},
                hz=camera_hz,
                faults=faults,
            )
            self._cameras = list(made.values())
            for camera in self._cameras:
                camera.start()
        except BaseException:
            self.close()
            raise

    @property
    def cameras(self) -> Sequence[ThreadedCamera]:
        """Return its three cameras."""
        return self._cameras

    def start(self, seed: int) -> Job:
        """Put the world at the beginning of a seed's episode; the arms follow from now on.

        Raises:
            InputError: a seed below 0.
            DeviceError: the arms do not come to rest or do not start.
        """
        if not self.arm.wait_for("holding", 5.0):
            raise DeviceError(f"the arms are {self.arm.mode}: {self.arm.reason}; expected holding")
        for camera in self._cameras:
            camera.permit_reset(is_permitted=True)
        self._judge.reset(seed)
        if not self._is_shadow:
            held = np.zeros(len(self.limits.lower))
            self.body.state(held)
            self.arm.start(held)
        script = self._judge.world.script
        return Job(instruction=script.instruction, num_steps=script.num_steps)

    def begun(self) -> None:
        """Let the script run."""
        self._judge.ask_begin()
        for camera in self._cameras:
            camera.permit_reset(is_permitted=False)

    def verdict(self) -> Verdict:
        """Say which button was pressed first."""
        self._judge.refresh()
        return self._judge.verdict()

    def close(self) -> None:
        """Stop the cameras, then the arms."""
        for camera in self._cameras:
            camera.close()
        self.arm.close()
        for mirror in self._mirrors.values():
            mirror.close()

    def _source(self, name: str) -> Callable[[], NDArray[np.uint8]]:
        """Return a view of the newest pose; each camera's thread has a world of its own."""

        def view() -> NDArray[np.uint8]:
            if name not in self._mirrors:  # a renderer belongs to the thread that made it
                self._mirrors[name] = WorldMirror(self._task, self.arm.link.page)
            mirror = self._mirrors[name]
            mirror.refresh()
            image = mirror.world.image(name)
            mirror.world.release_thread()
            return image

        return view
