"""Gains by denoising step: where steps differ in range, each is brought to the range of the widest.

Chosen by one half of the decision points and judged by the other, in turn, as smoothing is. What is
smoothed takes none: dividing channels evens out steps as well.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.statistics import TensorStatistics
from memorywam_calibration.scales.observers import fitted, squared_error
from memorywam_calibration.scales.sites import SiteChoice
from memorywam_calibration.scales.smoothing import smoothed_scale
from memorywam_export.quantize.quantize_smooth import SharedInput
from memorywam_export.recipes.recipes import LARGEST
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.scale_table import StepEntry
from memorywam_runtime.schedule import euler_steps

__all__ = ["LEAST_RATIO", "chosen_gains", "step_ratio"]

LEAST_RATIO = 1.3
"""Between the ranges of two steps, below which one scale does for all: 0.4 of a bit."""
_MAX_GAIN = 8.0


def chosen_gains(
    shared: Iterable[SharedInput],
    sites: Sequence[SiteChoice],
    halves: Sequence[Activations],
    contract: InferenceContract,
    observer: str,
    smoothed: Collection[str] = (),
) -> dict[str, StepEntry]:
    """Return gains for the inputs that gain by them, as the scale table has them.

    Args:
        shared: Inputs that can have gains.
        sites: From `sites.chosen_sites`.
        halves: Two parts of what was seen; with less than two nothing can be judged.
        contract: Its denoising steps.
        observer: That chooses ranges without gains.
        smoothed: Inputs that are divided by channel, by their keys.
    """
    choices = {site.key: site for site in sites}
    timesteps = _timesteps(contract)
    entries = {}
    for one in shared if len(halves) > 1 else ():
        takers = [choices[site.key] for site in one.sites]
        found = [half.sites.get(takers[0].seen_at) for half in halves]
        known = [half for half in found if half is not None and _peaks(half, timesteps)]
        is_wide = all(site.why_wide is not None for site in takers)
        if is_wide or one.key in smoothed or len(known) < 2:
            continue
        entry = _entry(known, timesteps, tuple(site.key for site in one.sites), observer)
        if entry is not None:
            entries[one.key] = entry
    return entries


def step_ratio(groups: Mapping[str, float]) -> float:
    """Return how much largest values by group differ between denoising steps; 1 without steps."""
    steps = [peak for group, peak in groups.items() if group.startswith("step/") and peak > 0]
    return max(steps) / min(steps) if steps else 1.0


def _timesteps(contract: InferenceContract) -> dict[str, float]:
    """Return the timestep of every group that is counted."""
    conventions = contract.conventions
    steps, _ = euler_steps(conventions.num_steps, conventions.action_shift)
    found = {f"step/{number:02d}": float(step) for number, step in enumerate(steps)}
    if conventions.action_history:
        found["executed"] = float(conventions.clean_timestep)
    return found


def _peaks(statistics: TensorStatistics, timesteps: Mapping[str, float]) -> dict[str, float]:
    """Return the largest value by group; nothing where one is missing or zero."""
    peaks = {group: statistics.peaks.get(group, 0.0) for group in timesteps}
    return peaks if min(peaks.values()) > 0 else {}


def _entry(
    halves: Sequence[TensorStatistics],
    timesteps: Mapping[str, float],
    sites: tuple[str, ...],
    observer: str,
) -> StepEntry | None:
    """Return the gains of an input; None where one scale does."""
    first, second = halves
    whole = first.merged(second)
    peaks = _peaks(whole, timesteps)
    ratio = step_ratio(peaks)
    turns = ((first, second), (second, first))
    plain = sum(squared_error(judges, fitted(chooses, observer).scale) for chooses, judges in turns)
    error = sum(_error(chooses, judges, timesteps) for chooses, judges in turns)
    if ratio <= LEAST_RATIO or not error < plain:
        return None
    signal = 2 * float(whole.channel_mean_square().mean())
    return StepEntry(
        timesteps=tuple(timesteps.values()),
        gains=tuple(_gains(peaks).values()),
        sites=sites,
        ratio=ratio,
        error=error / signal,
        plain_error=plain / signal,
    )


def _gains(peaks: Mapping[str, float]) -> dict[str, float]:
    """Return what brings each step to the range of the widest."""
    widest = max(peaks.values())
    return {
        group: float(np.float32(min(widest / peak, _MAX_GAIN))) for group, peak in peaks.items()
    }


def _error(
    chooses: TensorStatistics, judges: TensorStatistics, timesteps: Mapping[str, float]
) -> float:
    """Return the mean squared error under gains, steps alike.

    Of what a step has beyond the range, the largest is known: it counts once.
    """
    gains = _gains(_peaks(chooses, timesteps))
    scale = smoothed_scale(chooses, np.ones(chooses.num_channels))
    values = max(judges.num_values, 1) / len(gains)
    errors = [
        (
            scale**2 / 12
            + max(judges.peaks[group] * gain - LARGEST["int8"] * scale, 0.0) ** 2 / values
        )
        / gain**2
        for group, gain in gains.items()
    ]
    return float(np.mean(errors))
