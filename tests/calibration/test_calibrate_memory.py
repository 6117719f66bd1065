"""Recordings become scales of memory, and a bundle whose window is narrow."""

import numpy as np
import pytest

from memorywam_export.parity.parity import drive, random_script
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_memory import rotary_pairs
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.bundle import check_bundle, open_bundle

LARGEST = {"kv-int8": 127, "kv-fp8": 448}


@pytest.fixture(params=LARGEST)
def found(request, calibration_of):
    """A recipe of memory, and the table that recordings give for it."""
    return request.param, calibration_of(recipe=request.param).table


def test_every_layers_keys_and_values_have_scales_by_channel(found, tiny_bundle):
    name, table = found
    manifest = check_bundle(tiny_bundle)
    contract = manifest.contract
    layers = range(contract.num_layers)
    assert set(table.entries) == {f"memory.{layer:02d}.{part}" for layer in layers for part in "kv"}
    assert table.wide == {}
    for site, entry in table.entries.items():
        assert (entry.kind, entry.dtype, entry.axis) == ("memory", name.removeprefix("kv-"), 1)
        assert len(entry.scales) == contract.attention_width
        assert entry.absmax == table.ranges[site].absmax
        # Room beyond what was seen; of keys, for what a rotation can make of a pair.
        most = 1.25 * (np.sqrt(2) if site[-1] == "k" else 1)
        room = max(entry.scales) * LARGEST[name] / entry.absmax
        assert 1.25 - 1e-6 <= room <= most + 1e-6
        assert len(set(entry.scales)) > contract.attention_width / 4
        both = np.array(entry.scales)[rotary_pairs(contract, manifest.rewrites)]
        assert (both[:, 0] == both[:, 1]).all() == (site[-1] == "k")


def test_the_plateau_is_of_memory(found):
    _, table = found
    (entry,) = table.provenance.plateau
    assert entry.num_samples == 16
    assert entry.worst_site in table.entries


def test_the_table_makes_a_bundle_that_acts(found, tiny_bundle, tmp_path):
    name, table = found
    quantize_bundle(tiny_bundle, tmp_path / name, recipe_from_name(name), table)
    wide, narrow = (
        open_bundle(root, allow_unverified=True, num_threads=1, spin=False)
        for root in (tiny_bundle, tmp_path / name)
    )
    script = random_script(wide.contract, 6, seed=5)
    traces = [drive(session, script, lambda _: None, "drive").actions for session in (wide, narrow)]
    error = np.linalg.norm(traces[1] - traces[0]) / np.linalg.norm(traces[0])
    assert 0 < error < 0.05
