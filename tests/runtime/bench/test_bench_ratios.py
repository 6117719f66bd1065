"""Ratios of paired times and their intervals."""

import numpy as np
import pytest

from memorywam_runtime.bench.bench_ratios import (
    all_spans,
    outside_shares,
    ratio_of_medians,
    totals,
)


def test_a_constant_ratio_is_certain_however_uneven_the_rounds_are():
    reference = [1.0, 50.0, 3.0, 8.0, 2.0]
    found = ratio_of_medians([2 * ms for ms in reference], reference)
    assert found == pytest.approx({"ratio": 2.0, "low": 2.0, "high": 2.0})


def test_an_interval_holds_the_ratio_and_narrows_with_more_rounds():
    noise = np.random.default_rng(0)

    def width(rounds):
        times, reference = noise.normal(110, 5, rounds), noise.normal(100, 5, rounds)
        found = ratio_of_medians(list(times), list(reference))
        assert found["low"] <= found["ratio"] <= found["high"]
        assert found["ratio"] == pytest.approx(np.median(times) / np.median(reference))
        return found["high"] - found["low"]

    assert width(400) < 0.5 * width(20)


def test_the_interval_covers_what_is_true_about_as_often_as_it_says():
    noise = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = ratio_of_medians(list(noise.normal(120, 6, 40)), list(noise.normal(100, 5, 40)))
        covered += found["low"] <= 1.2 <= found["high"]
    assert 88 <= covered <= 100


@pytest.mark.parametrize(("times", "reference"), [([1.0], [1.0, 2.0]), ([], [])])
def test_times_that_are_not_pairs_are_refused(times, reference):
    with pytest.raises(ValueError, match="expected pairs"):
        ratio_of_medians(times, reference)


def test_spans_of_rounds_are_summed_pooled_and_set_against_the_tick():
    rounds = [
        {"step": [1.0, 2.0], "tick": [4.0], "engines": [3.0]},
        {"step": [3.0, 5.0], "tick": [16.0], "engines": [8.0], "see": [1.0]},
    ]
    assert totals(rounds, "step") == [3.0, 8.0]
    assert totals(rounds, "see") == [1.0]
    assert all_spans(rounds)["step"] == [1.0, 2.0, 3.0, 5.0]
    assert outside_shares(rounds) == [0.25, 0.5]
