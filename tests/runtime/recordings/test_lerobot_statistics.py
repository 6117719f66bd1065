"""Statistics of an episode are exact; those of many are what LeRobot makes of theirs."""

import numpy as np
import pytest

from memorywam_runtime.recordings.lerobot_statistics import (
    merged_statistics,
    pixel_counts,
    statistics_of_numbers,
    statistics_of_pixels,
)

NAMES = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


def numbers(seed, rows):
    return np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_of_numbers(rows):
    values = numbers(1, rows)
    found = statistics_of_numbers(values)
    assert set(found) == NAMES
    exact = values.astype(np.float64)
    for name, expected in (
        ("min", exact.min(0)), ("max", exact.max(0)), ("mean", exact.mean(0)),
        ("std", exact.std(0)), ("q01", np.quantile(exact, 0.01, axis=0)),
        ("q10", np.quantile(exact, 0.1, axis=0)), ("q50", np.median(exact, axis=0)),
        ("q90", np.quantile(exact, 0.9, axis=0)), ("q99", np.quantile(exact, 0.99, axis=0)),
    ):  # fmt: skip
        assert found[name].shape == (3,)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    assert found["count"].tolist() == [rows]


def test_of_truths():
    found = statistics_of_numbers(np.array([[False], [False], [False], [True]]))
    assert (found["min"][0], found["max"][0], found["mean"][0]) == (0.0, 1.0, 0.25)


def test_of_pixels():
    rng = np.random.default_rng(2)
    images = rng.integers(20, 240, (5, 6, 8, 3), np.uint8)
    images[..., 2] //= 3
    found = statistics_of_pixels(np.sum([pixel_counts(one) for one in images], axis=0), 5)
    assert set(found) == NAMES
    shades = images.reshape(-1, 3) / 255
    for name, expected in (
        ("min", shades.min(0)), ("max", shades.max(0)), ("mean", shades.mean(0)),
        ("std", shades.std(0)),
        *((f"q{q:02d}", np.quantile(shades, q / 100, axis=0, method="inverted_cdf"))
          for q in (1, 10, 50, 90, 99)),
    ):  # fmt: skip
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-12, err_msg=name)
    assert found["count"].tolist() == [5]


def test_merged():
    parts = [numbers(1, 10), numbers(2, 30) + 5]
    found = merged_statistics([statistics_of_numbers(one) for one in parts])
    expected = statistics_of_numbers(np.concatenate(parts))
    assert set(found) == NAMES
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    medians = [np.median(one.astype(np.float64), axis=0) for one in parts]
    np.testing.assert_allclose(found["q50"], 0.25 * medians[0] + 0.75 * medians[1], rtol=1e-12)


def test_merged_pixels_keep_their_shape():
    counts = pixel_counts(np.full((2, 2, 3), 51, np.uint8))
    found = merged_statistics([statistics_of_pixels(counts, 1)] * 2)
    assert found["std"].shape == (3, 1, 1)
    assert found["mean"].ravel().tolist() == pytest.approx([0.2] * 3)
    assert found["count"].tolist() == [2]
