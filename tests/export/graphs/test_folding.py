"""Folded weights: made one at a time, rounded once, and only where a rewrite asks for it."""

import pytest
import torch
from tests.fakes.checkpoints import TINY, tensors_of
from tests.fakes.episodes import random_model
from tests.fakes.velocities import weights_of

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.weights import Weight, write_weights
from memorywam_export.graphs import folding
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites, halves_order, rewrites_for

FOLD = Rewrites(names=("fold-modulation",))
HALVES = Rewrites(names=("rope-halves",))


def made(rewrites, dtype=torch.float64, source=torch.float64):
    """Return the reference's weights and the rewritten ones, by name."""
    model = random_model(TINY).to(source)
    weights = rewritten_weights(weights_of(model), TINY, rewrites, dtype)
    return model.state_dict(), {weight.name: weight.load() for weight in weights}


def test_without_a_rewrite_nothing_changes():
    before, after = made(NO_REWRITES)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_folding_leaves_out_what_it_folded_and_what_nothing_reads():
    before, after = made(FOLD)
    gone = set(before) - set(after)
    assert set(after) < set(before)
    assert {n.split(".blocks")[0] for n in gone if "time_" not in n} == {"mixtures.video"}
    last = f"mixtures.video.blocks.{TINY.num_layers - 1}."
    assert {n.removeprefix(last) for n in after if n.startswith(last)} == {
        "self_attn.k.weight", "self_attn.k.bias", "self_attn.norm_k.weight",
        "self_attn.v.weight", "self_attn.v.bias",
    }  # fmt: skip
    of_first = {n for n in gone if n.startswith("mixtures.video.blocks.0.")}
    assert of_first == {
        f"mixtures.video.blocks.0.{n}" for n in ("modulation", "norm3.weight", "norm3.bias")
    }
    assert {n for n in gone if n.startswith("mixtures.video.time")} == {
        n for n in before if n.startswith("mixtures.video.time")
    }


def test_only_the_video_blocks_are_folded():
    before, after = made(FOLD)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith("mixtures.video.blocks.") for name in changed)
    first = {n.removeprefix("mixtures.video.blocks.0.") for n in changed if ".blocks.0." in n}
    maps = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q",
            "ffn.0", "ffn.2")  # fmt: skip
    assert first == {f"{name}.{part}" for name in maps for part in ("weight", "bias")}


def test_halves_moves_rows_of_queries_and_keys_of_both_experts():
    before, after = made(HALVES)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    parts = ("q.weight", "q.bias", "k.weight", "k.bias", "norm_q.weight", "norm_k.weight")
    assert changed == {
        f"mixtures.{expert}.blocks.{layer}.self_attn.{part}"
        for expert in ("video", "action") for layer in range(TINY.num_layers) for part in parts
    }  # fmt: skip
    name = "mixtures.action.blocks.1.self_attn.k.weight"
    second = slice(TINY.head_dim, 2 * TINY.head_dim)  # the second head
    wanted = before[name][second][halves_order(TINY.head_dim)]
    assert torch.equal(after[name][second], wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_rounded_once(dtype):
    """Folded from bfloat16 weights, each is the nearest to what float64 gives."""
    exact = made(FOLD, torch.float64, torch.bfloat16)[1]
    found = made(FOLD, dtype, torch.bfloat16)[1]
    for name, tensor in found.items():
        off = (tensor.double() - exact[name]).abs()
        # Half a unit in the last place, and float32's rounding of a product before it.
        half = torch.finfo(dtype).eps / 2 * (1 + 2**-10)
        small = torch.finfo(dtype).smallest_normal
        assert (off <= half * exact[name].abs().clamp_min(small)).all(), name


def test_no_more_than_one_matrix_is_kept(monkeypatch, tmp_path):
    """Written in the order of names, each matrix is made once, and let go before the next."""
    monkeypatch.setattr(folding, "_SMALL", 1)
    counts: dict[str, int] = {}
    alive: set[str] = set()

    def counted(weight):
        def load():
            counts[weight.name] = counts.get(weight.name, 0) + 1
            alive.add(weight.name)
            return weight.load()

        return Weight(weight.name, weight.shape, weight.dtype, load)

    checkpoint = checkpoint_from_argument("random:tiny")
    names = rewrites_for(checkpoint.contract)
    sources = [counted(weight) for weight in checkpoint.weights]
    write_weights(
        tmp_path / "w.safetensors",
        rewritten_weights(sources, checkpoint.contract, names, torch.float32),
    )
    maps = [n for n in counts if n.endswith(("self_attn.v.weight", "cross_attn.k.weight"))]
    assert {counts[name] for name in maps if ".action." in name or "cross" in name} == {1}
    assert len(alive) == len(tensors_of(TINY)) - dead_weights(TINY)


def dead_weights(contract):
    """Return how many weights only the last video block's tokens would need."""
    with_last = {
        n for n in tensors_of(contract) if f".video.blocks.{contract.num_layers - 1}." in n
    }
    needed = {"self_attn.k.weight", "self_attn.k.bias", "self_attn.norm_k.weight",
              "self_attn.v.weight", "self_attn.v.bias", "modulation"}  # fmt: skip
    return len([n for n in with_last if n.split(".", 4)[4] not in needed])
