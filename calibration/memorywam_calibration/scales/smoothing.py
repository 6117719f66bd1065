"""Smoothing: the factors that leave the least rounding error in what products give out.

They are chosen by one half of the decision points and judged by the other, in turn: factors that
make all channels alike leave none of them room, and what was quiet by chance is cut off later. All
is estimated from what was counted, so that parts that are merged choose what one that saw all
would. Rounding of an activation is uniform noise of its step. Rounding errors of weights are known,
and with X^T X, where that was counted, so is what they do to outputs. Elsewhere its diagonal stands
for it, the channels' mean squares, which every site has: errors of two channels are as often of one
sign as of two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.statistics import TensorStatistics
from memorywam_calibration.scales.observers import fitted, squared_error
from memorywam_calibration.scales.sites import SiteChoice, chosen_sites
from memorywam_export.quantize.quantize import bundle_graphs
from memorywam_export.quantize.quantize_smooth import SharedInput, shared_inputs
from memorywam_export.recipes.recipes import LARGEST, Recipe
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import SmoothEntry

__all__ = ["ALPHAS", "chosen_factors", "gram_sites", "smoothed_scale", "smoothed_sqnr_db"]

Floats = NDArray[np.float64]

ALPHAS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""That are tried, besides no factors at all."""
_MAX_FACTOR = 64.0
"""Over the middle one, or below it: a channel that was all but silent may speak up one day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Half:
    """What half of the decision points tell of one input."""

    seen: TensorStatistics
    power: Floats
    """Mean products of channels [channels, channels], or their diagonal [channels]."""


def gram_sites(
    root: Path, manifest: Manifest, recipe: Recipe, most_channels: int
) -> tuple[str, ...]:
    """Return the inputs that could be smoothed and are no wider than that, `graph/name:input`.

    Products of all pairs of channels cost their square: 14.7 MB at 512, in each nested part.

    Args:
        root: The bundle.
        manifest: Its manifest.
        recipe: That says which products are int8.
        most_channels: Of an input.
    """
    choices = {site.key: site for site in chosen_sites(root, manifest, recipe, None)}
    found = set[str]()
    for one in shared_inputs(bundle_graphs(root, manifest).sites):
        narrow = [site for site in one.sites if choices[site.key].why_wide is None]
        if narrow and narrow[0].shape[1] <= most_channels:
            found.add(choices[narrow[0].key].seen_at)
    return tuple(sorted(found))


def chosen_factors(
    shared: Iterable[SharedInput],
    sites: Sequence[SiteChoice],
    halves: Sequence[Activations],
    maps: Mapping[str, nn.Linear],
    observer: str,
) -> dict[str, SmoothEntry]:
    """Return factors for the inputs that gain by them, as the scale table has them.

    Args:
        shared: Inputs that can be divided.
        sites: From `sites.chosen_sites`.
        halves: Two parts of what was seen; with less than two nothing can be judged.
        maps: Linear maps by their weights' names.
        observer: That chooses ranges where nothing is smoothed.
    """
    choices = {site.key: site for site in sites}
    entries = {}
    for one in shared if len(halves) > 1 else ():
        takers = [choices[site.key] for site in one.sites]
        narrow = [site for site in takers if site.why_wide is None]
        found = [_half(half, narrow[0].seen_at) for half in halves] if narrow else []
        known = [half for half in found if half is not None]
        if len(known) < 2:
            continue
        weights = [maps[site.weight].weight.detach().double().numpy() for site in narrow]
        keys = tuple(site.key for site in one.sites)
        entry = _entry(known, np.concatenate(weights), keys, observer)
        if entry is not None:
            entries[one.key] = entry
    return entries


def smoothed_scale(statistics: TensorStatistics, factors: Floats) -> float:
    """Return the scale that holds all that was seen, divided by factors.

    Largest values are known by channel, so that no second look is needed; what a finer step with
    clipping would gain is little once channels are alike.
    """
    peak = float((statistics.channel_absmax / factors).max())
    return max(float(np.float32(peak / LARGEST["int8"])), float(np.finfo(np.float32).tiny))


def smoothed_sqnr_db(statistics: TensorStatistics, factors: Floats) -> float:
    """Return the power of the divided values over that of uniform rounding noise, dB."""
    power = float((statistics.channel_mean_square() / factors**2).mean())
    noise = smoothed_scale(statistics, factors) ** 2 / 12
    return float(10 * np.log10(max(power, np.finfo(np.float64).tiny) / noise))


def _half(half: Activations, site: str) -> _Half | None:
    """Return what a half tells of one input; None of one that it did not reach, or of zeros."""
    seen, gram = half.sites.get(site), half.grams.get(site)
    if seen is None or seen.absmax <= 0.0:
        return None
    return _Half(seen=seen, power=seen.channel_mean_square() if gram is None else gram.mean())


def _entry(
    halves: Sequence[_Half], weights: Floats, sites: tuple[str, ...], observer: str
) -> SmoothEntry | None:
    """Return the factors with the least error; None where that is none."""
    first, second = halves
    turns = ((first, second), (second, first))
    plain = sum(_plain_error(one.seen, judges, weights, observer) for one, judges in turns)
    errors = {
        alpha: sum(_error(one.seen, judges, weights, alpha) for one, judges in turns)
        for alpha in ALPHAS
    }
    best = min(errors, key=lambda alpha: errors[alpha])
    if not errors[best] < plain:
        return None
    whole = first.seen.merged(second.seen)
    signal = 2 * float(whole.channel_mean_square() @ (weights**2).sum(axis=0))
    return SmoothEntry(
        alpha=best,
        factors=tuple(_factors(whole, weights, best).tolist()),
        sites=sites,
        error=errors[best] / signal,
        plain_error=plain / signal,
    )


def _error(chooses: TensorStatistics, judges: _Half, weights: Floats, alpha: float) -> float:
    """Return the squared error of all outputs of a row, on average.

    Of what a channel has beyond the range, the largest is known: it counts once.
    """
    factors = _factors(chooses, weights, alpha)
    scale = smoothed_scale(chooses, factors)
    beyond = np.maximum(judges.seen.channel_absmax / factors - LARGEST["int8"] * scale, 0.0)
    cut = beyond**2 / max(judges.seen.num_rows, 1)
    given = (weights * factors) ** 2
    return _weight_error(judges.power, weights, factors) + float(
        (scale**2 / 12 + cut) @ given.sum(axis=0)
    )


def _plain_error(chooses: TensorStatistics, judges: _Half, weights: Floats, observer: str) -> float:
    """Return the same without factors; here the histogram tells all of what is cut off."""
    noise = squared_error(judges.seen, fitted(chooses, observer).scale)
    return _weight_error(judges.power, weights, np.ones(weights.shape[1])) + noise * float(
        (weights**2).sum()
    )


def _weight_error(power: Floats, weights: Floats, factors: Floats) -> float:
    """Return the squared error that rounding weights [outputs, channels] brings to a row."""
    whole = weights * factors
    scales = np.abs(whole).max(axis=1, keepdims=True) / LARGEST["int8"]
    scales[scales == 0] = 1.0
    errors = (np.rint(whole / scales) * scales - whole) / factors
    if power.ndim == 1:
        return float(power @ (errors**2).sum(axis=0))
    return float(((errors @ power) * errors).sum())


def _factors(statistics: TensorStatistics, weights: Floats, alpha: float) -> Floats:
    """Return max |x| ^ alpha / max |w| ^ (1 - alpha) by channel, to a common factor."""
    seen = statistics.channel_absmax.astype(np.float64)
    largest = np.abs(weights).max(axis=0)
    used = (seen > 0) & (largest > 0)
    factors = np.ones(len(seen))
    raw = np.log(seen[used]) * alpha - np.log(largest[used]) * (1 - alpha)
    limit = np.log(_MAX_FACTOR)
    wanted = np.exp(np.clip(raw - np.median(raw), -limit, limit))
    # Any factor folds exactly: a few digits do, and keep tables small.
    factors[used] = [float(f"{factor:.3g}") for factor in wanted]
    return factors
