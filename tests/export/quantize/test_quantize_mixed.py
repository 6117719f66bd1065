"""A bundle whose products have recipes of their own, each stored and computed as its own says."""

import msgspec
import pytest
import torch
from safetensors import safe_open

from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.quantize_report import compared_with_float, suspects
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError

MIXED = RECIPES["mixed"]
STORED = {"int8": torch.int8, "int4-weight": torch.uint8}


@pytest.fixture(scope="module")
def table(tiny_bundle_in_place, tiny_bundle):
    if tiny_bundle != tiny_bundle_in_place:  # blocks need opset 21
        pytest.skip("this ONNX Runtime's newest opset has no blocks; there mixed is of int8 alone")
    return random_input_ranges(tiny_bundle, MIXED, num_episodes=4, num_frames=2)


def test_weights_are_stored_as_chosen(tiny_bundle, table, tmp_path):
    manifest = quantize_bundle(tiny_bundle, tmp_path / "out", MIXED, table)
    assert set(table.chosen.values()) == set(MIXED.parts)
    with safe_open(tmp_path / "out" / "weights.safetensors", "pt") as file:
        for name, recipe in table.chosen.items():
            assert file.get_tensor(f"{name}.weight").dtype == STORED[recipe]
            assert f"{name}.weight{SCALE_SUFFIX}" in file.keys()  # noqa: SIM118 - not a dict
    assert manifest.quantization is not None
    assert {key.partition("/")[2] for key in manifest.quantization.sites} == set(table.chosen)
    found = compared_with_float(tiny_bundle, tmp_path / "out")
    assert suspects(found, "mixed") == []


def test_what_is_not_chosen_stays_wide(tiny_bundle, table, tmp_path):
    left = "mixtures.video.blocks.1.ffn.0"
    chosen = {name: recipe for name, recipe in table.chosen.items() if name != left}
    fewer = msgspec.structs.replace(table, chosen=chosen)
    manifest = quantize_bundle(tiny_bundle, tmp_path / "out", MIXED, fewer)
    assert manifest.quantization is not None
    why = manifest.quantization.wide[f"cache_update/{left}"]
    assert why == "rounding it costs more than it saves, by the table"
    with safe_open(tmp_path / "out" / "weights.safetensors", "pt") as file:
        assert file.get_tensor(f"{left}.weight").dtype == torch.float32


def test_all_of_one_recipe_is_that_recipe(tiny_bundle, table, tmp_path):
    chosen = dict.fromkeys(table.chosen, "int8")
    same = msgspec.structs.replace(table, chosen=chosen)
    quantize_bundle(tiny_bundle, tmp_path / "mixed", MIXED, same)
    alone = msgspec.structs.replace(table, recipe="int8", chosen={})
    quantize_bundle(tiny_bundle, tmp_path / "int8", RECIPES["int8"], alone)
    for name in ("weights.safetensors", "cache_update.onnx", "action_step.onnx"):
        first, second = ((tmp_path / each / name).read_bytes() for each in ("mixed", "int8"))
        assert first == second


def test_an_opset_without_blocks_is_refused(tiny_bundle_opset20, table, tmp_path):
    manifest = check_bundle(tiny_bundle_opset20)
    hashes = {
        graph: manifest.files[manifest.graphs[graph].file].sha256 for graph in table.graph_sha256s
    }
    other = msgspec.structs.replace(table, graph_sha256s=hashes)
    with pytest.raises(InputError, match="expected at least 21 for mixed"):
        quantize_bundle(tiny_bundle_opset20, tmp_path / "out", MIXED, other)
    assert list(tmp_path.iterdir()) == []
