"""Episodes of a bundle on a robot, one after the other, and what they took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memorywam_robot.loop import EpisodeResult, Subscriber, observe, run_episode
from memorywam_robot.robot import Robot
from memorywam_runtime.errors import InputError
from memorywam_runtime.memory import Visible
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.warm_up import warm_up

__all__ = [
    "PARTS",
    "Rehearsal",
    "policy_from_bundle",
    "rehearse",
    "run_episodes",
    "success_share",
    "visible_from_names",
]

PARTS = ("anchors", "window", "gists")
"""Parts of memory that can be hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a dry run found: all that an episode does, once, and no command is sent."""

    instruction: str
    num_steps: int
    num_frames: int
    remember_ms: float
    act_ms: float
    first_step_rad: float
    """Largest distance from a joint's position to the first action, rad or gripper fraction."""


def visible_from_names(hidden: str) -> Visible:
    """Return what stays visible when these comma-separated parts of memory are hidden.

    Raises:
        InputError: an unknown part; those that there are are listed.
    """
    names = [name for name in hidden.split(",") if name]
    if unknown := [name for name in names if name not in PARTS]:
        raise InputError(f"cannot hide '{unknown[0]}'; expected any of {', '.join(PARTS)}")
    return Visible(**{part: part not in names for part in PARTS})


def policy_from_bundle(
    path: Path,
    opening: Opening | None = None,
    visible: Visible | None = None,
    *,
    num_steps: int | None = None,
) -> Policy:
    """Open a bundle as a policy.

    Args:
        path: The bundle's directory.
        opening: On which backend; ONNX Runtime by default.
        visible: Parts of memory to hide, for ablations.
        num_steps: Denoising steps of a chunk; the contract's by default.

    Raises:
        BundleError: damaged, incomplete, or of another version.
        MissingPartError: the backend is unknown, or what it needs is not installed.
    """
    session = opened(path, opening or Opening(), visible)
    if num_steps is not None and session.backend.is_async:
        warm_up(session, num_steps)  # opening it has run the contract's number
    return Policy(session, num_steps=num_steps)


def run_episodes(
    policy: Policy,
    robot: Robot,
    *,
    seeds: Sequence[int],
    instruction: str | None = None,
    subscribers: Sequence[Subscriber] = (),
    told: Callable[[int], None] = lambda _: None,
) -> list[EpisodeResult]:
    """Run one episode a seed.

    Args:
        policy: Reset for every episode.
        robot: Started for every episode.
        seeds: Of the episodes.
        instruction: Another one than the robot's job has.
        subscribers: Told of every episode.
        told: Called with the number of episodes that are done, before each one.
    """
    results = []
    for done, seed in enumerate(seeds):
        told(done)
        result = run_episode(
            policy, robot, seed=seed, instruction=instruction, subscribers=subscribers
        )
        results.append(result)
    return results


def rehearse(
    policy: Policy, robot: Robot, *, seed: int, instruction: str | None = None
) -> Rehearsal:
    """Do all that an episode does, once, but move nothing.

    Raises:
        InputError: the instruction is unknown, or the robot and the bundle do not fit.
        CapacityError: memory cannot hold the whole episode.
    """
    job = robot.start(seed)
    text = job.instruction if instruction is None else instruction
    policy.reset(text, seed=seed, max_steps=job.num_steps)
    observation = observe(robot, 0)
    policy.remember([observation])
    chunk = policy.act(observation.state)
    timings = policy.session.timings
    encoding_ms = timings.milliseconds("vae_first")[-1] + timings.milliseconds("cache_update")[-1]
    return Rehearsal(
        instruction=text,
        num_steps=job.num_steps,
        num_frames=1 + job.num_steps // policy.contract.steps_per_frame,
        remember_ms=float(encoding_ms),
        act_ms=float(timings.milliseconds("chunk")[-1]),
        first_step_rad=float(np.abs(chunk[0] - observation.state).max()),
    )


def success_share(results: Sequence[EpisodeResult]) -> float | None:
    """Return the share of judged episodes that succeeded; None if none was judged."""
    judged = [result.success for result in results if result.success is not None]
    return sum(judged) / len(judged) if judged else None
