"""Statistics of a dataset's columns: what policies normalise by, as LeRobot writes them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Statistics",
    "merged_statistics",
    "pixel_counts",
    "statistics_of_numbers",
    "statistics_of_pixels",
]

Statistics = dict[str, NDArray[np.float64]]
"""Of one column: min, max, mean, std, count, and quantiles as q01, q10, q50, q90, q99."""

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_COLORS = 256


def statistics_of_numbers(values: NDArray[np.generic]) -> Statistics:
    """Return those of one episode.

    Args:
        values: [rows, n], at least one row.

    Returns:
        Each of shape [n], the count [1]; quantiles are exact, between two rows interpolated.
    """
    numbers = values.astype(np.float64)
    quantiles = np.quantile(numbers, list(_QUANTILES.values()), axis=0)
    return {
        "min": numbers.min(axis=0),
        "max": numbers.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([float(len(numbers))]),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


def pixel_counts(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value of each color [3, 256] is in an image [rows, columns, 3].

    These add up over an episode, so that no image has to be kept for its statistics.
    """
    return np.stack([np.bincount(image[..., c].ravel(), minlength=_COLORS) for c in range(3)])


def statistics_of_pixels(counts: NDArray[np.int64], num_rows: int) -> Statistics:
    """Return those of one camera in one episode: over every pixel of every row.

    Args:
        counts: [3, 256], summed over the rows; at least one pixel.
        num_rows: That were summed.

    Returns:
        Each of shape [3, 1, 1] between 0 and 1, the count [1].
    """
    shades = np.arange(_COLORS) / (_COLORS - 1)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ shades
    below = np.cumsum(counts, axis=1)
    found = {
        "min": np.array([shades[np.flatnonzero(color)[0]] for color in counts]),
        "max": np.array([shades[np.flatnonzero(color)[-1]] for color in counts]),
        "mean": mean,
        "std": np.sqrt(np.sum(share * (shades - mean[:, None]) ** 2, axis=1)),
    }
    for name, part in _QUANTILES.items():
        found[name] = np.array([shades[np.searchsorted(one, part * one[-1])] for one in below])
    return {name: one.reshape(3, 1, 1) for name, one in found.items()} | {
        "count": np.array([float(num_rows)])
    }


def merged_statistics(episodes: Sequence[Statistics]) -> Statistics:
    """Return those of all episodes together.

    Quantiles are the mean of the episodes' own, weighed by their rows: as LeRobot merges them, so
    that a dataset does not change when LeRobot merges it with another.
    """
    counts = np.array([one["count"][0] for one in episodes])

    def weighed(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.asarray(np.average(np.stack(values), axis=0, weights=counts), np.float64)

    mean = weighed([one["mean"] for one in episodes])
    variance = weighed([one["std"] ** 2 + (one["mean"] - mean) ** 2 for one in episodes])
    return {
        "min": np.min(np.stack([one["min"] for one in episodes]), axis=0),
        "max": np.max(np.stack([one["max"] for one in episodes]), axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([counts.sum()]),
        **{name: weighed([one[name] for one in episodes]) for name in _QUANTILES},
    }
