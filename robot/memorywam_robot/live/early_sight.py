"""Images of the frame to come, given to the worker as their slots are settled."""

from memorywam_robot.live.group_observations import observation_of_slot
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.state_ring import StateRing
from memorywam_robot.live.tasks import See

__all__ = ["EarlySight"]


class EarlySight:
    """Gives each image once, in the order of its frame, and never the last: that commits it.

    A slot that has its images keeps them, whatever comes late, twice or not at all; and none is
    given before all slots of its frame before it have theirs. So what was given early is what the
    frame is committed with, and only the end of its epoch makes it void.
    """

    def __init__(self, parts: Parts, states: StateRing, steps_per_image: int, epoch: int) -> None:
        """Have given nothing.

        Args:
            parts: Of the episode.
            states: Joint states by time.
            steps_per_image: Environment steps from slot to slot.
            epoch: That tasks belong to.
        """
        self._parts, self._states = parts, states
        self._steps_per_image, self._epoch = steps_per_image, epoch
        self._frame = self._num_given = 0

    def look(self) -> None:
        """Give what has been settled since the last call."""
        shape = self._parts.grid.shape
        settled = self._parts.grid.settled()
        if settled and shape.group(settled[0][0]) != self._frame:
            self._frame, self._num_given = shape.group(settled[0][0]), 0
        for slot, images in settled[self._num_given :]:
            seen, _ = observation_of_slot(slot, images, self._states, self._steps_per_image)
            self._parts.worker.put(See(epoch=self._epoch, observation=seen))
            self._num_given += 1

    def num_given(self, frame: int) -> int:
        """Return how many images of a frame were given."""
        return self._num_given if frame == self._frame else 0
