"""The simulated robot: reset to a script, step by joint targets, observe through its cameras."""

# mujoco's compiled module names nothing to a type checker.
# pyright: reportAttributeAccessIssue=false

import os
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.sim.tasks import (
    BUTTONS,
    HORIZON,
    LAMPS,
    Script,
    frame_from_step,
    script_from_seed,
)
from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.observation import Observation

_REMEDY = (
    "expected EGL: set MUJOCO_GL=egl, pip install 'memorywam[sim]', and on Debian "
    "apt-get install libegl1 libgl1-mesa-dri"
)

try:
    import mujoco

    from memorywam_robot.sim import scene
except (ImportError, AttributeError, OSError, RuntimeError) as error:
    raise MissingPartError(f"the simulator cannot start: {error}; {_REMEDY}") from error

__all__ = ["World"]


class World:
    """One simulated table; reuse it for many seeds, because renderers are dear to make."""

    def __init__(self, task: str, seed: int = 0, *, renders: bool = True) -> None:
        """Build the scene and reset to a seed; without pictures, where nobody looks.

        Raises:
            InputError: an unknown task or an unusable seed.
            MissingPartError: no EGL to render with.
        """
        self._task = task
        self._script = script_from_seed(task, seed)
        self._model = scene.model_from_nothing()
        self._data = mujoco.MjData(self._model)
        self._renderers: dict[tuple[str, int, int], Any] = {}
        self._joints = np.array(
            [self._model.joint(name).qposadr[0] for name in scene.JOINT_NAMES if _is_arm(name)]
        )
        self._fingers = np.array(
            [self._model.joint(f"{side}_finger0").qposadr[0] for side in scene.SIDES]
        )
        self._buttons = np.array(
            [self._model.joint(f"button_{name}").qposadr[0] for name in BUTTONS]
        )
        self._home_places = [self._model.body(f"button_{name}").pos.copy() for name in BUTTONS]
        self.restart(seed)
        if renders:
            self.observe()

    def __enter__(self) -> "World":
        """Return the world."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the renderers."""
        self.close()

    def close(self) -> None:
        """Free the renderers; closing twice is fine."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def reset(self, seed: int | None = None) -> Observation:
        """Start the episode of a seed (the same one again if None) and return what is seen."""
        self.restart(seed)
        return self.observe()

    def restart(self, seed: int | None = None) -> None:
        """Start the episode of a seed (the same one again if None) without looking."""
        if seed is not None:
            self._script = script_from_seed(self._task, seed)
        mujoco.mj_resetData(self._model, self._data)
        for name, place, offset in zip(
            BUTTONS, self._home_places, self._script.button_offsets, strict=True
        ):
            self._model.body(f"button_{name}").pos[:2] = place[:2] + np.array(offset)
        self._step_count = self._substep = 0
        self._first_pressed = -1
        self._pressed_early = False
        home = self.home
        self._data.qpos[self._joints] = home[_ARM_INDICES]
        self._set_targets(home)
        self._data.qpos[self._fingers] = self._fingers_from(home)
        for side, opening in zip(scene.SIDES, self._fingers_from(home), strict=True):
            self._data.joint(f"{side}_finger1").qpos[0] = opening
        self._light()
        mujoco.mj_forward(self._model, self._data)

    @property
    def script(self) -> Script:
        """What chance decided about this episode."""
        return self._script

    @property
    def instruction(self) -> str:
        """The task in words."""
        return self._script.instruction

    @property
    def home(self) -> NDArray[np.float64]:
        """Home pose [14] of this episode, rad and gripper fraction."""
        home = scene.HOME.copy()
        home[_ARM_INDICES] += np.array(self._script.home_offsets)
        return home

    @property
    def state(self) -> NDArray[np.float64]:
        """Joint positions [14]: rad, and gripper fraction 0 shut to 1 open."""
        state = np.empty(14)
        state[_ARM_INDICES] = self._data.qpos[self._joints]
        state[_GRIPPER_INDICES] = self._data.qpos[self._fingers] / scene.GRIPPER_TRAVEL_M
        return state

    @property
    def step_count(self) -> int:
        """Environment steps since reset."""
        return self._step_count

    @property
    def frame_index(self) -> int:
        """Latent frame that an image taken now belongs to."""
        return frame_from_step(self._step_count)

    @property
    def is_done(self) -> bool:
        """Is the script at its end?"""
        return self._step_count >= self._script.num_steps

    @property
    def is_success(self) -> bool:
        """Was the target the first button pressed, and pressed after the go lamp?"""
        return self._first_pressed == self._script.target and not self._pressed_early

    @property
    def first_pressed(self) -> int:
        """Index of the first button pressed, -1 if none."""
        return self._first_pressed

    def step(self, action: NDArray[np.floating]) -> None:
        """Move for 0.1 s towards absolute joint targets [14], clipped to the joints' limits.

        Raises:
            InputError: a wrong shape or a number that is not finite; nothing moves.
        """
        try:
            targets = np.asarray(action, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"action: found {action!r}, expected 14 finite joint targets: {error}"
            ) from error
        if targets.shape != (14,) or not np.isfinite(targets).all():
            raise InputError(
                f"action: found shape {list(targets.shape)}, finite: "
                f"{bool(np.isfinite(targets).all())}; expected 14 finite joint targets"
            )
        self._set_targets(targets)
        self.advance(scene.SUBSTEPS)

    def aim(self, target: NDArray[np.float64]) -> None:
        """Set joint targets [14], finite, without letting time pass."""
        self._set_targets(target)

    def advance(self, num_substeps: int, *, is_script_running: bool = True) -> None:
        """Let so many physics steps pass; steps are counted and lamps lit where they begin."""
        for _ in range(num_substeps):
            if is_script_running:
                if self._substep == 0:
                    self._step_count += 1
                    self._light()
                self._substep = (self._substep + 1) % scene.SUBSTEPS
            mujoco.mj_step(self._model, self._data)
            self._watch_buttons()

    @property
    def pose(self) -> NDArray[np.float64]:
        """Where everything that moves is [nq]; a view that the next physics step overwrites."""
        positions: NDArray[np.float64] = self._data.qpos
        return positions

    @property
    def is_pressed_early(self) -> bool:
        """Was the first button pressed before the go lamp?"""
        return self._pressed_early

    def show(
        self,
        pose: NDArray[np.float64],
        *,
        step_count: int,
        first_pressed: int,
        is_pressed_early: bool,
    ) -> None:
        """Look like another world of this script, moments after its `advance`; no time passes."""
        self._step_count, self._first_pressed = step_count, first_pressed
        self._pressed_early = is_pressed_early
        self._data.qpos[:] = pose
        self._light()
        mujoco.mj_forward(self._model, self._data)

    def observe(self) -> Observation:
        """Render the three cameras now."""
        images = {name: self.image(name) for name in scene.CAMERA_SIZES}
        return Observation(images=images, state=self.state, step=self._step_count)

    def image(self, camera: str) -> NDArray[np.uint8]:
        """Render one camera now: RGB [rows, columns, 3]."""
        return self._render(camera, *scene.CAMERA_SIZES[camera])

    def render_film(self, height: int = 360, width: int = 480) -> NDArray[np.uint8]:
        """Return a picture [height, width, 3] for people."""
        return self._render(scene.FILM_CAMERA, height, width)

    def tip_and_jacobian(
        self, side: str, joints: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return a hand's tip [3] (m), pointing direction [3] and Jacobian [6, 6] in a pose.

        Args:
            side: `left` or `right`.
            joints: The arm's six joint angles, rad.
        """
        data = mujoco.MjData(self._model)
        first = 6 * scene.SIDES.index(side)
        data.qpos[self._joints[first : first + 6]] = joints
        mujoco.mj_forward(self._model, data)
        site = data.site(f"{side}_tip")
        linear, angular = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        mujoco.mj_jacSite(self._model, data, linear, angular, site.id)
        columns = [
            self._model.joint(name).dofadr[0]
            for name in scene.JOINT_NAMES
            if _is_arm(name) and name.startswith(side)
        ]
        jacobian = np.concatenate((linear[:, columns], angular[:, columns]))
        return site.xpos.copy(), site.xmat.reshape(3, 3)[:, 0].copy(), jacobian

    def button_top(self, index: int) -> NDArray[np.float64]:
        """Return the centre of an unpressed button's top [3], metres."""
        x, y = self._model.body(f"button_{BUTTONS[index]}").pos[:2]
        return np.array([x, y, scene.BUTTON_TOP_M])

    def release_thread(self) -> None:
        """Let go of this thread's drawing context.

        One that is current in a thread that is gone can be freed by nobody.
        """
        if self._renderers and os.environ.get("MUJOCO_GL", "egl") == "egl":
            from mujoco import egl

            nothing = (egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_CONTEXT)
            egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, *nothing)

    def _render(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """Return one camera's picture [height, width, 3] without shadows or reflections."""
        key = (camera, height, width)
        if key not in self._renderers:
            self._renderers[key] = self._new_renderer(height, width)
        renderer = self._renderers[key]
        renderer.update_scene(self._data, camera)
        picture: NDArray[np.uint8] = renderer.render()
        return picture

    def _new_renderer(self, height: int, width: int) -> Any:  # noqa: ANN401 - MuJoCo has no types
        """Make a renderer; without shadows a picture costs a fifth (8.5, not 43 ms at 480x640)."""
        self._model.vis.global_.offheight = max(self._model.vis.global_.offheight, height)
        self._model.vis.global_.offwidth = max(self._model.vis.global_.offwidth, width)
        try:
            renderer = mujoco.Renderer(self._model, height, width, 200)
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            raise MissingPartError(f"the simulator cannot render: {error}; {_REMEDY}") from error
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer

    def _light(self) -> None:
        """Light the lamps that the script has lit in the current frame.

        They change between two images of the grid, not at one: in real time an image is never
        taken exactly at its step, and those that make a frame must show the same lamps.
        """
        lit = self._script.lit_lamps(frame_from_step(max(0, self._step_count - _LAMP_DELAY)))
        for lamp in LAMPS:
            colour = scene.LAMP_COLOURS[lamp] if lamp in lit else scene.DARK
            self._model.geom(f"lamp_{lamp}").rgba[:3] = colour

    def _fingers_from(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return both hands' finger openings [2], metres, of an action [14]."""
        opening: NDArray[np.float64] = np.clip(action[_GRIPPER_INDICES], 0, 1)
        return opening * scene.GRIPPER_TRAVEL_M

    def _set_targets(self, action: NDArray[np.float64]) -> None:
        """Send joint targets to the servos."""
        control = self._data.ctrl
        for index, name in enumerate(scene.JOINT_NAMES):
            if _is_arm(name):
                low, high = self._model.actuator(name).ctrlrange
                control[self._model.actuator(name).id] = np.clip(action[index], low, high)
        for side, opening in zip(scene.SIDES, self._fingers_from(action), strict=True):
            for finger in range(2):
                control[self._model.actuator(f"{side}_finger{finger}").id] = opening

    def _watch_buttons(self) -> None:
        """Note the first button that is pressed, and whether that was before the go lamp."""
        if self._first_pressed >= 0:
            return
        pressed = np.flatnonzero(self._data.qpos[self._buttons] < -scene.PRESSED_DEPTH_M)
        if len(pressed):
            self._first_pressed = int(pressed[0])
            self._pressed_early = self._step_count <= HORIZON * self._script.go_frame


def _is_arm(name: str) -> bool:
    """Is this one of the twelve arm joints?"""
    return not name.endswith("gripper")


_LAMP_DELAY = 2
"""Steps; half of the four from one image to the next."""
_GRIPPER_INDICES = np.array([6, 13])
_ARM_INDICES = np.array([i for i in range(14) if i not in (6, 13)])
