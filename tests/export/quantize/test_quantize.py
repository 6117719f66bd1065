"""Quantized bundles: what is stored and placed, and what runs."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from tests.fakes.bundles import bundle_once

from memorywam_export.bundles.text_kv import text_arrays
from memorywam_export.parity.parity import drive, random_script
from memorywam_export.quantize.quantize import TABLE_FILE, bundle_graphs, quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.quantize_report import FLOORS_DB, compared_with_float, suspects
from memorywam_export.quantize.quantize_sites import ONCE_AN_INSTRUCTION
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX, tensor_in_floats
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.backends.ort import OrtBackend
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.scale_table import scale_table_from_json

WEIGHTS = "weights.safetensors"
SITE = "cache_update/mixtures.video.blocks.1.ffn.0"
PRODUCTS = {
    name: recipe
    for name, recipe in RECIPES.items()
    if recipe.weight is not None and not recipe.parts
}
"""Those of products; `test_quantize_memory` and `test_quantize_mixed` have the others."""
STORED = {"int8": torch.int8, "int8-weight": torch.int8, "fp8": torch.float8_e4m3fn}


@pytest.fixture(scope="module")
def tables(tiny_bundle):
    """Tables of random-input ranges for the recipes that need one."""
    return {
        name: random_input_ranges(tiny_bundle, recipe, num_episodes=4, num_frames=2)
        for name, recipe in PRODUCTS.items()
        if recipe.activation is not None
    }


@pytest.fixture(scope="module", params=list(PRODUCTS))
def quantized(request, tiny_bundle, tables, tmp_path_factory):
    """Recipe, bundle as exported, quantized bundle. Read only."""
    if RECIPES[request.param].granularity == "block" and check_bundle(tiny_bundle).opset < 21:
        pytest.skip("int4 needs opset 21")
    out = tmp_path_factory.mktemp("quantized") / request.param
    quantize_bundle(tiny_bundle, out, RECIPES[request.param], tables.get(request.param))
    return RECIPES[request.param], tiny_bundle, out


def quantization_of(manifest):
    assert manifest.quantization is not None
    return manifest.quantization


def test_the_manifest_says_what_was_done(quantized):
    recipe, root, out = quantized
    before, after = check_bundle(root), check_bundle(out)
    assert quantization_of(after).recipe == recipe.name
    assert after.precision == before.precision
    assert after.parity is None
    sites = {site.key for site in bundle_graphs(root, before).sites}
    assert set(quantization_of(after).sites) | set(quantization_of(after).wide) == sites
    assert not set(quantization_of(after).sites) & set(quantization_of(after).wide)
    graphs = {key.partition("/")[0] for key in quantization_of(after).sites}
    assert {name for name, graph in after.graphs.items() if graph.quantized} == graphs
    assert "cache_update" in graphs
    for name in graphs:
        found, was = after.graphs[name].cost, before.graphs[name].cost
        assert found is not None
        assert was is not None
        assert found.weight_bytes < was.weight_bytes
    assert [prompt.text for prompt in after.prompts] == [p.text for p in before.prompts]


def test_no_wide_copy_of_a_quantized_weight_is_left(quantized):
    recipe, _, out = quantized
    names = {key.partition("/")[2] for key in quantization_of(check_bundle(out)).sites}
    with safe_open(out / WEIGHTS, "pt") as file:
        for name in names:
            stored = file.get_tensor(f"{name}.weight")
            assert stored.dtype == STORED.get(recipe.name, torch.uint8)
        scales = {key for key in file.keys() if key.endswith(SCALE_SUFFIX)}  # noqa: SIM118
    assert scales == {f"{name}.weight{SCALE_SUFFIX}" for name in names}
    for path in out.glob("*.onnx"):
        assert path.stat().st_size < 150_000  # no weight went into a graph


def test_stored_weights_stand_for_the_wide_ones(quantized):
    recipe, root, out = quantized
    for key in quantization_of(check_bundle(out)).sites:
        name = f"{key.partition('/')[2]}.weight"
        wide, found = tensor_in_floats(root / WEIGHTS, name), tensor_in_floats(out / WEIGHTS, name)
        assert found.shape == wide.shape
        error = (found - wide).norm() / wide.norm()
        assert error < {"int8": 0.01, "fp8": 0.05, "int4": 0.15}[recipe.weight]


def test_scales_are_by_output_tensor_or_block(quantized):
    recipe, root, out = quantized
    name = "mixtures.action.blocks.1.ffn.0.weight"
    with safe_open(out / WEIGHTS, "pt") as file:
        stored, scales = file.get_tensor(name), file.get_tensor(name + SCALE_SUFFIX)
    wide = tensor_in_floats(root / WEIGHTS, name)  # [32, 16]
    largest, shape = {
        "channel": (wide.abs().amax(1) / 127, (32, 16)),
        "tensor": (wide.abs().amax() / 448, (32, 16)),
        "block": (wide.abs().amax(1)[None] / 7, (16, 16)),  # turned, two in a byte
    }[recipe.granularity]
    torch.testing.assert_close(scales, largest)
    assert stored.shape == shape
    if recipe.weight == "int8":
        assert stored.abs().amax(1).eq(127).all()  # symmetric: -128 is not used


def test_explicit_qdq_alone(quantized):
    recipe, _, out = quantized
    manifest = check_bundle(out)
    for graph in manifest.graphs:
        model = onnx.load(out / manifest.graphs[graph].file, load_external_data=False)
        onnx.checker.check_model(str(out / manifest.graphs[graph].file))
        kinds = [node.op_type for node in model.graph.node]
        num_sites = sum(key.startswith(f"{graph}/") for key in quantization_of(manifest).sites)
        both = recipe.activation is not None and graph != ONCE_AN_INSTRUCTION
        assert kinds.count("DequantizeLinear") == num_sites * (2 if both else 1)
        assert kinds.count("QuantizeLinear") == (num_sites if both else 0)
        assert not {"DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits"} & set(kinds)
        assert {opset.domain for opset in model.opset_import} == {""}


def test_ort_runs_it_near_the_float_bundle(quantized):
    recipe, root, out = quantized
    traces = []
    for bundle in (root, out):
        session = open_bundle(bundle, num_threads=1, spin=False)
        script = random_script(session.contract, num_frames=4, seed=3)
        traces.append(drive(session, script, lambda _: None, "test"))
    error = traces[1].actions - traces[0].actions
    assert 0 < np.abs(error).max() < 1.0
    sqnr = -20 * np.log10(np.linalg.norm(error) / np.linalg.norm(traces[0].actions))
    assert sqnr > {"int8": 25, "fp8": 20, "int8-weight": 35, "int4-weight": 15}[recipe.name]


KERNELS = {
    "int8": "MatMulIntegerToFloat",
    "int8-weight": "MatMulNBits",
    "int4-weight": "MatMulNBits",
    "fp8": "QuantizeLinear",
}


def test_the_recipes_kernels_run(quantized, tmp_path):
    recipe, _, out = quantized
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 31):
        pytest.skip("the kernels named here are ONNX Runtime 1.31's; older ones may fuse otherwise")
    backend = OrtBackend(num_threads=1, spin=False, profile=tmp_path)
    session = open_bundle(out, backend=backend)
    drive(session, random_script(session.contract, num_frames=2, seed=3), lambda _: None, "test")
    files = backend.end_profile()
    for graph in ("cache_update", "action_step", "state_kv"):
        events = json.loads(Path(files[graph]).read_text())
        ran = {
            e["name"] for e in events if e.get("args", {}).get("op_name") == KERNELS[recipe.name]
        }
        sites = quantization_of(check_bundle(out)).sites
        assert len(ran) == sum(key.startswith(f"{graph}/") for key in sites)


def test_every_tensor_is_above_its_floor(quantized):
    recipe, root, out = quantized
    found = compared_with_float(root, out)
    names = {tensor.name for tensor in found}
    assert {f"{key}:output" for key in quantization_of(check_bundle(out)).sites} <= names
    assert suspects(found, recipe.name) == []
    assert found[0].sqnr_db >= FLOORS_DB[recipe.name]


def test_the_same_input_gives_the_same_bytes(quantized, tables, tmp_path):
    recipe, root, out = quantized
    quantize_bundle(root, tmp_path / "again", recipe, tables.get(recipe.name))
    for path in sorted(out.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_the_table_travels(tiny_bundle, tables, tmp_path):
    manifest = quantize_bundle(tiny_bundle, tmp_path / "out", RECIPES["int8"], tables["int8"])
    assert quantization_of(manifest).table == TABLE_FILE
    assert scale_table_from_json((tmp_path / "out" / TABLE_FILE).read_bytes()) == tables["int8"]
    (tmp_path / "out" / TABLE_FILE).write_bytes(b"{}")
    with pytest.raises(BundleError, match=TABLE_FILE):
        check_bundle(tmp_path / "out")


def test_instructions_can_be_added_to_a_quantized_bundle(quantized):
    recipe, root, out = quantized
    contract = check_bundle(out).contract
    context = np.random.default_rng(0).standard_normal((1, 3, contract.text_dim), np.float32)
    wide, found = (text_arrays(bundle / WEIGHTS, contract, context) for bundle in (root, out))
    worst = max(np.linalg.norm(f - w) / np.linalg.norm(w) for f, w in zip(found, wide, strict=True))
    assert 0 < worst < {"int8": 0.02, "fp8": 0.1, "int4": 0.3}[recipe.weight]


def test_one_backend_serves_bundles_of_two_recipes(tiny_bundle, tables, tmp_path):
    backend = backend_from_name("ort", num_threads=1, spin=False)
    for name in ("fp8", "int8"):
        quantize_bundle(tiny_bundle, tmp_path / name, RECIPES[name], tables[name])
        open_bundle(tmp_path / name, backend=backend)


@pytest.mark.parametrize("name", ["int8", "fp8", "int8-weight"])
def test_the_older_opset(name, tiny_bundle_opset20, tmp_path):
    root, recipe = tiny_bundle_opset20, RECIPES[name]
    table = None
    if recipe.activation is not None:
        table = random_input_ranges(root, recipe, num_episodes=4, num_frames=2)
    quantize_bundle(root, tmp_path / name, recipe, table)
    assert suspects(compared_with_float(root, tmp_path / name), recipe.name) == []


def test_the_older_opset_has_no_blocks(tiny_bundle_opset20, tmp_path):
    with pytest.raises(InputError, match="expected at least 21"):
        quantize_bundle(tiny_bundle_opset20, tmp_path / "out", RECIPES["int4-weight"])


def test_a_narrow_precision_keeps_its_type_for_what_stays_wide(tmp_path_factory, tmp_path):
    root = bundle_once(tmp_path_factory, 24, precision="bf16")
    manifest = quantize_bundle(root, tmp_path / "out", RECIPES["int8-weight"])
    assert manifest.precision == "bf16"
    onnx.checker.check_model(str(tmp_path / "out" / "cache_update.onnx"))
    for key in quantization_of(manifest).sites:
        name = f"{key.partition('/')[2]}.weight"
        wide = tensor_in_floats(root / WEIGHTS, name).float()
        found = tensor_in_floats(tmp_path / "out" / WEIGHTS, name)
        assert found.dtype == torch.bfloat16
        assert (found.float() - wide).norm() / wide.norm() < 0.01
