"""Sensitivity: what it does to the actions when one product alone is quantized."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.held_out import instruct, session_frames
from memorywam_calibration.replay.emulation import Emulation
from memorywam_export.episodes import drift
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.session import Session
from memorywam_runtime.snapshot import SessionSnapshot

__all__ = [
    "CANDIDATES",
    "Point",
    "Sensitivity",
    "decision_points",
    "measured_sensitivity",
    "rounding_error",
]

CANDIDATES = ("int8", "int4-weight")
"""Recipes that a product may get under `mixed`, beside staying wide: those that ONNX Runtime and
both kinds of TensorRT run."""
_LAST_FRAME = 40
"""Of an episode, that is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A decision point: where the session stood before its frame, and what it then did."""

    start: SessionSnapshot
    frame: drift.Frame
    before: drift.Frame | None
    chunks: NDArray[np.float32]
    """[chunks, horizon, action_dim], normalized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One product under one recipe."""

    name: str
    """Its weight, less `.weight`."""
    recipe: str
    error: float
    """Root mean square of what normalized actions are off by, frame and chunk rounded alike."""
    score: float | None = None
    """The same by the gradient, to first order; see `gradient.gradient_scores`."""


def decision_points(
    session: Session,
    episodes: Sequence[Episode],
    count: int,
    *,
    instruction: str | None = None,
    cameras: Mapping[str, str] | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda doing: None,
) -> list[Point]:
    """Play episodes and keep decision points, spread evenly over their frames.

    Args:
        session: That torch runs; nothing of it is rounded.
        episodes: For development: neither those that calibrate nor those that judge.
        count: How many, at most.
        instruction: Another one than was recorded.
        cameras: The contract's camera to the recordings' name for it, where they differ.
        seed: Of the noise.
        tell: Called with what is at work.
    """
    each = max(1, math.ceil(count / max(1, len(episodes))))
    points: list[Point] = []
    for number, episode in enumerate(episodes, start=1):
        if len(points) >= count:
            break
        tell(f"plays {episode.name}, {number} of at most {len(episodes)} episodes")
        instruct(session, instruction or episode.recording.header.instruction)
        frames = list(islice(session_frames(episode, session.manifest, seed, cameras), _LAST_FRAME))
        marks = {round(mark) for mark in np.linspace(0, len(frames) - 1, each)}
        before = None
        for place, frame in enumerate(frames):
            start = session.snapshot() if place in marks else None
            drift.remember(session, frame, before)
            if start is not None:
                chunks = _chunks(session, frame)
                points.append(Point(start=start, frame=frame, before=before, chunks=chunks))
            before = frame
    return points[:count]


def measured_sensitivity(
    session: Session,
    table: ScaleTable,
    names: Collection[str],
    points: Sequence[Point],
    *,
    candidates: Sequence[str] = CANDIDATES,
    tell: Callable[[str], None] = lambda doing: None,
) -> list[Sensitivity]:
    """Quantize one product at a time, over one frame and the chunks after it.

    Args:
        session: That the points are of.
        table: Scales of inputs.
        names: Weights, less `.weight`; those of graphs that run once an instruction change
            nothing here, since instructions keep the keys and values that they have.
        points: From `decision_points`.
        candidates: Recipes to try.
        tell: Called with what is at work.
    """
    emulation = Emulation(session, table)
    found = []
    for number, name in enumerate(names, start=1):
        tell(f"rounds {name}, {number} of {len(names)} products")
        for recipe in candidates:
            error = 0.0
            if emulation.can(name, recipe):
                with emulation.of({name: recipe}):
                    error = rounding_error(session, points)
            found.append(Sensitivity(name=name, recipe=recipe, error=error))
    return found


def rounding_error(session: Session, points: Sequence[Point]) -> float:
    """Return the root mean square by which a session's normalized actions differ from the points'.

    Args:
        session: As it is now: rounded or not.
        points: Of the same session, unrounded.
    """
    squares = []
    for point in points:
        session.restore(point.start)
        drift.remember(session, point.frame, point.before)
        squares.append(np.square(_chunks(session, point.frame) - point.chunks).mean())
    return float(np.sqrt(np.mean(squares)))


def _chunks(session: Session, frame: drift.Frame) -> NDArray[np.float32]:
    """Return two chunks after the newest frame, normalized."""
    return np.stack([session.denoise(noise) for noise in frame.noise[:2]]).astype(np.float32)
