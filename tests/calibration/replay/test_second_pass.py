"""The second pass sees what rounded products make of memory, and scales hold both passes."""

import msgspec
import numpy as np
import pytest

from memorywam_calibration.replay.emulation import Emulation
from memorywam_calibration.replay.replay import policy_from_bundle, replayed
from memorywam_calibration.replay.second_pass import second_pass
from memorywam_calibration.scales.scales import Data, fitted_table
from memorywam_calibration.scales.sites import chosen_sites
from memorywam_export.recipes.recipes import RECIPES

COARSE = {"int8": 50.0, "fp8": 1e4}
"""Times a scale that holds a range: what has an exponent bears more."""


@pytest.fixture
def once(calibration_of):
    return calibration_of(second_pass=False)


@pytest.fixture
def twice(calibration):
    return calibration


def test_it_is_told_in_the_table(once, twice):
    assert once.table.provenance.second_pass is None
    found = twice.table.provenance.second_pass
    assert found.num_sites == sum(key.endswith(":input") for key in once.table.entries)
    assert 0 < found.num_grown <= found.num_sites
    assert found.worst_growth > 1
    assert found.worst_site in twice.table.entries


def test_ranges_hold_both_passes(once, twice):
    found = twice.table.provenance.second_pass
    worst = found.worst_site
    before, after = (one.table.ranges[worst].absmax for one in (once, twice))
    assert after == pytest.approx(before * found.worst_growth)
    for site, seen in once.table.ranges.items():
        assert twice.table.ranges[site].absmax >= seen.absmax
    assert once.table.provenance.samples == twice.table.provenance.samples
    assert once.table.entries.keys() == twice.table.entries.keys()


def test_without_rounding_it_sees_the_same_again(tiny_bundle, once):
    policy = policy_from_bundle(tiny_bundle, num_threads=1)
    surveys, samples = once.plan.surveys, once.plan.samples
    (first,) = replayed(policy, surveys, samples)
    empty = msgspec.structs.replace(once.table, entries={})
    again = second_pass(policy, empty, surveys, samples, first)
    for site, seen in first.sites.items():
        both = again.both.sites[site]
        assert both.absmax == seen.absmax
        assert both.num_values == 2 * seen.num_values
    (unrounded,) = replayed(policy, surveys, samples)
    assert unrounded.to_bytes() == first.to_bytes()


def test_ranges_that_only_stay_or_shrink_have_not_grown(tiny_bundle, once, monkeypatch):
    policy = policy_from_bundle(tiny_bundle, num_threads=1)
    surveys, samples = once.plan.surveys, once.plan.samples
    (first,) = replayed(policy, surveys, samples)
    monkeypatch.setattr(Emulation, "can", lambda *_: False)
    found = second_pass(policy, once.table, surveys, samples, first).found
    assert found.num_sites > 0
    assert (found.worst_growth, found.num_grown) == (1, 0)
    site = found.worst_site
    first.sites[site].channel_absmax *= 2
    found = second_pass(policy, once.table, surveys, samples, first).found
    assert (found.worst_growth, found.num_grown) == (1, 0)


@pytest.fixture(params=["kv-int8", "kv-fp8"])
def kept_once(request, calibration_of):
    return request.param, calibration_of(recipe=request.param, second_pass=False)


def test_memory_is_calibrated_through_memory(kept_once, calibration_of):
    recipe, once = kept_once
    twice = calibration_of(recipe=recipe)
    assert once.table.provenance.second_pass is None
    found = twice.table.provenance.second_pass
    assert found is not None
    assert found.num_sites == len(once.table.entries) == len(twice.table.entries)
    growth = {
        key: np.array(twice.table.entries[key].scales) / np.array(entry.scales)
        for key, entry in once.table.entries.items()
    }
    assert all(one.min() >= 1 for one in growth.values()), "scales hold both passes"
    most = {key: float(one.max()) for key, one in growth.items()}
    assert found.worst_growth == pytest.approx(most[found.worst_site]) == max(most.values())
    assert found.num_grown == sum(one > 1 for one in most.values()) > 0
    # What layer 0 is given no memory has touched: it stays, and does not count.
    assert most["memory.00.k"] == most["memory.00.v"] == 1
    assert found.num_grown < found.num_sites


def test_a_memory_that_widens_ranges_widens_scales(kept_once, tiny_bundle):
    _, once = kept_once
    policy = policy_from_bundle(tiny_bundle, num_threads=1)
    surveys, samples = once.plan.surveys, once.plan.samples
    (first,) = replayed(policy, surveys, samples)
    coarse = {  # the window keeps next to nothing
        key: msgspec.structs.replace(
            entry, scales=tuple(COARSE[entry.dtype] * np.array(entry.scales))
        )
        for key, entry in once.table.entries.items()
    }
    table = msgspec.structs.replace(once.table, entries=coarse)
    again = second_pass(policy, table, surveys, samples, first)
    widened = {
        site: float((again.both.sites[site].channel_absmax / seen.channel_absmax).max())
        for site, seen in first.sites.items()
        if site.startswith("memory.")
    }
    assert max(widened.values()) > 1.001
    for site, seen in first.sites.items():
        if site.startswith("memory."):
            assert (again.both.sites[site].channel_absmax >= seen.channel_absmax).all()
    plan = once.plan
    sites = chosen_sites(tiny_bundle, plan.manifest, RECIPES[once.table.recipe], first.sites)
    data = Data(
        episodes=plan.episodes,
        samples=samples,
        seed=0,
        num_denoising_steps=4,
        num_threads=1,
        coverage={},
    )
    wider = fitted_table(policy.session, sites, again.both, plan.needs, data)
    worst = max(widened, key=lambda site: widened[site])
    scales = (np.array(one.entries[worst].scales) for one in (wider, once.table))
    assert np.divide(*scales).max() > 1.001
    (plain,) = replayed(policy, surveys, samples)
    assert plain.to_bytes() == first.to_bytes(), "the policy is as it was"
