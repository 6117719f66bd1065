"""A recording as the frames that memory takes of it: observations on the contract's grid."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Instructed, Observed, Recording, Sent
from memorywam_runtime.recordings.recording_fit import camera_names

__all__ = ["Frame", "frames_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The observations of one latent frame, and what was done since the one before."""

    number: int
    """From 0."""
    observations: tuple[Observation, ...]
    """One at first, then a whole group, in time order, by the contract's camera names."""
    executed: NDArray[np.float64]
    """Actions [steps, action_dim] since the frame before, in the robot's units."""

    @property
    def state(self) -> NDArray[np.float64]:
        """Joint positions [state_dim] of the last observation: what a chunk is made for."""
        return self.observations[-1].state


def frames_of(
    recording: Recording, contract: InferenceContract, cameras: Mapping[str, str] | None = None
) -> Iterator[Frame]:
    """Yield the frames of an episode, as far as they are complete.

    Args:
        recording: Of any kind.
        contract: Whose grid it is.
        cameras: The contract's camera to the recording's name for it, where they differ.

    Raises:
        InputError: a camera or step that the contract needs and the recording lacks, a joint
            state that is not finite, or another instruction on the way.
    """
    names = camera_names(recording, contract, cameras)
    held: list[Observation] = []
    executed: list[NDArray[np.float64]] = []
    number, due = 0, _due_steps(contract, 0, 0)
    for event in recording.events():
        if isinstance(event, Instructed):
            raise InputError(
                f"{recording.path} has another instruction after step {event.step}; expected one "
                "for the whole episode: leave this recording out"
            )
        if isinstance(event, Sent):
            executed.append(event.action)
        elif isinstance(event, Observed) and _is_due(recording, event.observation.step, due):
            held.append(_renamed(recording, event.observation, names))
            due = due[1:]
            if not due:
                done = np.array(executed).reshape(len(executed), contract.actions.action_dim)
                yield Frame(number=number, observations=tuple(held), executed=done)
                number, due = number + 1, _due_steps(contract, number + 1, held[-1].step)
                held, executed = [], []


def _due_steps(contract: InferenceContract, number: int, last_step: int) -> tuple[int, ...]:
    """Return the environment steps at which a frame is observed."""
    if number == 0:
        return (0,)
    if contract.conventions.vae_history == "single_frame":
        return (last_step + contract.actions.horizon,)
    stride = contract.observations.steps_per_image
    return tuple(last_step + stride * (1 + k) for k in range(contract.images_per_frame))


def _is_due(recording: Recording, step: int, due: tuple[int, ...]) -> bool:
    """Does the frame take an observation of this step?"""
    if step > due[0]:
        raise InputError(
            f"{recording.path}: found an observation of step {step} and none of step {due[0]}; "
            "expected one at each step that the contract takes one: this episode was recorded "
            "with gaps, or at another rate; move it elsewhere"
        )
    return step == due[0]


def _renamed(recording: Recording, seen: Observation, names: Mapping[str, str]) -> Observation:
    """Return an observation under the contract's names for its cameras."""
    if not np.isfinite(seen.state).all():
        bad = int(np.flatnonzero(~np.isfinite(seen.state))[0])
        raise InputError(
            f"{recording.path}: joint {bad} is {seen.state[bad]} at step {seen.step}; expected "
            "finite joint positions: an encoder did not answer; move this episode elsewhere"
        )
    images = {camera: seen.images[name] for camera, name in names.items()}
    return Observation(images=images, state=seen.state, step=seen.step)
