"""Ratios of times taken in pairs, and how sure they are; percentiles of what was measured."""

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = [
    "all_spans",
    "median_of",
    "outside_shares",
    "ratio_of_medians",
    "totals",
]

_RESAMPLES = 4000
_LEVEL = 95
"""Per cent of the confidence intervals."""


def ratio_of_medians(
    times_ms: Sequence[float], reference_ms: Sequence[float], *, seed: int = 0
) -> dict[str, float]:
    """Return the median time over the reference's, with a confidence interval by bootstrap.

    Times of the same place were taken in the same round: a round is drawn with both, so that what
    slowed a whole round down is not counted as a difference.

    Args:
        times_ms: One a round.
        reference_ms: One a round, in the same order.
        seed: Of the resampling.

    Returns:
        `ratio`, and `low` and `high`, the ends of its 95 % interval.

    Raises:
        ValueError: no rounds, or not as many on both sides.
    """
    times, reference = np.asarray(times_ms, float), np.asarray(reference_ms, float)
    if times.shape != reference.shape or times.ndim != 1 or not times.size:
        raise ValueError(f"found {times.shape} and {reference.shape} times; expected pairs")
    rounds = np.random.default_rng(seed).integers(0, times.size, (_RESAMPLES, times.size))
    ratios = np.median(times[rounds], axis=1) / np.median(reference[rounds], axis=1)
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return {
        "ratio": float(np.median(times) / np.median(reference)),
        "low": float(low),
        "high": float(high),
    }


def totals(rounds: Sequence[Mapping[str, Sequence[float]]], stage: str) -> list[float]:
    """Return what a stage took in each round, all its calls together, ms."""
    return [sum(spans[stage]) for spans in rounds if stage in spans]


def all_spans(rounds: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return the spans of each stage over all rounds, ms."""
    found: dict[str, list[float]] = {}
    for spans in rounds:
        for stage, times in spans.items():
            found.setdefault(stage, []).extend(times)
    return found


def outside_shares(rounds: Sequence[Mapping[str, Sequence[float]]]) -> list[float]:
    """Return for each round the share of the tick that no engine took, 0 to 1."""
    return [1 - spans["engines"][0] / spans["tick"][0] for spans in rounds]


def median_of(times_ms: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(np.asarray(times_ms, float)))
