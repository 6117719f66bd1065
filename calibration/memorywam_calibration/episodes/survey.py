"""One look at an episode before anything is replayed: how long it is and what happens in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.frames import frames_of
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError

__all__ = ["PHASES", "Phase", "Survey", "surveyed"]

Phase = Literal["begin", "middle", "end", "gripper"]
PHASES: tuple[Phase, ...] = ("begin", "middle", "end", "gripper")
"""No recording says what the arms are at; thirds of the episode and the grippers stand for it."""
_NEAR_FRAMES = 3
"""A frame this near to a gripper's move is of the phase gripper."""
_GRIPPER_MOVE = 0.5
"""Of what a gripper's joint spans in the episode, between two frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What an episode holds."""

    episode: Episode
    instruction: str
    num_frames: int
    """That memory takes of it."""
    gripper_frames: frozenset[int]
    """Near which a gripper opens or closes."""

    def phase(self, frame: int) -> Phase:
        """Return what a frame counts as."""
        if frame in self.gripper_frames:
            return "gripper"
        return PHASES[min(3 * frame // self.num_frames, 2)]


def surveyed(
    episodes: Sequence[Episode],
    contract: InferenceContract,
    *,
    instruction: str | None = None,
    cameras: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Survey]:
    """Look at every observation of some episodes.

    Args:
        episodes: For calibration.
        contract: Whose grid they are on.
        instruction: Another one than was recorded.
        cameras: The contract's camera to the recording's name for it, where they differ.
        tell: Called with what is looked at.

    Raises:
        InputError: an episode without a frame, joints that are not finite, or a camera that
            shows nothing or the same in all of them.
    """
    found = []
    watches = {camera: _Watch() for camera in contract.observations.cameras}
    for number, episode in enumerate(episodes, start=1):
        tell(f"reads {episode.name}, {number} of {len(episodes)} episodes")
        states = []
        for frame in frames_of(episode.recording, contract, cameras):
            states.append(frame.state)
            for seen in frame.observations:
                for camera, image in seen.images.items():
                    watches[camera].see(image)
        if not states:
            raise InputError(
                f"{episode.recording.path} has no frame; expected an observation at step 0 at "
                "least: it was cut off before it began; remove it"
            )
        found.append(
            Survey(
                episode=episode,
                instruction=instruction or episode.recording.header.instruction,
                num_frames=len(states),
                gripper_frames=_gripper_frames(np.array(states), contract),
            )
        )
    for camera, watch in watches.items():
        if complaint := watch.complaint():
            raise InputError(
                f"camera '{camera}' {complaint} in all of the {watch.num_images} images; expected "
                "what the robot sees: a cover, a dead camera or a placeholder calibrates nothing; "
                "record again"
            )
    return found


class _Watch:
    """Is a camera worth looking through?"""

    def __init__(self) -> None:
        self.num_images = 0
        self._first: bytes | None = None
        self._is_flat = True
        self._is_still = True

    def see(self, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        """Look at an image [rows, columns, 3]."""
        self.num_images += 1
        if self._is_flat:
            self._is_flat = bool((image == image[0, 0]).all())
        if self._is_still:
            content = image.tobytes()
            self._first = content if self._first is None else self._first
            self._is_still = content == self._first

    def complaint(self) -> str | None:
        """Return what is wrong, or None."""
        if self.num_images and self._is_flat:
            return "shows one colour"
        return "shows the same picture" if self._is_still and self.num_images > 1 else None


def _gripper_frames(
    states: np.ndarray[tuple[int, ...], np.dtype[np.float64]], contract: InferenceContract
) -> frozenset[int]:
    """Return the frames near which a gripper moves, of states [frames, state_dim]."""
    units = contract.actions.units
    joints = [k for k, unit in enumerate(units) if unit == "fraction" and k < states.shape[1]]
    if not joints or len(states) < 2:
        return frozenset()
    fingers = states[:, joints]
    span = np.maximum(fingers.max(axis=0) - fingers.min(axis=0), 0.1)
    moved = np.flatnonzero((np.abs(np.diff(fingers, axis=0)) > _GRIPPER_MOVE * span).any(axis=1))
    near = {int(at) + off for at in moved for off in range(1 - _NEAR_FRAMES, _NEAR_FRAMES + 1)}
    return frozenset(frame for frame in near if 0 <= frame < len(states))
