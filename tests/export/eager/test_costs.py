"""Costs are counted on the graphs themselves; at the real size they are the specification's."""

import msgspec
import pytest
import torch
from tests.fakes.checkpoints import TINY

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.eager import costs
from memorywam_export.eager.costs import graph_costs
from memorywam_export.eager.eager import specs_of
from memorywam_export.eager.effects import rewrite_effects
from memorywam_export.graphs.rewrites import NO_REWRITES, rewrites_for
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.bundle import read_manifest

REAL = contract_from_preset("robotwin-384x320")


@pytest.fixture(scope="module")
def real():
    """Costs of the real size with every rewrite, in bfloat16."""
    return graph_costs(
        REAL, torch.bfloat16, "in_place", rewrites_for(REAL, unwanted=["early-frames"])
    )


def elements(cost):
    return cost.weight_bytes / 2


def test_the_real_size_reads_the_weights_that_it_should(real):
    """Billions of weights, from the shapes of Wan2.2-TI2V-5B and of the action expert."""
    assert elements(real["cache_update"]) / 1e9 == pytest.approx(4.217, abs=5e-4)
    assert elements(real["action_step"]) / 1e9 == pytest.approx(0.819, abs=5e-4)
    assert elements(real["state_kv"]) / 1e9 == pytest.approx(0.194, abs=5e-4)
    assert elements(real["vae_step"]) / 1e9 == pytest.approx(0.1496, abs=5e-5)
    assert elements(real["action_modulation"]) / 1e6 == pytest.approx(7.61, abs=5e-3)


def test_the_real_size_computes_what_it_should(real):
    assert real["vae_first"].flops / 1e12 == pytest.approx(0.571, abs=5e-4)
    assert real["vae_step"].flops / 1e12 == pytest.approx(1.716, abs=5e-4)
    # A token's keys and values in 30 layers of bfloat16: 360 KiB, of which the last video layer
    # only writes its own.
    assert real["action_step"].memory_bytes_per_row == 368_640
    assert real["cache_update"].memory_bytes_per_row == 368_640 * 29 // 30
    # Scores and values of 128 queries over one row: 4 x 128 x 3072 operations a layer.
    assert real["cache_update"].flops_per_row == 4 * 128 * 3072 * 29
    assert real["action_step"].flops_per_row == 4 * 16 * 3072 * 30


@pytest.mark.parametrize(
    ("cache_write", "is_rewritten"),
    [
        ("in_place", True),
        pytest.param("copy", True, marks=pytest.mark.proof),
        pytest.param("in_place", False, marks=pytest.mark.proof),
        ("copy", False),
    ],
)
def test_two_and_three_layers_tell_the_cost_of_more(cache_write, is_rewritten, monkeypatch):
    """What is extrapolated is what counting every layer gives."""
    contract = msgspec.structs.replace(TINY, num_layers=6)
    rewrites = rewrites_for(contract) if is_rewritten else NO_REWRITES
    found = graph_costs(contract, torch.float32, cache_write, rewrites)
    monkeypatch.setattr(costs, "_DEPTHS", (6, 6))
    assert found == graph_costs(contract, torch.float32, cache_write, rewrites)


def test_every_weight_is_read_by_some_graph_once_rewritten():
    """What no graph reads is dead; without rewrites, the last video layer's tail is."""
    read = graph_costs(TINY, torch.float32, "in_place", NO_REWRITES)
    assert set(read) == set(specs_of(MemoryWam(TINY), "in_place"))
    whole = 4 * sum(p.numel() for p in MemoryWam(TINY).parameters())
    dead = whole - sum(
        read[name].weight_bytes
        for name in ("prompt_kv", "state_kv", "vae_step", "cache_update", "action_step")
    )
    # The state's maps are the prompt's too; of the last layer, all but norms of keys, k and v.
    shared = read["state_kv"].weight_bytes - 4 * (14 * 10 + 10)
    width, hidden, ffn = TINY.attention_width, TINY.video.hidden, TINY.video.ffn
    tail = 2 * (hidden * width + width) + 2 * (width * hidden + hidden) + 4 * width
    tail += 2 * (hidden * width + width) - width + 2 * hidden
    tail += hidden * ffn + ffn + ffn * hidden + hidden
    assert (dead + shared) / 4 == tail


def test_the_manifest_carries_the_costs(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    assert all(entry.cost is not None for entry in manifest.graphs.values())
    step = manifest.graphs["action_step"].cost
    assert step is not None
    assert step.memory_bytes_per_row == manifest.memory.bytes_per_token


def test_effects_at_the_real_size():
    """Each rewrite alone, with the split's own two; together they are the whole model."""
    rewrites = rewrites_for(REAL)
    effects = {
        (e.rewrite, e.graph): e for e in rewrite_effects(REAL, torch.bfloat16, "in_place", rewrites)
    }
    millions = {key: effect.weight_bytes / 2e6 for key, effect in effects.items()}
    assert millions["fold-modulation", "cache_update"] == pytest.approx(67.60, abs=0.01)
    assert millions["modulation-table", "action_step"] == pytest.approx(7.61, abs=0.01)
    assert millions["prompt-kv", "action_step"] == pytest.approx(194.27, abs=0.01)
    assert millions["last-layer", "cache_update"] == pytest.approx(125.87, abs=0.01)
    assert millions["rope-halves", "cache_update"] == 0
    # 128 rows of text become 64 and less: per layer, four operations an element of width.
    saved = effects["collapse-padding", "cache_update"].flops
    assert saved == 4 * 128 * (128 - 64) * 3072 * 29
    # The video expert less its output head: 5.000 B; the last layer's cross keys are in no graph.
    whole = sum(value for (_, graph), value in millions.items() if graph == "cache_update")
    cross = (2 * (3072 * 3072 + 3072) + 3072) / 1e6
    assert whole + 4217.2 + cross == pytest.approx(4999.5, abs=0.6)


def test_effects_tell_only_what_is_in_effect():
    rewrites = rewrites_for(TINY, unwanted=["fold-modulation", "rope-halves"])
    told = {e.rewrite for e in rewrite_effects(TINY, torch.float32, "copy", rewrites)}
    assert told == {"modulation-table", "collapse-padding", "last-layer", "prompt-kv"}
