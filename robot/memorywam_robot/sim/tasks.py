"""Scripts of the simulated tasks: which lamps are lit in which frame, drawn from a seed."""

import itertools
from dataclasses import dataclass

import numpy as np

from memorywam_runtime.errors import InputError

__all__ = [
    "BUTTONS",
    "HORIZON",
    "INSTRUCTIONS",
    "LAMPS",
    "TASKS",
    "Script",
    "frame_from_step",
    "script_from_seed",
]

HORIZON = 16
"""Environment steps from one latent frame to the next; also the actions of one chunk."""
BUTTONS = ("left", "middle", "right")
LAMPS = ("cue_left", "cue_middle", "cue_right", "blink", "go")
INSTRUCTIONS: dict[str, str] = {
    "recall": "press the button whose lamp was lit at the start",
    "glimpse": "press the button whose lamp flashed once",
    "count": "count the blinks and press the button with that number",
}
TASKS = tuple(INSTRUCTIONS)

_BUTTON_JITTER_M = 0.01
_HOME_JITTER_RAD = 0.03
_NUM_ARM_JOINTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """All that chance decides about one episode."""

    task: str
    seed: int
    instruction: str
    target: int
    """Index into `BUTTONS` of the button to press."""
    cue_frames: tuple[int, ...]
    """Frames in which the cue is lit: the target's cue lamp or, for `count`, the blink lamp."""
    go_frame: int
    """First frame in which the go lamp is lit; it stays lit."""
    button_offsets: tuple[tuple[float, float], ...]
    """Displacement (x, y) of each button and its cue lamp on the table, metres."""
    home_offsets: tuple[float, ...]
    """Displacement of the twelve arm joints from the nominal home pose, rad."""

    @property
    def num_frames(self) -> int:
        """Frames that are acted on, 0 to go_frame + 1; the next one is the last seen."""
        return self.go_frame + 2

    @property
    def num_steps(self) -> int:
        """Environment steps of the episode."""
        return self.num_frames * HORIZON

    @property
    def cue_lamp(self) -> str:
        """Name of the lamp that carries the cue."""
        return "blink" if self.task == "count" else f"cue_{BUTTONS[self.target]}"

    def lit_lamps(self, frame: int) -> frozenset[str]:
        """Return the names of the lamps that are lit in this frame."""
        cue = {self.cue_lamp} if frame in self.cue_frames else set()
        return frozenset(cue | ({"go"} if frame >= self.go_frame else set()))


def frame_from_step(step: int) -> int:
    """Return the frame that an image after this step belongs to (0; then 1 for 1 to 16; ...)."""
    return -(-step // HORIZON)


def script_from_seed(task: str, seed: int) -> Script:
    """Draw the script of one episode; the same task and seed give the same script.

    Raises:
        InputError: an unknown task, or a seed that is no non-negative integer.
    """
    if task not in INSTRUCTIONS:
        raise InputError(f"unknown task '{task}'; available tasks: {', '.join(TASKS)}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}, expected an integer of at least 0")
    rng = np.random.default_rng([TASKS.index(task), int(seed)])
    target = int(rng.integers(len(BUTTONS)))
    cue_frames, go_frame = _moments_from_rng(task, target, rng)
    offsets = rng.uniform(-_BUTTON_JITTER_M, _BUTTON_JITTER_M, (len(BUTTONS), 2))
    home = rng.uniform(-_HOME_JITTER_RAD, _HOME_JITTER_RAD, _NUM_ARM_JOINTS)
    return Script(
        task=task,
        seed=int(seed),
        instruction=INSTRUCTIONS[task],
        target=target,
        cue_frames=cue_frames,
        go_frame=go_frame,
        button_offsets=tuple((float(x), float(y)) for x, y in offsets),
        home_offsets=tuple(float(value) for value in home),
    )


def _moments_from_rng(
    task: str, target: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], int]:
    """Draw the frames with the cue lit, and the go frame."""
    if task == "recall":
        return (0, 1), int(rng.integers(7, 12))
    if task == "glimpse":
        flash = int(rng.integers(2, 5))
        return (flash,), flash + int(rng.integers(5, 9))
    go_frame = int(rng.integers(8, 12))
    candidates = [
        frames
        for frames in itertools.combinations(range(1, min(7, go_frame - 2) + 1), target + 1)
        if all(later - earlier > 1 for earlier, later in itertools.pairwise(frames))
    ]
    return candidates[int(rng.integers(len(candidates)))], go_frame
