"""Quantized bundles as engines: the compiler takes them, and the audit shows their types."""

import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from memorywam_export.build_report import built_outcome
from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.engines import engine, engine_build
from memorywam_export.engines.engine import Compiler
from memorywam_export.engines.engine_build import BuildOptions, build_engines
from memorywam_export.engines.engine_lone import lone_weights, spell_out
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_robot.demo import SHIPPED_CHECKPOINT
from memorywam_runtime.bundle import check_bundle, read_manifest
from memorywam_runtime.errors import InputError

RTX = "tensorrt-rtx"
TYPES = {"int8": "INT8", "fp8": "FP8", "int8-weight": "INT8", "int4-weight": "INT4"}


@pytest.fixture(scope="module")
def bundles(tiny_bundle_in_place, tiny_bundle, tmp_path_factory):
    """Quantized bundles by recipe. Read only."""
    folder = tmp_path_factory.mktemp("quantized")
    same = tiny_bundle == tiny_bundle_in_place
    for name, recipe in RECIPES.items():
        if not recipe.needs_table:
            quantize_bundle(tiny_bundle_in_place, folder / name, recipe)
        elif same:
            table = random_input_ranges(tiny_bundle, recipe, num_episodes=2, num_frames=2)
            quantize_bundle(tiny_bundle, folder / name, recipe, table)
    return folder


def quantized_graphs(bundle):
    """Names of the graphs that have Q/DQ."""
    manifest = check_bundle(bundle)
    assert manifest.quantization is not None
    return {name for name, entry in manifest.graphs.items() if entry.quantized is not None}


@pytest.mark.parametrize(
    ("name", "target"),
    [("int8", "sm_89"), ("int8", "sm_86"), ("fp8", "sm_89"), ("int4-weight", "sm_89")],
)
def test_engines_hold_the_recipes_type(name, target, bundles, tmp_path):
    bundle = bundles / name
    if not bundle.exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    result = build_engines(bundle, BuildOptions(backend=RTX, target=target, out=tmp_path))
    assert result.ok
    quantized = quantized_graphs(bundle)
    for graph in result.graphs:
        assert graph.entry is not None
        found = graph.entry.audit.gemm_weight_bytes
        assert (TYPES[name] in found) == (graph.graph in quantized)
        if graph.graph == "cache_update" and name != "int4-weight":
            # One block of three: q, k, v, o [24, 24], cross q, o, and twice [48, 24].
            assert found[TYPES[name]] == 6 * 24 * 24 + 2 * 48 * 24


@pytest.fixture(scope="module", params=["kv-int8", "kv-fp8"])
def narrow(request, tiny_bundle_opset20, tmp_path_factory):
    """A bundle with a narrow window whose graphs give new rows out. Read only."""
    recipe = RECIPES[request.param]
    out = tmp_path_factory.mktemp("narrow") / recipe.name
    table = random_input_ranges(tiny_bundle_opset20, recipe, num_episodes=1, num_frames=2)
    quantize_bundle(tiny_bundle_opset20, out, recipe, table)
    return out


def test_engines_take_a_narrow_window(narrow, tmp_path):
    result = build_engines(narrow, BuildOptions(backend=RTX, target="sm_89", out=tmp_path))
    assert result.ok
    assert {graph.graph for graph in result.graphs} == set(check_bundle(narrow).graphs)


def test_a_narrow_window_beside_memory_in_place_is_refused(bundles, tmp_path):
    if not (bundles / "kv-int8").exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    with pytest.raises(InputError, match="write memory in place"):
        build_engines(bundles / "kv-int8", BuildOptions(backend=RTX, target="sm_89", out=tmp_path))


def test_fp8_is_refused_before_it_has_it(bundles, tmp_path):
    if not (bundles / "fp8").exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    options = BuildOptions(backend=RTX, target="sm_86", out=tmp_path)
    with pytest.raises(InputError, match="quantize to int8"):
        build_engines(bundles / "fp8", options)
    assert list(tmp_path.iterdir()) == []


def test_int8_weights_beside_wide_activations_are_refused_for_tensorrt(
    bundles, tmp_path, monkeypatch
):
    class Proper(Compiler):
        def __init__(self, backend):
            self.backend, self.version = backend, "10.3.0"

        def check_device(self, target):
            pass

    monkeypatch.setattr(engine_build, "Compiler", Proper)
    options = BuildOptions(backend="tensorrt", target="sm_87", out=tmp_path)
    with pytest.raises(InputError, match="quantize with int8 or int4-weight"):
        build_engines(bundles / "int8-weight", options)


@pytest.fixture
def proper(monkeypatch):
    """TensorRT proper, played by the compiler that is here: their interfaces are the same."""

    class Proper(Compiler):
        def __init__(self, backend):
            super().__init__(backend)
            if backend == "tensorrt":
                self.version = "10.3.0"

    monkeypatch.setattr(engine_build, "Compiler", Proper)
    monkeypatch.setitem(sys.modules, "tensorrt", sys.modules["tensorrt_rtx"])
    monkeypatch.setattr(engine, "device_target", lambda: "sm_89")


def loaded(path):
    return onnx.load(path, load_external_data=False)


def outputs_of(model):
    """What a graph without bound weights makes of one random input, Q/DQ as written."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    values = np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
    return [np.asarray(one) for one in session.run(None, {given.name: values})]


@pytest.mark.parametrize("name", ["int8", "fp8", "int8-weight"])
def test_spelling_a_lone_weight_out_changes_no_number(name, bundles, tmp_path):
    path = bundles / name / "prompt_kv.onnx"
    if not path.exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    model = loaded(path)
    assert len(lone_weights(model.graph)) == 4  # of one block: keys and values, video and action
    spell_out(model, path.parent)
    assert lone_weights(model.graph) == []
    assert not any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    onnx.save(model, path.with_name("spelt_out.onnx"))
    try:
        found = outputs_of(str(path.with_name("spelt_out.onnx")))
    finally:
        path.with_name("spelt_out.onnx").unlink()
    for one, wanted in zip(found, outputs_of(str(path)), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("graph", ["cache_update", "action_step", "state_kv"])
def test_weights_beside_narrow_activations_are_not_alone(name, graph, bundles):
    path = bundles / name / f"{graph}.onnx"
    if not path.exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    kinds = Counter(node.op_type for node in loaded(path).graph.node)
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"] > 0
    assert lone_weights(loaded(path).graph) == []


def test_int4_in_blocks_may_stand_alone(bundles):
    assert lone_weights(loaded(bundles / "int4-weight" / "prompt_kv.onnx").graph) == []


@pytest.mark.usefixtures("proper")
def test_tensorrt_proper_gets_lone_weights_in_floats_and_the_build_says_so(bundles, tmp_path):
    if not (bundles / "int8").exists():
        pytest.skip("ONNX Runtime is too old to look into graphs that write in place")
    options = BuildOptions(backend="tensorrt", target="sm_89", out=tmp_path, dry_run=True)
    result = build_engines(bundles / "int8", options)
    assert {one.graph: len(one.spelt_out) for one in result.graphs if one.spelt_out} == {
        "prompt_kv": 4
    }
    told = built_outcome([result], dry_run=True).note
    assert "prompt_kv for sm_89: 4 weights in 8 bits are held in fp32" in told
    here = build_engines(
        bundles / "int8", BuildOptions(backend=RTX, target="sm_89", out=tmp_path, dry_run=True)
    )
    assert not any(one.spelt_out for one in here.graphs)
    assert "8 bits" not in built_outcome([here], dry_run=True).note
    bytes_of = {one.graph: one.weight_bytes for one in result.graphs}
    stored = {one.graph: one.weight_bytes for one in here.graphs}
    assert {graph for graph in stored if bytes_of[graph] > stored[graph]} == {"prompt_kv"}
    entry = read_manifest(bundles / "int8").graphs["prompt_kv"]
    network = Compiler("tensorrt").network(
        bundles / "int8" / entry.file, entry.inputs, entry.outputs
    )
    assert not any(tensor.dtype == "INT8" for one in network.layers() for tensor in one.outputs)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The checkpoint that ships, exported to write in place. Read only."""
    out = tmp_path_factory.mktemp("shipped") / "bundle"
    source = checkpoint_from_argument(str(SHIPPED_CHECKPOINT))
    export_bundle(source, out, ExportOptions(opset=24))
    return out


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "targets", "types"),
    [
        ("int8", ("sm_86", "sm_89"), {"FLOAT", "INT8"}),
        ("fp8", ("sm_89",), {"FLOAT", "FP8"}),
        ("int4-weight", ("sm_86", "sm_89"), {"FLOAT", "INT4"}),
        ("mixed", ("sm_89",), {"FLOAT", "INT4", "INT8"}),
    ],
)
def test_the_shipped_model_compiles_quantized(name, targets, types, shipped, tmp_path):
    recipe = RECIPES[name]
    table = None
    if recipe.needs_table:
        table = random_input_ranges(shipped, recipe, num_episodes=2, num_frames=3)
    manifest = quantize_bundle(shipped, tmp_path / "bundle", recipe, table)
    quantized = quantized_graphs(tmp_path / "bundle")
    assert quantized == {"prompt_kv", "state_kv", "cache_update", "action_step"}
    for target in targets:
        options = BuildOptions(backend=RTX, target=target, out=tmp_path / "engines")
        result = build_engines(tmp_path / "bundle", options)
        assert result.ok
        seen: set[str] = set()
        for graph in result.graphs:
            assert graph.entry is not None
            audit = graph.entry.audit
            narrow = set(audit.gemm_share) - {"FLOAT"}
            assert bool(narrow) == (graph.graph in quantized)
            seen |= set(audit.gemm_share)
            if graph.graph in ("cache_update", "action_step"):
                assert audit.num_memory_writes == 2 * manifest.contract.num_layers
                assert audit.memory_copies == ()
        assert seen == types
    if name == "fp8":
        options = BuildOptions(backend=RTX, target="sm_86", out=tmp_path / "engines")
        with pytest.raises(InputError, match="quantize to int8"):
            build_engines(tmp_path / "bundle", options)
