"""What factors are expected to cost: each part of the error, by hand."""

import dataclasses

import numpy as np
import pytest

from memorywam_calibration.calibrate import Options, calibrated
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.scales import smoothing
from memorywam_calibration.scales.smoothing import gram_sites
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import scale_table_to_json

SITE = "graph/map:input"
ROWS, OUTPUTS, CHANNELS = 400, 6, 12
GRAM = Options(num_samples=16, second_pass=False, gram_channels=512)


def half(rows, *, with_gram=False):
    """What one half tells of rows."""
    found = Activations([SITE] if with_gram else [])
    found.add(SITE, rows, "")
    found.flush()
    made = smoothing._half(found, SITE)
    assert made is not None
    return made


@pytest.fixture
def drawn():
    """Rows of correlated channels of several sizes, and weights."""
    rng = np.random.default_rng(4)
    mixed = rng.standard_normal((CHANNELS, CHANNELS)) / 3 + 1
    rows = rng.standard_normal((ROWS, CHANNELS)) @ mixed * np.logspace(-1, 1, CHANNELS)
    return rows.astype(np.float32), rng.standard_normal((OUTPUTS, CHANNELS))


def test_what_lies_beyond_the_range_counts_once(drawn):
    rows, weights = drawn
    channel, times, alpha = 7, 3.0, 0.6
    largest = rows.copy()
    largest[:] = 0
    largest[0, channel] = times * np.abs(rows[:, channel]).max()
    chooses, quiet = half(rows).seen, half(rows)
    # The largest value by channel is known, so that power is left as it was.
    loud = dataclasses.replace(half(largest + 0), power=quiet.power)
    factors = smoothing._factors(chooses, weights, alpha)
    scale = smoothing.smoothed_scale(chooses, factors)
    beyond = float(largest.max()) / factors[channel] - 127 * scale
    assert beyond > 0
    gained = ((weights[:, channel] * factors[channel]) ** 2).sum()
    more = smoothing._error(chooses, loud, weights, alpha) - smoothing._error(
        chooses, quiet, weights, alpha
    )
    assert more == pytest.approx(beyond**2 / ROWS * gained, rel=1e-6)


def test_with_gram_the_error_of_weights_is_exact(drawn):
    rows, weights = drawn
    factors = np.linspace(0.5, 2, CHANNELS)
    whole = weights * factors
    scales = np.abs(whole).max(axis=1, keepdims=True) / 127
    held = np.rint(whole / scales) * scales / factors
    outputs = rows.astype(np.float64) @ (held - weights).T
    exact = float((outputs**2).sum(axis=1).mean())
    with_gram, without = (half(rows, with_gram=one).power for one in (True, False))
    assert with_gram.shape == (CHANNELS, CHANNELS)
    assert smoothing._weight_error(with_gram, weights, factors) == pytest.approx(exact, rel=1e-6)
    # These channels hang together: their squares alone do not tell.
    assert smoothing._weight_error(without, weights, factors) != pytest.approx(exact, rel=0.02)
    np.testing.assert_allclose(np.diag(with_gram), without)


def test_parts_with_gram_are_the_whole(drawn):
    rows, _ = drawn
    parts = [Activations([SITE]) for _ in range(3)]
    for part, some in zip(parts, (rows, rows[:150], rows[150:]), strict=True):
        part.add(SITE, some, "")
        part.flush()
    whole, first, second = parts
    for both in (first.merged(second), second.merged(first)):
        assert both.to_bytes() == whole.to_bytes()
        assert both.grams[SITE].num_rows == ROWS
    assert Activations().merged(whole).to_bytes() == whole.to_bytes()


@pytest.fixture(scope="module")
def with_gram(tiny_bundle, recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gram") / "shards"
    found = calibrated(tiny_bundle, recordings, dataclasses.replace(GRAM, shards=folder))
    assert found.table is not None
    return found.table, folder


def test_gram_changes_what_is_expected_and_little_else(with_gram, calibration_of):
    table, _ = with_gram
    plain = calibration_of(second_pass=False).table
    assert table.smooth
    both = [(one, plain.smooth[key]) for key, one in table.smooth.items() if key in plain.smooth]
    assert both
    assert all(one.error != other.error for one, other in both)
    assert all(abs(np.log10(one.error / other.error)) < 0.1 for one, other in both)
    assert table.provenance.statistics_sha256 != plain.provenance.statistics_sha256
    assert table.ranges == plain.ranges


def test_shards_hold_gram_too(with_gram, tiny_bundle, recordings):
    table, folder = with_gram
    some = sorted(folder.iterdir())
    for file in some[::2]:
        file.unlink()
    options = dataclasses.replace(GRAM, shards=folder, is_resuming=True)
    again = calibrated(tiny_bundle, recordings, options)
    assert again.table is not None
    assert len(again.resumed) == len(some) - len(some[::2]) > 0
    assert scale_table_to_json(again.table) == scale_table_to_json(table)


def test_gram_is_of_inputs_that_could_be_smoothed(tiny_bundle):
    manifest, recipe = check_bundle(tiny_bundle), RECIPES["int8"]
    every = gram_sites(tiny_bundle, manifest, recipe, 512)
    assert set(every) == {
        f"{graph}.blocks.1.{part}:input"
        for graph in ("cache_update/mixtures.video", "action_step/mixtures.action")
        for part in ("self_attn.q", "cross_attn.q", "ffn.0")
    }
    widths = {
        "cache_update": manifest.contract.video.hidden,
        "action_step": manifest.contract.action.hidden,
    }
    assert widths["action_step"] < widths["cache_update"]
    narrow = gram_sites(tiny_bundle, manifest, recipe, widths["action_step"])
    assert set(narrow) == {one for one in every if one.startswith("action_step/")}
    assert gram_sites(tiny_bundle, manifest, recipe, widths["action_step"] - 1) == ()


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"recipe": "fp8"}, "asked for with fp8; expected int8 or mixed"),
        ({"recipe": "kv-int8"}, "asked for with kv-int8; expected"),
        ({"smooth": False}, "asked for with int8, not smoothed; expected"),
        ({"gram_channels": -1}, "found -1 channels"),
    ],
)
def test_gram_that_nobody_reads_is_refused(how, complaint):
    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(GRAM, **how)
    dataclasses.replace(GRAM, recipe="mixed")
