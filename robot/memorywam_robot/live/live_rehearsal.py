"""A dry run of the loop that keeps time: eyes open, arms held, one chunk that nobody executes."""

import time
from dataclasses import dataclass

import numpy as np

from memorywam_robot.live.camera_rates import needed_hz, running_rates, slow_cameras
from memorywam_robot.live.grid_rules import grid_shape_from_contract
from memorywam_robot.live.live_robot import LiveRobot
from memorywam_robot.live.load import Load
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy

__all__ = ["LiveRehearsal", "rehearse_live"]

_SETTLE_S = 15.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRehearsal:
    """What was found."""

    cameras: dict[str, str]
    """By name: `ok`, or what keeps it from being that."""
    arms: str
    """What their guard does: `holding` where all is well."""
    is_powered: bool
    first_step_rad: float | None
    """Largest distance from a joint to the first action; None if a camera shows nothing."""
    load: str

    @property
    def is_well(self) -> bool:
        """Could an episode start?"""
        eyes = all(state == "ok" for state in self.cameras.values())
        return eyes and self.arms == "holding" and self.is_powered


def rehearse_live(
    policy: Policy, robot: LiveRobot, load: Load, *, instruction: str, seed: int = 0
) -> LiveRehearsal:
    """Look through every camera, ask the arms how they are, and make one chunk; move nothing.

    Raises:
        InputError: images that do not fit the contract.
    """
    shape = grid_shape_from_contract(policy.contract)
    slow = slow_cameras(shape, running_rates(robot.cameras, needed_hz(shape)))
    until_s = time.monotonic() + _SETTLE_S
    cameras = _seen(robot) | slow
    while set(cameras.values()) - {"ok", *slow.values()} and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        cameras = _seen(robot) | slow
    state = np.zeros(policy.contract.actions.state_dim)
    robot.body.state(state)
    apart = None
    newest = {camera.name: camera.newest() for camera in robot.cameras}
    images = {name: frame.image for name, frame in newest.items() if frame is not None}
    if len(images) == len(newest):
        policy.reset(instruction, seed=seed)
        policy.remember([Observation(images=images, state=state, step=0)])
        apart = float(np.abs((policy.act(state)[0] - state) * robot.limits.is_angle).max())
    return LiveRehearsal(
        cameras=cameras,
        arms=robot.body.mode,
        is_powered=robot.arm.status().is_powered,
        first_step_rad=apart,
        load=load.sentence(),
    )


def _seen(robot: LiveRobot) -> dict[str, str]:
    """Return how each camera does."""
    found = {}
    for camera in robot.cameras:
        newest = camera.newest()
        doubt = "no frame" if newest is None else newest.doubt
        found[camera.name] = camera.complaint or doubt or camera.state
    return found
