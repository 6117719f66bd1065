"""The range scan sees what would overflow float16, and stops an export that would."""

import dataclasses

import pytest
import torch
from tests.fakes.checkpoints import TINY

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.weights import Weight
from memorywam_export.graphs.rewrites import NO_REWRITES, rewrites_for
from memorywam_export.ladder import range_scan
from memorywam_export.ladder.range_scan import SAFE_MAX_ABS, ranges_for, scanned_ranges
from memorywam_runtime.errors import CheckpointError


@pytest.fixture(scope="module")
def checkpoint():
    """Random weights under a name that is not random's."""
    return dataclasses.replace(checkpoint_from_argument("random:tiny"), name="trained.pt")


def with_weight(checkpoint, name, change):
    """Return the checkpoint with one weight changed."""

    def changed(weight):
        if weight.name != name:
            return weight
        return Weight(name, weight.shape, weight.dtype, lambda: change(weight.load()))

    weights = tuple(changed(weight) for weight in checkpoint.weights)
    return dataclasses.replace(checkpoint, weights=weights)


def test_every_map_norm_and_block_is_seen(checkpoint):
    ranges = scanned_ranges(checkpoint, rewrites_for(TINY))
    sites = {r.site for r in ranges}
    assert [r.max_abs for r in ranges] == sorted((r.max_abs for r in ranges), reverse=True)
    assert {
        "mixtures.video.blocks.0.ffn.0", "mixtures.video.blocks.1", "mixtures.action.blocks.2",
        "mixtures.action.blocks.2.self_attn.norm_k", "mixtures.video.blocks.0.cross_attn.v",
        "mixtures.video.patch_embedding", "vae.encoder.head.2", "vae.encoder.head.0",
        "mixtures.video.blocks.0.ffn.0.weight", "gist_tokens", "proprio_encoder",
    } <= sites  # fmt: skip
    assert all(0 < r.max_abs < 100 for r in ranges)


def test_matrices_are_in_memory_one_at_a_time(checkpoint, monkeypatch):
    """So that a model of six billion weights can be looked at."""
    held: list[int] = []
    unload = range_scan._unload

    def counted(module, inputs, output):
        held.append(sum(not p.is_meta for p in module.parameters()))
        unload(module, inputs, output)
        assert all(p.is_meta for p in module.parameters())

    monkeypatch.setattr(range_scan, "_unload", counted)
    scanned_ranges(checkpoint, rewrites_for(TINY))
    assert held
    assert max(held) <= 2


def test_a_large_activation_is_refused_by_name(checkpoint):
    name = "mixtures.action.blocks.1.ffn.2.bias"
    large = with_weight(checkpoint, name, lambda tensor: tensor.fill_(40_000.0))
    message = (
        r"precision fp16: found 4\S+ at mixtures\.action\.blocks\.\d\S*, and too much at \d+ "
        r"more sites; expected at most 32,752, .*--precision bf16"
    )
    with pytest.raises(CheckpointError, match=message):
        ranges_for(large, "fp16")
    assert "as asked" in ranges_for(large, "fp16", is_wanted=False)


def test_what_is_no_number_is_refused(checkpoint):
    name = "mixtures.action.blocks.1.ffn.2.bias"
    broken = with_weight(checkpoint, name, lambda tensor: tensor.fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"found nan at mixtures\.action\.blocks\.1\.ffn\.2"):
        ranges_for(broken, "fp16")


def test_a_checkpoint_that_fits_is_told_with_its_ranges(checkpoint):
    ranges = ranges_for(checkpoint, "fp16", no_rewrites=["fold-modulation"])
    assert not isinstance(ranges, str)
    assert 0 < ranges[0].max_abs < SAFE_MAX_ABS
    assert "mixtures.video.time_projection.1" in {r.site for r in ranges}  # not folded away


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions_need_no_scan(checkpoint, precision):
    assert "float32's range" in ranges_for(checkpoint, precision)


def test_random_weights_are_not_scanned():
    assert "random weights" in ranges_for(checkpoint_from_argument("random:tiny"), "fp16")


def test_rewriting_does_not_move_the_residual_stream(checkpoint):
    """The scan of the rewritten graphs and of the reference's see the same tokens."""
    found = {r.site: r.max_abs for r in scanned_ranges(checkpoint, rewrites_for(TINY))}
    plain = {r.site: r.max_abs for r in scanned_ranges(checkpoint, NO_REWRITES)}
    for site in ("mixtures.video.blocks.1", "mixtures.action.blocks.2", "vae.conv1"):
        assert found[site] == pytest.approx(plain[site], rel=1e-4)
