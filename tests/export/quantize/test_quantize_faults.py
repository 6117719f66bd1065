"""Planted faults of quantization: each is refused, or found in the tensor that it is in."""

import msgspec
import onnx
import pytest
from safetensors import safe_open
from tests.fakes.bundles import copy_of, edit_manifest

from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.quantize_report import compared_with_float, suspects
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import sha256_of

WEIGHTS = "weights.safetensors"
SITE = "cache_update/mixtures.video.blocks.1.ffn.0"


@pytest.fixture(scope="module")
def tables(tiny_bundle):
    """A table of random-input ranges."""
    recipe = RECIPES["int8"]
    return {"int8": random_input_ranges(tiny_bundle, recipe, num_episodes=4, num_frames=2)}


def quantization_of(manifest):
    assert manifest.quantization is not None
    return manifest.quantization


def changed(table, **changes):
    return msgspec.structs.replace(table, **changes)


def with_entry(table, key, **changes):
    entry = msgspec.structs.replace(table.entries[key], **changes)
    return changed(table, entries={**table.entries, key: entry})


def refused(bundle, tmp_path, table, recipe="int8"):
    with pytest.raises(InputError) as refusal:
        quantize_bundle(bundle, tmp_path / "out", RECIPES[recipe], table)
    assert list(tmp_path.iterdir()) == []
    return str(refusal.value)


def test_a_wrong_scale_is_found_where_it_is(tiny_bundle, tables, tmp_path):
    key = f"{SITE}:input"
    (scale,) = tables["int8"].entries[key].scales
    for name, factor in (("large", 40), ("small", 1 / 40)):
        table = with_entry(tables["int8"], key, scales=(scale * factor,))
        quantize_bundle(tiny_bundle, tmp_path / name, RECIPES["int8"], table)
        found = compared_with_float(tiny_bundle, tmp_path / name)
        assert suspects(found, "int8")[0].name == f"{SITE}:output"


def test_a_wrong_axis_is_found_where_it_is(tiny_bundle, tables, tmp_path):
    out = tmp_path / "out"
    name = "cache_update/mixtures.video.blocks.1.self_attn.q"  # square: ONNX takes both axes
    quantize_bundle(tiny_bundle, out, RECIPES["int8-weight"])
    manifest = check_bundle(out)
    path = out / manifest.graphs["cache_update"].file
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(
            "video.blocks.1.self_attn.q.weight"
        ):
            (axis,) = node.attribute
            axis.i = 1 - axis.i
    onnx.save(model, path)

    def hashed_again(parsed):
        entry = parsed["files"][path.name]
        entry.update(num_bytes=path.stat().st_size, sha256=sha256_of(path))

    edit_manifest(out, hashed_again)
    found = compared_with_float(tiny_bundle, out)
    assert suspects(found, "int8-weight")[0].name == f"{name}:output"


def test_scales_of_a_weight_along_another_axis(tiny_bundle, tables, tmp_path):
    entry = msgspec.structs.replace(
        tables["int8"].entries[f"{SITE}:input"], kind="weight", axis=1, scales=(0.1,) * 24
    )
    table = changed(tables["int8"], entries={**tables["int8"].entries, f"{SITE}:weight": entry})
    assert "expected 48 along axis 0" in refused(tiny_bundle, tmp_path, table)


def test_scales_of_weights_are_taken(tiny_bundle, tables, tmp_path):
    entry = msgspec.structs.replace(
        tables["int8"].entries[f"{SITE}:input"], kind="weight", axis=0, scales=(0.5,) * 48
    )
    table = changed(tables["int8"], entries={**tables["int8"].entries, f"{SITE}:weight": entry})
    quantize_bundle(tiny_bundle, tmp_path / "out", RECIPES["int8"], table)
    with safe_open(tmp_path / "out" / WEIGHTS, "pt") as file:
        scales = file.get_tensor(f"{SITE.partition('/')[2]}.weight{SCALE_SUFFIX}")
    assert scales.tolist() == [0.5] * 48


def test_a_missing_site(tiny_bundle, tables, tmp_path):
    entries = {k: e for k, e in tables["int8"].entries.items() if k != f"{SITE}:input"}
    told = refused(tiny_bundle, tmp_path, changed(tables["int8"], entries=entries))
    assert f"has no '{SITE}:input'" in told


def test_a_site_that_the_table_wants_wide(tiny_bundle, tables, tmp_path):
    entries = {k: e for k, e in tables["int8"].entries.items() if k != f"{SITE}:input"}
    table = changed(tables["int8"], entries=entries, wide={SITE: "its error was too large"})
    manifest = quantize_bundle(tiny_bundle, tmp_path / "o", RECIPES["int8"], table)
    assert quantization_of(manifest).wide[SITE] == "its error was too large"
    assert SITE not in quantization_of(manifest).sites


def test_a_graph_that_was_not_calibrated_stays_wide(tiny_bundle, tables, tmp_path):
    kept = {"cache_update", "action_step"}
    table = tables["int8"]
    table = changed(
        table,
        entries={k: e for k, e in table.entries.items() if k.partition("/")[0] in kept},
        graph_sha256s={k: v for k, v in table.graph_sha256s.items() if k in kept},
    )
    manifest = quantize_bundle(tiny_bundle, tmp_path / "o", RECIPES["int8"], table)
    assert {key.partition("/")[0] for key in quantization_of(manifest).sites} == kept
    key = "state_kv/mixtures.action.blocks.1.cross_attn.k"
    assert "nothing of graph" in quantization_of(manifest).wide[key]


def test_a_left_over_site(tiny_bundle, tables, tmp_path):
    entries = dict(tables["int8"].entries)
    entries["cache_update/mixtures.video.blocks.9.ffn.0:input"] = entries[f"{SITE}:input"]
    told = refused(tiny_bundle, tmp_path, changed(tables["int8"], entries=entries))
    assert "no product of the bundle" in told


def test_several_scales_for_an_activation(tiny_bundle, tables, tmp_path):
    table = with_entry(tables["int8"], f"{SITE}:input", scales=(0.1,) * 24, axis=2)
    assert "24 scales along axis 2" in refused(tiny_bundle, tmp_path, table)


def test_a_stale_table(tiny_bundle, tables, tmp_path):
    hashes = {**tables["int8"].graph_sha256s, "cache_update": "0" * 64}
    table = changed(tables["int8"], graph_sha256s=hashes)
    assert "stale" in refused(tiny_bundle, tmp_path, table)


def test_a_table_that_hides_a_hash(tiny_bundle, tables, tmp_path):
    hashes = {k: v for k, v in tables["int8"].graph_sha256s.items() if k != "cache_update"}
    table = changed(tables["int8"], graph_sha256s=hashes)
    assert "no hash of graph" in refused(tiny_bundle, tmp_path, table)


@pytest.mark.parametrize("field", ["contract_hash", "checkpoint_sha256", "recipe"])
def test_a_table_of_something_else(tiny_bundle, tables, tmp_path, field):
    table = changed(tables["int8"], **{field: "other"})
    assert "is of" in refused(tiny_bundle, tmp_path, table)


def test_no_table(tiny_bundle, tmp_path):
    assert "found no scale table" in refused(tiny_bundle, tmp_path, None)


def test_a_table_that_is_not_needed(tiny_bundle, tables, tmp_path):
    told = refused(tiny_bundle, tmp_path, tables["int8"], recipe="int8-weight")
    assert "expected none" in told


def test_a_quantized_bundle_again(tiny_bundle, tmp_path):
    once = tmp_path / "once"
    quantize_bundle(tiny_bundle, once, RECIPES["int8-weight"])
    with pytest.raises(InputError, match="quantized already"):
        quantize_bundle(once, tmp_path / "twice", RECIPES["int8-weight"])
    with pytest.raises(InputError, match="in this order"):
        compared_with_float(once, tiny_bundle)


def test_a_damaged_bundle(tiny_bundle, tmp_path):
    damaged = copy_of(tiny_bundle, tmp_path)
    (damaged / WEIGHTS).write_bytes(b"")
    with pytest.raises(BundleError, match="bytes"):
        quantize_bundle(damaged, tmp_path / "out", RECIPES["int8-weight"])
    assert not (tmp_path / "out").exists()


def test_ranges_of_a_recipe_without(tiny_bundle):
    with pytest.raises(InputError, match="needs no table"):
        random_input_ranges(tiny_bundle, RECIPES["int8-weight"])
