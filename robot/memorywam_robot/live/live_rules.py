"""Numbers of the loop that keeps time, and where each comes from."""

from dataclasses import dataclass

from memorywam_robot.live.chunks import SeamKind
from memorywam_runtime.errors import InputError

__all__ = ["LiveRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRules:
    """All numbers of the loop.

    A number with a source follows the practice named there; the others are choices of this project,
    to be changed where a robot proves them wrong.
    """

    tick_hz: float = 50.0
    """Commands a second; from ALOHA, and within ros2_control's 50 to 100 Hz."""
    seam: SeamKind = "inpaint"
    """How a chunk joins the one before."""
    num_blended: int = 4
    """Steps over which `blend` mixes; from 3 to 5 in LeRobot's aggregations."""
    is_eager: bool = True
    """Encode each image of a frame as it comes, and not all of them with the last."""
    is_shadow: bool = False
    """Somebody else moves the arms: nothing is sent, and no jump at a seam drops a chunk."""
    is_linear: bool = True
    """Go to each action in a straight line over its step; else at once, as fast as limits let it.
    """
    starved_ms: float = 500.0
    """Without an action beyond the planned pauses, after which the episode is aborted. From: an
    axol arm's command time-out of 300 ms."""
    blind_hold_ms: float = 150.0
    """Without a good frame of a camera, or three of its periods: the arms hold. From: 4 frames at
    30 Hz."""
    blind_stop_ms: float = 500.0
    """The same: the episode ends. From: LeRobot's and OpenRAL's 500 ms."""
    gate_timeout_s: float = 30.0
    """For cameras to settle and arms to stand still before the first frame; choice."""
    first_chunk_s: float = 10.0
    """From the first frame to the first chunk; choice."""
    still_rad: float = 0.005
    """Arms that moved less than this in `still_ms` stand still; choice."""
    still_ms: float = 200.0
    """Choice."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no rule."""
        numbers = (
            "tick_hz",
            "starved_ms",
            "blind_hold_ms",
            "blind_stop_ms",
            "gate_timeout_s",
            "first_chunk_s",
            "still_rad",
        )
        for name in (*numbers, "still_ms"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0")
