"""Observers: from a histogram of absolute values to the range that int8 shall hold."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.replay.statistics import TensorStatistics, bin_edges
from memorywam_export.recipes.recipes import LARGEST
from memorywam_runtime.errors import InputError

__all__ = ["OBSERVERS", "Fit", "fitted", "percentile", "points", "squared_error"]

Floats = NDArray[np.float64]

_POINTS = 8
"""In a bin, spread evenly: an octave has 128 bins, a step of int8 may be smaller than one."""
_OCTAVES = 6
"""How far below the maximum a range is looked for."""
_CANDIDATES = 192
"""Ranges that are tried, 2.2 % apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A symmetric range and what it costs."""

    clip: float
    """Largest absolute value that is held."""
    scale: float
    """Step of the quantized values: clip / 127, rounded to float32."""
    clipped: float
    """Share of the values that lie outside, to half a bin (0.4 %)."""
    sqnr_db: float
    """Power of the values over that of the rounding error, dB."""


def fitted(statistics: TensorStatistics, observer: str) -> Fit:
    """Return the range that an observer chooses for int8.

    Args:
        statistics: Of the tensor.
        observer: One of `OBSERVERS`.

    Raises:
        InputError: an unknown observer, or a tensor that was never anything but zero.
    """
    if observer not in OBSERVERS:
        raise InputError(f"unknown observer '{observer}'; expected one of {', '.join(OBSERVERS)}")
    if statistics.absmax <= 0.0:
        raise InputError(
            "found no value but zero; expected some to choose a range from: leave the tensor in "
            "its type, or record episodes in which it is used"
        )
    clip = min(OBSERVERS[observer](statistics), statistics.absmax)
    # The graphs hold scales in float32; a range far below that has no scale of its own.
    scale = max(float(np.float32(clip / LARGEST["int8"])), float(np.finfo(np.float32).tiny))
    values, counts = points(statistics)
    error = float(counts @ _squared_errors(values, scale))
    signal = float(counts @ values**2)
    return Fit(
        clip=clip,
        scale=scale,
        clipped=_share_above(statistics, clip),
        sqnr_db=10 * math.log10(signal / error) if error > 0 and signal > 0 else math.inf,
    )


def squared_error(statistics: TensorStatistics, scale: float) -> float:
    """Return the mean squared rounding error of a tensor under a scale."""
    values, counts = points(statistics)
    return float(counts @ _squared_errors(values, scale)) / max(statistics.num_values, 1)


def percentile(statistics: TensorStatistics, percent: float) -> float:
    """Return what that many percent of the absolute values are at most, to one bin (0.8 %)."""
    total = int(statistics.histogram.sum())
    if not total:
        return 0.0
    reached = np.cumsum(statistics.histogram)
    place = int(np.searchsorted(reached, math.ceil(total * percent / 100)))
    return min(float(bin_edges()[place + 1]), statistics.absmax)


def _max(statistics: TensorStatistics) -> float:
    """Hold everything."""
    return statistics.absmax


def _mse(statistics: TensorStatistics) -> float:
    """Hold what makes the mean squared error least: clipping far values against a finer step."""
    values, counts = points(statistics)
    clips = _candidates(statistics)
    best = _best(clips, values, counts)
    near = np.linspace(clips[max(best - 1, 0)], clips[min(best + 1, len(clips) - 1)], 33)
    return float(near[_best(near, values, counts)])


def _best(clips: Floats, values: Floats, counts: Floats) -> int:
    """Return the place of the range with the least squared error."""
    errors = [float(counts @ _squared_errors(values, clip / LARGEST["int8"])) for clip in clips]
    return int(np.argmin(errors))


def _entropy(statistics: TensorStatistics) -> float:
    """Hold what loses least information: Kullback-Leibler, as TensorRT's calibrator did.

    Values beyond the range count at its end; what falls into one step is spread over the bins
    that held something, by their width (S. Migacz, "8-bit inference with TensorRT", 2017).
    """
    clips = _candidates(statistics)
    return float(clips[int(np.argmin([_divergence(statistics, clip) for clip in clips]))])


OBSERVERS: dict[str, Callable[[TensorStatistics], float]] = {
    "max": _max,
    "percentile": partial(percentile, percent=99.99),
    "mse": _mse,
    "entropy": _entropy,
}
"""Name to the range that it chooses."""


def _candidates(statistics: TensorStatistics) -> Floats:
    """Return ranges [C] up to the maximum, evenly spaced in their logarithm."""
    return statistics.absmax * np.exp2(np.linspace(-_OCTAVES, 0, _CANDIDATES))


def points(statistics: TensorStatistics) -> tuple[Floats, Floats]:
    """Return absolute values that stand for a histogram [n], and how many each is worth [n]."""
    used = np.flatnonzero(statistics.histogram)
    edges = bin_edges()
    low, high = edges[used], np.minimum(edges[used + 1], statistics.absmax)
    inside = (np.arange(_POINTS) + 0.5) / _POINTS
    values = low[:, None] + (high - low)[:, None] * inside
    values[used == 0] = 0.0  # below 2^-40: nothing beside any step
    counts = np.repeat(statistics.histogram[used] / _POINTS, _POINTS)
    return values.ravel(), counts


def _squared_errors(values: Floats, scale: float) -> Floats:
    """Return the squared rounding errors of absolute values."""
    held = np.minimum(np.rint(values / scale), LARGEST["int8"]) * scale
    return (values - held) ** 2


def _share_above(statistics: TensorStatistics, clip: float) -> float:
    """Return the share of the values above a range, a bin's counted by its middle."""
    edges = bin_edges()
    middles = (edges[:-1] + np.minimum(edges[1:], statistics.absmax)) / 2
    above = statistics.histogram[middles > clip].sum()
    return float(above) / max(int(statistics.histogram.sum()), 1)


def _divergence(statistics: TensorStatistics, clip: float) -> float:
    """Return how much of the distribution a range loses, nats."""
    edges = bin_edges()
    used = np.flatnonzero(statistics.histogram)
    used = used[used > 0]  # what is zero is held by every range
    counts = statistics.histogram[used].astype(np.float64)
    middles = (edges[used] + edges[used + 1]) / 2
    inside = middles <= clip
    if not inside.any():
        return math.inf
    held, widths = counts[inside], (edges[used + 1] - edges[used])[inside]
    reference = held.copy()
    reference[-1] += counts[~inside].sum()
    end = LARGEST["int8"]
    steps = np.minimum(np.rint(middles[inside] * end / clip), end).astype(int)
    mass, width = np.bincount(steps, held), np.bincount(steps, widths)
    spread = mass[steps] * widths / width[steps]
    p, q = reference / reference.sum(), spread / spread.sum()
    return float(p @ np.log(p / q))
