"""Recipes: what stays wide, by the model's real depth, and which places run what."""

import pytest

from memorywam_export.recipes.recipes import (
    RECIPES,
    block_length,
    check_recipe,
    edge_blocks,
    recipe_from_name,
    wide_reason,
)
from memorywam_runtime.errors import InputError

INT8, FP8 = RECIPES["int8"], RECIPES["fp8"]
SIDE = (64, 64)


@pytest.mark.parametrize(("depth", "edge"), [(1, 0), (2, 0), (3, 1), (18, 1), (30, 2), (40, 3)])
def test_the_edge_follows_the_real_depth(depth, edge):
    assert edge_blocks(depth) == edge


@pytest.mark.parametrize("depth", [3, 18, 30, 40])
@pytest.mark.parametrize("expert", ["video", "action"])
def test_first_and_last_blocks_stay_wide(depth, expert):
    def is_wide(layer):
        name = f"mixtures.{expert}.blocks.{layer}.ffn.0"
        return wide_reason(INT8, name, SIDE, depth) is not None

    wide = [layer for layer in range(depth) if is_wide(layer)]
    edge = edge_blocks(depth)
    assert wide == [*range(edge), *range(depth - edge, depth)]


@pytest.mark.parametrize(
    "name",
    [
        "mixtures.video.text_embedding.0",
        "mixtures.action.time_embedding.0",
        "mixtures.action.time_projection.1",
        "mixtures.video.patch_embedding",
        "mixtures.action.action_encoder",
        "mixtures.action.head",
        "proprio_encoder",
        "gist_tokens",
        "vae.conv1",
        "mixtures.video.blocks.5.norm3",
        "mixtures.video.blocks.5.self_attn.norm_q",
        "mixtures.action.blocks.5.modulation",
    ],
)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_is_no_projection_stays_wide(recipe, name):
    assert wide_reason(recipe, name, SIDE, 18) is not None


@pytest.mark.parametrize(
    "part", [f"self_attn.{p}" for p in "qkvo"] + [f"cross_attn.{p}" for p in "qkvo"] + ["ffn.0"]
)
def test_projections_between_the_edges_are_quantized(part):
    assert wide_reason(INT8, f"mixtures.action.blocks.5.{part}", SIDE, 18) is None


def test_short_sides_stay_wide():
    why = wide_reason(INT8, "mixtures.action.blocks.5.ffn.0", (64, 14), 18)
    assert why is not None
    assert "under 16" in why


@pytest.mark.parametrize(
    ("inputs", "length"), [(14336, 128), (192, 64), (96, 32), (48, 16), (24, None)]
)
def test_int4_takes_the_longest_block_that_fits(inputs, length):
    assert block_length(inputs) == length
    why = wide_reason(RECIPES["int4-weight"], "mixtures.video.blocks.5.ffn.2", (64, inputs), 18)
    assert (why is None) == (length is not None)


@pytest.mark.parametrize(
    ("recipe", "backend", "target", "version"),
    [
        ("int8", "ort", None, "1.31.1"),
        ("fp8", "ort", None, None),
        ("int8", "tensorrt", "sm_87", "10.3.0"),
        ("int4-weight", "tensorrt", "sm_87", "10.3.0"),
        ("fp8", "tensorrt", "sm_89", "10.3.0"),
        ("fp8", "tensorrt", "sm_110", "10.13.2"),
        ("int8", "tensorrt-rtx", "sm_86", "1.7.1.116"),
        ("int8-weight", "tensorrt-rtx", "sm_89", "1.7.1.116"),
        ("kv-int8", "ort", None, "1.31.1"),
        ("kv-fp8", "ort", None, "1.31.1"),
        ("kv-int8", "tensorrt-rtx", "sm_86", "1.7.1.116"),
        ("kv-fp8", "tensorrt-rtx", "sm_120", "1.7.1.116"),
    ],
)
def test_legal_places(recipe, backend, target, version):
    check_recipe(RECIPES[recipe], backend, target, version)


@pytest.mark.parametrize(
    ("recipe", "backend", "target", "version", "instead"),
    [
        ("fp8", "tensorrt", "sm_87", "10.3.0", "int8 or int4-weight"),
        ("int8-weight", "tensorrt", "sm_87", "10.3.0", "int8 or int4-weight"),
        ("fp8", "tensorrt", "sm_110", "10.3.0", "int8 or int4-weight"),
        ("fp8", "tensorrt-rtx", "sm_86", "1.7.1", "int8 or int8-weight or int4-weight"),
        ("int4-weight", "tensorrt-rtx", "sm_75", "1.7.1", "int8 or int8-weight"),
        ("int8", "tensorrt-rtx", "sm_87", "1.7.1", "none"),
        ("int8", "tensorrt", "sm_87", "8.6.1", "none"),
        ("int8", "eager", None, None, "none"),
        ("kv-int8", "tensorrt", "sm_87", "10.3.0", "int8 or int4-weight"),
        ("kv-fp8", "tensorrt-rtx", "sm_86", "1.7.1", "int8 or int8-weight or int4-weight"),
        ("kv-int8", "tensorrt-rtx", "sm_80", "1.7.1", "int8 or int8-weight or int4-weight"),
    ],
)
def test_illegal_places_are_refused_with_what_they_do_run(
    recipe, backend, target, version, instead
):
    with pytest.raises(InputError, match=f"found recipe {recipe} for {backend}") as refusal:
        check_recipe(RECIPES[recipe], backend, target, version)
    assert f"quantize with {instead}" in str(refusal.value)


@pytest.mark.parametrize("name", ["kv-int8", "kv-fp8"])
def test_engines_that_write_in_place_take_no_narrow_window(name):
    recipe, place = RECIPES[name], ("tensorrt-rtx", "sm_89", "1.7.1")
    check_recipe(recipe, *place)
    check_recipe(recipe, "ort", is_in_place=True)
    check_recipe(RECIPES["int8"], *place, is_in_place=True)
    with pytest.raises(InputError, match=r"write memory in place; .*export with --opset 20"):
        check_recipe(recipe, *place, is_in_place=True)


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(InputError, match=r"int8, fp8, int8-weight, int4-weight, .*kv-int8, kv-fp8"):
        recipe_from_name("int2")
