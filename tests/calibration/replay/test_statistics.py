"""Statistics merge to the same bytes in any order and partition, and are what numpy finds."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memorywam_calibration.replay.statistics import (
    LIMIT,
    NUM_BINS,
    GramSums,
    TensorStatistics,
    bin_edges,
)
from memorywam_calibration.scales.observers import percentile
from memorywam_runtime.errors import InputError

CHANNELS = 3
NUMBERS = st.floats(-(2.0**23), 2.0**23, width=32, allow_nan=False)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(CHANNELS)), elements=NUMBERS)


def of(values, group="") -> TensorStatistics:
    found = TensorStatistics(values.shape[1])
    found.add(values)
    if group:
        found.note_peak(group, float(np.abs(values).max(initial=0.0)))
    return found


@given(rows=ROWS, data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_partition_in_any_order_gives_the_same_bytes(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    pieces = np.split(rows[list(order)], cuts)
    groups = [data.draw(st.sampled_from(["step/00", "step/01"])) for _ in pieces]
    parts = [of(piece, group) for piece, group in zip(pieces, groups, strict=True)]
    forward = reduce(TensorStatistics.merged, parts)
    backward = reduce(lambda a, b: b.merged(a), reversed(parts))
    by_turns = TensorStatistics(CHANNELS)
    for piece, group in zip(pieces, groups, strict=True):
        by_turns.add(piece)
        by_turns.note_peak(group, float(np.abs(piece).max(initial=0.0)))
    assert forward.to_bytes() == backward.to_bytes() == by_turns.to_bytes()
    whole = of(rows)
    whole.peaks = forward.peaks
    assert whole.to_bytes() == forward.to_bytes()


@given(rows=ROWS, data=st.data())
@settings(max_examples=40, deadline=None)
def test_gram_sums_too(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    whole, first, second = (GramSums(CHANNELS) for _ in range(3))
    whole.add(rows)
    first.add(rows[list(order)][:cut])
    second.add(rows[list(order)][cut:])
    assert first.merged(second).to_bytes() == second.merged(first).to_bytes() == whole.to_bytes()
    counted = of(rows)
    again = GramSums.from_levels(first.merged(second).levels(), counted)
    assert again.to_bytes() == whole.to_bytes()
    assert again.num_rows == len(rows)
    np.testing.assert_array_equal(np.diag(again.mean()), counted.channel_mean_square())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda levels: levels[:, :2, :2], "sums of products int64"),
        (lambda levels: levels.astype(np.int32), "sums of products int32"),
        (lambda levels: levels + np.eye(3, dtype=int), "not of the rows"),
        (lambda levels: levels + np.eye(3, k=1, dtype=int), "not of the rows"),
        (lambda levels: levels * 2, "not of the rows"),
    ],
)
def test_gram_sums_of_other_rows_are_refused(change, complaint):
    rows = np.random.default_rng(3).standard_normal((5, CHANNELS)).astype(np.float32)
    gram = GramSums(CHANNELS)
    gram.add(rows)
    with pytest.raises(InputError, match=complaint):
        GramSums.from_levels(change(gram.levels()), of(rows))


def test_merging_is_associative_and_empty_changes_nothing():
    rng = np.random.default_rng(0)
    a, b, c = (of(rng.standard_normal((5, CHANNELS))) for _ in range(3))
    assert a.merged(b).merged(c).to_bytes() == a.merged(b.merged(c)).to_bytes()
    assert a.merged(TensorStatistics(CHANNELS)).to_bytes() == a.to_bytes()


def test_what_is_kept_is_what_numpy_finds():
    rng = np.random.default_rng(1)
    values = (rng.standard_t(3, (4000, 7)) * np.logspace(-3, 3, 7)).astype(np.float32)
    wide = values.astype(np.float64)
    found = of(values)
    assert found.num_values == values.size
    assert found.absmax == np.abs(wide).max()
    np.testing.assert_array_equal(found.channel_absmax, np.abs(values).max(axis=0))
    np.testing.assert_allclose(found.channel_mean(), wide.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.channel_mean_square(), (wide**2).mean(axis=0), rtol=1e-9)
    assert found.histogram.sum() == values.size
    gram = GramSums(7)
    gram.add(values)
    np.testing.assert_allclose(gram.matrix(), wide.T @ wide, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("percent", [50, 99, 99.9, 99.99])
def test_percentiles_are_within_a_bin(percent):
    values = np.random.default_rng(2).laplace(size=(20000, 8))
    assert percentile(of(values), percent) == pytest.approx(
        np.percentile(np.abs(values), percent), rel=0.016
    )


def test_every_value_falls_into_its_bin():
    edges = bin_edges()
    assert len(edges) == NUM_BINS + 1
    assert edges[0] == 0
    assert edges[1] == 2.0**-40
    assert edges[-1] == LIMIT
    assert (np.diff(edges) > 0).all()
    for place in (1, 2, 77, 4096, NUM_BINS - 1):
        for value in (edges[place], np.nextafter(np.float32(edges[place + 1]), np.float32(0))):
            found = of(np.array([[-value]], np.float32))
            assert found.histogram[place] == 1, value
    below = of(np.array([[0.0, -0.0, 2.0**-41, 1e-42]], np.float32))
    assert below.histogram[0] == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, LIMIT, -1e30, 1e300])
def test_what_has_no_range_is_refused(bad):
    found = of(np.ones((2, 2)))
    before = found.to_bytes()
    with pytest.raises(InputError, match="expected finite values below 16777216"):
        found.add(np.array([[1.0, bad]]))
    assert found.to_bytes() == before
    with pytest.raises(InputError, match="expected finite values"):
        GramSums(2).add(np.array([[1.0, bad]]))


def test_another_tensor_is_refused():
    found = of(np.ones((2, 2)))
    with pytest.raises(InputError, match="channels; expected 2"):
        found.merged(of(np.ones((2, 3))))
    with pytest.raises(InputError, match="expected \\[rows, 2\\]"):
        found.add(np.ones((2, 3)))
    with pytest.raises(InputError, match="expected at most 268435456"):
        found.num_rows = 1 << 28
        found.add(np.ones((1, 2)))
