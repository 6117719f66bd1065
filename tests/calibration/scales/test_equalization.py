"""What evens out inputs is chosen where it gains, on what did not choose it."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.statistics import GramSums, TensorStatistics
from memorywam_calibration.scales.sites import SiteChoice
from memorywam_calibration.scales.smoothing import (
    ALPHAS,
    chosen_factors,
    smoothed_scale,
    smoothed_sqnr_db,
)
from memorywam_calibration.scales.step_gains import LEAST_RATIO, chosen_gains, step_ratio
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.quantize.quantize_smooth import SharedInput

SITE = "action_step/a"
CONTRACT = contract_from_preset("tiny")
STEPS = CONTRACT.conventions.num_steps
CHOICE = SiteChoice(
    key=SITE, weight="a", seen_at=f"{SITE}:input", axis=0, is_of_weights_alone=False, why_wide=None
)
SHARED = SharedInput(
    sites=(
        Site(graph="action_step", name="a", weight=ir.Value(), products=(), is_transposed=True),
    ),
    producers=(),
)


def half(rows, groups=()) -> Activations:
    """Return what one half of the decision points gave, all of it of one site."""
    found = Activations()
    statistics = TensorStatistics(rows.shape[1])
    statistics.add(rows)
    for group, peak in groups:
        statistics.note_peak(group, peak)
    found.sites[f"{SITE}:input"] = statistics
    return found


def linear(weight):
    module = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
    return {"a": module}


def factors_for(halves, weight, observer="mse", choice=CHOICE):
    return chosen_factors([SHARED], [choice], halves, linear(weight), observer)


def outlying(rng, count=4000):
    """Return rows of which one channel in eight is large."""
    return rng.standard_normal((count, 32)) * np.where(np.arange(32) % 8 == 3, 20.0, 1.0)


def rounded(values, scale):
    return np.clip(np.rint(values / scale), -127, 127) * scale


def measured_error(rows, weight, factors, scale):
    """Return the squared error of what int8 gives out over the power of what it should."""
    whole = weight * factors
    scales = np.abs(whole).max(axis=1, keepdims=True) / 127
    found = rounded(rows / factors, scale) @ rounded(whole, scales).T
    expected = rows @ weight.T
    return ((found - expected) ** 2).sum() / (expected**2).sum()


def test_outlying_channels_are_smoothed_and_the_error_is_as_estimated():
    rng = np.random.default_rng(0)
    rows, weight = outlying(rng), rng.standard_normal((48, 32))
    (entry,) = factors_for([half(rows[:2000]), half(rows[2000:])], weight).values()
    assert entry.sites == (SITE,)
    assert entry.alpha in ALPHAS
    factors = np.array(entry.factors)
    assert factors[3] > 4 * np.median(factors)
    statistics = half(rows).sites[f"{SITE}:input"]
    smooth = measured_error(rows, weight, factors, smoothed_scale(statistics, factors))
    plain = measured_error(rows, weight, np.ones(32), statistics.absmax / 127)
    assert smooth < plain / 4
    assert entry.error == pytest.approx(smooth, rel=0.2)
    assert entry.plain_error == pytest.approx(plain, rel=0.3)


def test_the_diagonal_tells_what_the_whole_gram_matrix_does():
    rng = np.random.default_rng(1)
    mixed = outlying(rng) @ rng.standard_normal((32, 32)) * 0.2 + rng.standard_normal(32)
    weight = rng.standard_normal((256, 32))
    scales = np.abs(weight).max(axis=1, keepdims=True) / 127
    errors = rounded(weight, scales) - weight
    gram, statistics = GramSums(32), half(mixed).sites[f"{SITE}:input"]
    gram.add(mixed)
    whole = np.einsum("oj,jk,ok->", errors, gram.matrix() / len(mixed), errors)
    by_channel = float(statistics.channel_mean_square() @ (errors**2).sum(axis=0))
    assert by_channel == pytest.approx(whole, rel=0.15)


def test_like_channels_are_left_alone():
    rng = np.random.default_rng(2)
    weight = rng.choice([-1.0, 1.0], (48, 32))  # factors could only make them harder to round
    rows = rng.uniform(-1, 1, (4000, 32))
    assert factors_for([half(rows[:2000]), half(rows[2000:])], weight, "max") == {}


def test_what_was_quiet_by_chance_is_not_trusted():
    rng = np.random.default_rng(3)
    rows, weight = rng.standard_normal((4000, 32)), rng.standard_normal((48, 32))
    rows[:2000, 5] *= 0.01  # one half never saw what this channel can do
    steady = [half(rows[2000:3000]), half(rows[3000:])]
    assert factors_for([half(rows[:2000]), half(rows[2000:])], weight) == {}
    loud = rows.copy()
    loud[:, 5] *= 30
    assert factors_for([half(loud[2000:3000]), half(loud[3000:])], weight)
    assert factors_for(steady[:1], weight) == {}


def test_wide_products_are_not_smoothed():
    rng = np.random.default_rng(4)
    rows, weight = outlying(rng), rng.standard_normal((48, 32))
    wide = SiteChoice(
        key=SITE, weight="a", seen_at=f"{SITE}:input", axis=0, is_of_weights_alone=False,
        why_wide="by name",
    )  # fmt: skip
    assert factors_for([half(rows[:2000]), half(rows[2000:])], weight, choice=wide) == {}


@given(
    sizes=st.lists(st.floats(0, 1e4), min_size=4, max_size=4).filter(lambda all_: max(all_) > 1e-3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_factors_are_bounded_and_the_scale_holds_all(sizes, seed):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, (200, 4)) * sizes
    weight = rng.standard_normal((8, 4))
    for entry in factors_for([half(rows[:100]), half(rows[100:])], weight).values():
        factors = np.array(entry.factors)
        assert ((factors >= 1 / 65) & (factors <= 65)).all()
        statistics = half(rows).sites[f"{SITE}:input"]
        scale = smoothed_scale(statistics, factors)
        assert np.abs(rows / factors).max() <= 127 * scale * (1 + 1e-6)
        assert np.isfinite(smoothed_sqnr_db(statistics, factors))


def stepped(rng, sizes, count=500):
    """Return rows of all steps, and the largest value of each."""
    parts = [rng.standard_normal((count, 16)) * size for size in sizes]
    peaks = [(f"step/{n:02d}", float(np.abs(part).max())) for n, part in enumerate(parts)]
    return half(np.concatenate(parts), peaks)


def gains_for(halves, smoothed=()):
    return chosen_gains([SHARED], [CHOICE], halves, CONTRACT, "mse", smoothed)


def test_steps_of_other_ranges_get_gains():
    rng = np.random.default_rng(5)
    sizes = np.linspace(1.0, 4.0, STEPS)
    halves = [stepped(rng, sizes), stepped(rng, sizes)]
    (entry,) = gains_for(halves).values()
    assert entry.timesteps[0] == 1000.0
    assert len(entry.timesteps) == STEPS
    assert entry.gains[-1] == 1.0
    assert entry.gains[0] == pytest.approx(4, rel=0.25)
    assert entry.ratio == pytest.approx(max(entry.gains), rel=1e-6)
    assert entry.error < entry.plain_error / 1.5
    assert gains_for(halves, smoothed={f"{SITE}:input"}) == {}
    assert gains_for(halves[:1]) == {}


def test_steps_alike_get_none():
    rng = np.random.default_rng(6)
    found = [stepped(rng, np.ones(STEPS)) for _ in range(2)]
    assert step_ratio(found[0].sites[f"{SITE}:input"].peaks) < LEAST_RATIO
    assert gains_for(found) == {}


def test_a_step_that_was_never_seen_leaves_all_as_they_are():
    rng = np.random.default_rng(7)
    found = [stepped(rng, np.linspace(1.0, 4.0, STEPS - 1)) for _ in range(2)]
    assert gains_for(found) == {}
