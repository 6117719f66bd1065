"""Engines of quantized bundles against their own graphs: roundings pass, faults do not."""

import json
import sys

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.fakes.bundles import TINY, copy_of, edit_manifest
from tests.fakes.cuda_driver import installed
from tests.fakes.ort_engines import engines_of
from tests.fakes.tensorrt import FakeTensorRt

from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.shaken import shaken_bundle
from memorywam_export.recipes.recipes import RECIPES
from memorywam_export.verify.verify_quantized import verify_quantized
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.errors import BundleError

RTX = "tensorrt-rtx"
BUNDLES = {"int8": "tiny_bundle", "fp8": "tiny_bundle", "kv-int8": "tiny_bundle_opset20"}


@pytest.fixture(scope="module")
def quantized(request, tmp_path_factory):
    """Makes a quantized bundle once. Read only."""
    made = {}

    def make(name):
        if name not in made:
            root, recipe = request.getfixturevalue(BUNDLES[name]), RECIPES[name]
            table = random_input_ranges(root, recipe, num_episodes=2, num_frames=3)
            made[name] = tmp_path_factory.mktemp("quantized") / name
            quantize_bundle(root, made[name], recipe, table)
        return made[name]

    return make


@pytest.fixture
def library(monkeypatch):
    fake = FakeTensorRt(installed(monkeypatch), is_rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


def verify(bundle, engines, *words):
    known = ("--frames", "5", "--backend", RTX, "--engine", str(engines))
    return main(["verify", str(bundle), *known, *words])


def edited(bundle, folder, graph, change):
    """Return a copy one of whose graphs `change` has worked on."""
    copy = copy_of(bundle, folder, "planted")
    path = copy / read_manifest(bundle).graphs[graph].file
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    onnx.save(model, path)
    return copy


@pytest.mark.parametrize("name", BUNDLES)
def test_engines_of_a_quantized_bundle_load_once_a_report_vouches(
    name, quantized, library, tmp_path
):
    bundle = quantized(name)
    engines = engines_of(library, bundle, tmp_path / "engines")
    ask = f"`memorywam verify BUNDLE --backend {RTX} --engine"
    with pytest.raises(BundleError, match=f"found no parity report; .* {ask}"):
        open_bundle(bundle, backend=RTX, engines=engines)
    assert verify(bundle, engines, "--json", str(tmp_path / "told.json")) == 0
    told = json.loads((tmp_path / "told.json").read_bytes())["data"]
    assert (told["recipe"], told["frames"], told["verdict"]) == (name, 5, "ok")
    assert told == json.loads((engines / "parity.json").read_bytes())
    graphs = read_manifest(bundle).graphs
    assert {f"graph {graph}" for graph in graphs} < set(told["compared"])
    session = open_bundle(bundle, backend=RTX, engines=engines)
    assert session.manifest.quantization is not None


def first_weight(graph):
    """The node that dequantizes a graph's first narrow weight."""
    stored = {one.name for one in graph.initializer}
    found = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    return next(node for node in found if node.input[0] in stored)


def scale_off(graph):
    """One weight's scales are a fifth too large."""
    node, (result,) = first_weight(graph), first_weight(graph).output
    node.output[0] = f"{result}.right"
    factor = helper.make_tensor("factor", onnx.TensorProto.FLOAT, (), [1.2])
    graph.initializer.append(factor)
    wrong = helper.make_node("Mul", [node.output[0], "factor"], [result])
    graph.node.insert(list(graph.node).index(node) + 1, wrong)


def clipped(graph):
    """One tensor saturates early: it is quantized at an eighth of the scale that it is read at."""
    node = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    (scale,) = (one for one in graph.initializer if one.name == node.input[1])
    eighth = np.asarray(onnx.numpy_helper.to_array(scale) / 8, np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(eighth, "eighth"))
    node.input[1] = "eighth"


@pytest.mark.parametrize(
    ("name", "graph", "fault"),
    [
        ("int8", "cache_update", scale_off),
        ("int8", "action_step", clipped),
        ("fp8", "cache_update", clipped),
        ("fp8", "action_step", scale_off),
    ],
)
def test_a_fault_in_the_devices_graphs_is_caught(
    name, graph, fault, quantized, library, tmp_path, capsys
):
    bundle = quantized(name)
    planted = edited(bundle, tmp_path, graph, fault)
    engines = engines_of(library, bundle, tmp_path / "engines", computing=planted)
    assert verify(bundle, engines) == 1
    assert f"fails: graph {graph}" in capsys.readouterr().out
    with pytest.raises(BundleError, match="says that a check failed"):
        open_bundle(bundle, backend=RTX, engines=engines)


def test_a_window_stored_at_a_wrong_scale_is_caught(quantized, library, tmp_path, capsys):
    bundle = quantized("kv-int8")
    planted = edited(bundle, tmp_path, "cache_update", clipped)
    engines = engines_of(library, bundle, tmp_path / "engines", computing=planted)
    assert verify(bundle, engines) == 1
    assert "fails: graph cache_update (window_new.00.k" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "reach", "status"),
    [("int8", 0.1, 0), ("int8", 2.0, 1), ("fp8", 0.1, 0), ("kv-int8", 0.1, 0), ("kv-int8", 2.0, 1)],
)
def test_what_rounds_the_other_way_now_and_then_passes(
    name, reach, status, quantized, library, tmp_path
):
    """A device that pushes values by a tenth of a step: a twentieth of them fall elsewhere."""
    bundle = quantized(name)
    pushed = tmp_path / "pushed"
    shaken_bundle(bundle, pushed, read_manifest(bundle), reach)
    engines = engines_of(library, bundle, tmp_path / "engines", computing=pushed)
    checks, data = verify_quantized(bundle, RTX, engines, num_frames=6)
    assert any(not check.ok for check in checks) == bool(status)
    actions = data["compared"]["actions, free-running"]["actions"]
    assert actions["max_abs"] > TOLERANCES["fp32"].max_abs  # which floats alone would not pass


def test_shaking_leaves_graphs_without_roundings_as_they_are(quantized, tmp_path):
    bundle = quantized("int8")
    before = read_manifest(bundle)
    after = shaken_bundle(bundle, tmp_path / "shaken", before)
    changed = {name for name, entry in after.files.items() if entry != before.files[name]}
    assert changed == {f"{graph}.onnx" for graph in ("cache_update", "action_step", "state_kv")}
    open_bundle(tmp_path / "shaken")  # every hash is right


def test_a_quantized_bundle_needs_no_checkpoint_and_takes_none(quantized, capsys):
    words = ["verify", str(quantized("int8")), "--backend", "ort", "--frames", "2"]
    assert main(words) == 0
    assert "was not written into the bundle" in capsys.readouterr().out
    assert main([*words, "--checkpoint", TINY, "--drift", "300"]) == 2
    assert "found --checkpoint, --drift for a quantized bundle" in capsys.readouterr().err
    assert main(words[:2]) == 2
    assert "`memorywam verify BUNDLE --backend BACKEND`" in capsys.readouterr().err


def test_a_float_bundle_needs_its_checkpoint(tiny_bundle, capsys):
    assert main(["verify", str(tiny_bundle), "--backend", "ort"]) == 2
    assert "found no --checkpoint" in capsys.readouterr().err


def test_bfloat16_is_refused_before_anything_is_opened(quantized, tmp_path, capsys):
    bundle = copy_of(quantized("int8"), tmp_path)
    edit_manifest(bundle, lambda found: found.update(precision="bf16"))
    assert main(["verify", str(bundle), "--backend", RTX]) == 2
    assert "found bf16 beside what is quantized" in capsys.readouterr().err
