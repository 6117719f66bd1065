"""What a worker is asked to do, and what it tells: tasks down, events up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.observation import Observation

__all__ = [
    "Act",
    "Begin",
    "Begun",
    "ChunkLost",
    "ChunkMade",
    "ChunkReplaced",
    "Event",
    "Failed",
    "Finish",
    "Finished",
    "FrameRemembered",
    "Instruct",
    "Remember",
    "See",
    "Task",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begin:
    """Forget everything, and start an episode."""

    epoch: int
    instruction: str
    seed: int
    max_steps: int
    begun_after: int | None = None
    """Steps of an episode that another instruction lets begin anew; None where a new one begins."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class See:
    """Encode an observation of the next frame that is not its last."""

    epoch: int
    observation: Observation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Remember:
    """Write a frame to memory."""

    epoch: int
    frame: int
    observations: tuple[Observation, ...]
    num_seen: int = 0
    """The first of these, which were seen before."""
    executed: NDArray[np.float64] | None = None
    """[horizon, action_dim] since the frame before, where the contract keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Act:
    """Make a chunk after the newest frame."""

    epoch: int
    frame: int
    """The one whose observation it is made for."""
    requested_at: int
    """Of the action queue."""
    state: NDArray[np.float64]
    prefix: NDArray[np.float64] | None = None
    """Actions [d, action_dim] that it must begin with."""
    noise: NDArray[np.float64] | None = None
    """Standard normal [horizon, action_dim]; the policy draws its own unless told."""
    attempt: int = 0
    """1 where the first chunk of this frame was not to be used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instruct:
    """Take another instruction, with memory as it is; a chunk under way is given up."""

    epoch: int
    instruction: str
    step: int = 0
    """Of the episode's, all told, that were over."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finish:
    """The episode is over: what was begun is brought to its end, and nothing else begun."""

    epoch: int


Task = Begin | See | Remember | Act | Instruct | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Memory is empty and the instruction in force."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Nothing more of this epoch is done: memory stands still."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRemembered:
    """Memory has taken a frame."""

    epoch: int
    frame: int
    took_ms: float
    waited_ms: float
    """From given to begun: less than one denoising step, if no other frame waited."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkMade:
    """A chunk is ready."""

    task: Act
    chunk: NDArray[np.float64]
    took_ms: float
    """From begun to ready, with whatever memory took in between."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkLost:
    """A chunk came out unusable, such as with numbers that are not finite."""

    task: Act
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkReplaced:
    """A chunk was given up before its last step: another was asked for, or another instruction."""

    task: Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task failed; nothing more of its epoch is done."""

    epoch: int
    reason: str


Event = Begun | FrameRemembered | ChunkMade | ChunkLost | ChunkReplaced | Finished | Failed
