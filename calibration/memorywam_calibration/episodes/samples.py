"""Decision points: which frame of which episode is looked at, with which noise."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memorywam_calibration.episodes.episodes import fraction_of
from memorywam_calibration.episodes.survey import Survey
from memorywam_runtime.contract import InferenceContract

__all__ = ["FillCell", "Sample", "chosen_samples", "fill_cells"]

_SEEDS = 1 << 47


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A decision point; with the recording and the bundle, all that it takes to see it again."""

    episode: str
    frame: int
    """The newest in memory, from 0."""
    seed: int
    """Of the noise that the chunk starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillCell:
    """A stretch of memory fill: how many frames are remembered when a chunk is made."""

    name: str
    first: int
    last: int
    """Inclusive."""


def fill_cells(contract: InferenceContract, max_frames: int | None) -> list[FillCell]:
    """Return the stretches of memory fill that tell apart what attention sees.

    Args:
        contract: Anchors and window.
        max_frames: That memory takes; None for no end.
    """
    if contract.conventions.vae_history == "single_frame":
        return [FillCell(name="1", first=1, last=1 << 30)]  # every frame is a first one
    anchors = contract.memory.num_anchors
    full = anchors + contract.num_ring_slots
    end = max_frames or 1 << 30
    cells = [
        FillCell(name="1", first=1, last=1),
        FillCell(name="2", first=2, last=2),
        FillCell(name="filling", first=3, last=full),
        FillCell(name="first eviction", first=max(full + 1, 3), last=max(full + 1, 3)),
        FillCell(name="8-15", first=full + 2, last=15),
        FillCell(name="16-30", first=max(full + 2, 16), last=30),
        FillCell(name="31-60", first=31, last=60),
        FillCell(name="61-90", first=61, last=90),
        FillCell(name="91-100", first=91, last=100),
        FillCell(name="> 100", first=101, last=1 << 30),
    ]
    return [
        replace(cell, last=min(cell.last, end))
        for cell in cells
        if cell.first <= min(cell.last, end)
    ]


def chosen_samples(
    surveys: Sequence[Survey], cells: Sequence[FillCell], count: int, *, seed: int = 0
) -> list[Sample]:
    """Choose decision points, spread over memory fill, instructions, episodes and phases.

    Cells take turns, the rarest first, so that the first 8, 16 or 32 are spread as all are. The
    choice hangs on names and seed alone.

    Args:
        surveys: Episodes for calibration.
        cells: Of memory fill.
        count: How many; fewer if there are no more frames.
        seed: Of choice and noise.
    """
    open_points = [
        [(survey, frame) for survey in surveys for frame in _frames_in(survey, cell)]
        for cell in cells
    ]
    turns = sorted((points for points in open_points if points), key=len)
    used = Counter[tuple[str, str]]()
    found: list[Sample] = []
    while len(found) < count and any(turns):
        for points in turns:
            if not points or len(found) >= count:
                continue
            best = min(points, key=lambda point: _rank(point, used, seed))
            points.remove(best)
            survey, frame = best
            used.update(_uses(survey, frame))
            found.append(_sample(survey, frame, seed))
    return found


def _frames_in(survey: Survey, cell: FillCell) -> range:
    """Return the frames of an episode after which memory is that full."""
    return range(cell.first - 1, min(cell.last, survey.num_frames))


def _uses(survey: Survey, frame: int) -> list[tuple[str, str]]:
    """Return what a decision point uses up."""
    return [
        ("instruction", survey.instruction),
        ("episode", survey.episode.name),
        ("phase", survey.phase(frame)),
    ]


def _rank(
    point: tuple[Survey, int], used: Counter[tuple[str, str]], seed: int
) -> tuple[int, int, int, float]:
    """Return how much a decision point is like those chosen: least first, then as by lot."""
    survey, frame = point
    instruction, episode, phase = (used[key] for key in _uses(survey, frame))
    return instruction, episode, phase, fraction_of(seed, survey.episode.name, frame)


def _sample(survey: Survey, frame: int, seed: int) -> Sample:
    """Return a decision point with its noise."""
    name = survey.episode.name
    noise = int(fraction_of("noise", seed, name, frame) * _SEEDS)
    return Sample(episode=name, frame=frame, seed=noise)
