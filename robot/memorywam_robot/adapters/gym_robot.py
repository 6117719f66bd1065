"""A gymnasium environment behind the protocols that the loop drives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.cameras.source_camera import image_from_source
from memorywam_robot.robot import Job, Verdict
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError

__all__ = ["DEFAULT_STEPS", "GymRobot"]

DEFAULT_STEPS = 400
"""Environment steps of an episode, where neither the environment nor `steps` says."""

_RENDERED = (480, 640)
"""Rows and columns of a view that the observation lacks."""


class GymRobot:
    """One environment with `pixels` and `agent_pos` in its observation; time is its steps."""

    def __init__(
        self,
        env: Any,  # noqa: ANN401
        contract: InferenceContract,
        views: Mapping[str, str],
        *,
        instruction: str = "",
        num_steps: int = 0,
    ) -> None:
        """Take an environment whose joints are in the contract's order and units.

        Args:
            env: Of gymnasium; closed by `close`.
            contract: What the policy sees and moves.
            views: The contract's cameras to the environment's; what its observation lacks is
                rendered by its physics, if it has one.
            instruction: The job.
            num_steps: Control steps of an episode; as many as the environment has by default.

        Raises:
            InputError: its action, rate or cameras do not fit the contract.
        """
        self._env, self._contract, self._views = env, contract, dict(views)
        self._instruction = instruction
        shape = tuple(env.action_space.shape or ())
        if shape != (contract.actions.action_dim,):
            raise InputError(
                f"this environment's actions are {list(shape)}; expected "
                f"[{contract.actions.action_dim}]"
            )
        self._repeats = _repeats(env, contract.observations.control_hz)
        longest = getattr(env.spec, "max_episode_steps", None) or DEFAULT_STEPS
        self._num_steps = num_steps or longest // self._repeats
        self._observed: Mapping[str, Any] = {}
        self._info: Mapping[str, Any] = {}
        self._num_done = 0
        self._is_terminated = self._is_over = False
        self.best_reward = -np.inf
        """Highest of a step in this episode."""

    @property
    def arm(self) -> "GymRobot":
        """Return its joints."""
        return self

    @property
    def cameras(self) -> "GymRobot":
        """Return its eyes."""
        return self

    def start(self, seed: int) -> Job:
        """Reset the environment to a seed.

        Raises:
            InputError: its observation does not fit the contract.
        """
        self._observed, self._info = self._env.reset(seed=seed)
        if not isinstance(self._observed, Mapping) or not {"pixels", "agent_pos"} <= set(
            self._observed
        ):
            raise InputError(
                "this environment's observation has no 'pixels' and 'agent_pos'; make it with "
                "obs_type=pixels_agent_pos, or wrap it"
            )
        self._num_done, self._is_terminated, self._is_over = 0, False, False
        self.best_reward = -np.inf
        self.state()
        self.images()
        return Job(instruction=self._instruction, num_steps=self._num_steps)

    def state(self) -> NDArray[np.float64]:
        """Return the joint positions [state_dim] after the last step.

        Raises:
            InputError: as many as the contract does not have.
        """
        state = np.array(self._observed["agent_pos"], np.float64)
        if state.shape != (self._contract.actions.state_dim,):
            raise InputError(
                f"this environment's agent_pos is {list(state.shape)}; expected "
                f"[{self._contract.actions.state_dim}]"
            )
        return state

    def images(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return every camera's view [rows, columns, 3] after the last step.

        Raises:
            InputError: a camera that the environment does not have.
        """
        return {name: self._view(camera) for name, camera in self._views.items()}

    def command(self, action: NDArray[np.floating]) -> None:
        """Step with joint targets [action_dim] for one control period; nothing once it is over.

        Not clipped to the action space: gym-aloha's says -1 to 1, where its joints need more.

        Raises:
            InputError: a wrong shape or a number that is not finite; nothing moves.
        """
        target = np.array(action, np.float64)
        if target.shape != self._env.action_space.shape or not np.isfinite(target).all():
            raise InputError(
                f"found an action of shape {list(target.shape)}, finite: "
                f"{bool(np.isfinite(target).all())}; expected {self._env.action_space.shape}"
            )
        for _ in range(self._repeats):
            if self._is_over:
                return
            self._observed, reward, terminated, truncated, self._info = self._env.step(target)
            self._num_done += 1
            self.best_reward = max(self.best_reward, float(reward))
            self._is_terminated = bool(terminated)
            self._is_over = self._is_terminated or bool(truncated)

    def hold(self) -> None:
        """Do nothing: the environment stands still by itself."""

    def verdict(self) -> Verdict:
        """Say whether it succeeded: its `is_success`, or that it terminated."""
        success = bool(self._info.get("is_success", self._is_terminated))
        return Verdict(
            success=success,
            remark=f"best reward {self.best_reward:g} in {self._num_done} steps",
        )

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _view(self, camera: str) -> NDArray[np.uint8]:
        """Return what one camera sees now."""
        pixels = self._observed["pixels"]
        if isinstance(pixels, Mapping) and camera in pixels:
            return image_from_source(lambda: pixels[camera])
        # gym-aloha, built on dm_control, keeps the world there and shows one camera of it.
        physics = getattr(getattr(self._env.unwrapped, "_env", None), "physics", None)
        known = sorted(pixels) if isinstance(pixels, Mapping) else []
        if physics is None:
            raise InputError(f"no camera '{camera}'; this environment has {known}")
        try:
            rows, columns = _RENDERED
            return image_from_source(lambda: physics.render(rows, columns, camera_id=camera))
        except Exception as error:
            raise InputError(f"no camera '{camera}' beside {known}: {error}") from error


def _repeats(env: Any, control_hz: float) -> int:  # noqa: ANN401
    """Return how many of the environment's steps make one of the contract's."""
    env_hz = env.metadata.get("render_fps") or control_hz
    repeats = round(env_hz / control_hz)
    if abs(repeats * control_hz - env_hz) > 0.01 * env_hz:
        raise InputError(
            f"this environment makes {env_hz} steps a second and the contract {control_hz}; "
            "expected a whole multiple"
        )
    return repeats
