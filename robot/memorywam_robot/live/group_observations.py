"""From a committed group of camera frames to the observations that make a frame of memory."""

from collections.abc import Mapping

from memorywam_robot.live.grid_rules import CameraFrame, CommitGroup
from memorywam_robot.live.state_ring import StateRing
from memorywam_runtime.observation import Observation

__all__ = ["observation_of_slot", "observations_of_group"]


def observations_of_group(
    group: CommitGroup, states: StateRing, steps_per_image: int
) -> list[tuple[Observation, int]]:
    """Return each slot's observation and when it was captured.

    Args:
        group: Complete, by slot.
        states: Joint states by time: each image gets that of its own moment.
        steps_per_image: Of the contract.
    """
    return [
        observation_of_slot(slot, images, states, steps_per_image)
        for slot, images in zip(group.slots, group.sets, strict=True)
    ]


def observation_of_slot(
    slot: int, images: Mapping[str, CameraFrame], states: StateRing, steps_per_image: int
) -> tuple[Observation, int]:
    """Return a slot's observation and when it was captured.

    Args:
        slot: On the grid.
        images: One of every camera.
        states: Joint states by time.
        steps_per_image: Of the contract.
    """
    captured_ns = max(image.captured_ns for image in images.values())
    observation = Observation(
        images={name: image.image for name, image in images.items()},
        state=states.at(captured_ns),
        step=slot * steps_per_image,
    )
    return observation, captured_ns
