"""The ladder holds on a good bundle, and says what is wrong with a bad one."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.fakes.bundles import TINY, bundle_once, copy_of, edit_manifest
from tests.fakes.rungs import NEWEST_OPSET

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.weights import weight_spans
from memorywam_export.eager.eager import eager_session, model_from_tensors, rewritten_model
from memorywam_export.graphs.rewrites import rewrites_of_manifest
from memorywam_export.ladder.climb import Rung, climb
from memorywam_export.parity.parity import drive, random_script, reference_trace
from memorywam_export.parity.parity_report import rung_checks
from memorywam_export.parity.trace_report import difference
from memorywam_export.verify.verify_report import VerifyOptions, verify_bundle
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.memory import Visible

ALTERED = "proprio_encoder.bias"


def altered(bundle, folder, name=ALTERED):
    """Return a copy whose manifest is right about a weights file that is not."""
    copy = copy_of(bundle, folder)
    path = copy / "weights.safetensors"
    span = weight_spans(path)[name]
    values = np.memmap(path, np.float32, "r+", span.offset, (span.num_bytes // 4,))
    values[0] += 0.5
    values.flush()
    del values

    def rehash(manifest):
        manifest["files"]["weights.safetensors"]["sha256"] = sha256_of(path)

    edit_manifest(copy, rehash)
    return copy


def failed(checks):
    return {f"{check.rung}: {check.what}": check for check in checks if not check.ok}


def test_a_good_bundle_holds_across_evictions_and_a_bucket_change(tiny_bundle):
    checks, data = verify_bundle(
        tiny_bundle, checkpoint_from_argument(TINY), VerifyOptions(num_frames=34)
    )
    assert not failed(checks)
    assert data["verdict"] == "ok"
    assert data["covered"] == {"evictions": 29, "ring_wraps": 10, "gist_bucket_changes": 1}
    assert [rung["rung"] for rung in data["rungs"]] == ["graph fp64", "graph fp32", "onnx"]
    assert set(data["graphs"]) == set(read_manifest(tiny_bundle).graphs)
    joints = data["actions"]["joints"]
    assert len(joints) == 14
    assert max(joint["normalized"] for joint in joints) == data["actions"]["max_abs"] <= 1e-4
    scale = checkpoint_from_argument(TINY).normalization.action.scale
    assert [joint["error"] * abs(s) for joint, s in zip(joints, scale, strict=True)] == [
        pytest.approx(joint["normalized"]) for joint in joints
    ]
    assert {joint["unit"] for joint in joints} <= {"rad", "fraction", "1"}
    assert [entry["frame"] for entry in data["by_frame"]] == list(range(34))
    assert set(data["memory"]) == {
        f"memory.{layer:02d}.{part}" for layer in range(3) for part in "kv"
    }
    assert data["noise_effect"] > 1


def test_graphs_that_give_new_rows_out_hold_too(tiny_bundle_opset20):
    checks, data = verify_bundle(
        tiny_bundle_opset20, checkpoint_from_argument(TINY), VerifyOptions(num_frames=12)
    )
    assert not failed(checks)
    assert "drift" not in {check.what for check in checks}  # too short to judge
    assert "new.00.k" in data["graphs"]["cache_update"]["tensors"]


def test_an_altered_weight_is_named_where_it_is_and_where_it_shows(tiny_bundle, tmp_path):
    bundle = altered(tiny_bundle, tmp_path)
    checks, data = verify_bundle(
        bundle, checkpoint_from_argument(TINY), VerifyOptions(num_frames=3)
    )
    bad = failed(checks)
    assert data["verdict"] == "failed"
    assert ALTERED in bad["bundle: 209 weights"].worst
    assert bad["bundle: 209 weights"].max_abs == pytest.approx(0.5)
    assert "action_state" in bad["onnx: graph state_kv"].worst
    assert "joint" in bad["onnx: actions, free-running"].worst
    assert "onnx: graph vae_image" not in bad  # which the weight has no part in
    assert not [name for name in bad if name.startswith("graph")]


def test_another_checkpoint_fails_name_by_name(tiny_bundle):
    checks, data = verify_bundle(
        tiny_bundle, checkpoint_from_argument("random:tiny:1"), VerifyOptions(num_frames=2)
    )
    assert "209 differ" in failed(checks)["bundle: 209 weights"].worst
    assert data["verdict"] == "failed"


def test_another_contract_ends_the_comparison(tiny_bundle):
    checks, data = verify_bundle(tiny_bundle, checkpoint_from_argument("random:tiny-fastwam"))
    assert [check.what for check in checks if not check.ok] == ["contract"]
    assert len(checks) == 1
    assert data["verdict"] == "failed"


def test_other_statistics_are_noticed(tiny_bundle, tmp_path):
    copy = copy_of(tiny_bundle, tmp_path)

    def shift(manifest):
        manifest["normalization"]["action"]["offset"][3] += 0.25

    edit_manifest(copy, shift)
    checks, _ = verify_bundle(copy, checkpoint_from_argument(TINY), VerifyOptions(num_frames=1))
    assert list(failed(checks)) == ["bundle: normalization"]


def test_a_memory_that_forgets_its_anchors_is_noticed(tiny_bundle):
    """Or the free-running rungs would prove nothing about memory."""
    checkpoint = checkpoint_from_argument(TINY)
    model = model_from_tensors(
        checkpoint.contract, {w.name: w.load() for w in checkpoint.weights}, torch.float64
    )
    script = random_script(checkpoint.contract, 7, seed=3)
    truth = reference_trace(model, script)
    manifest = read_manifest(tiny_bundle)
    rewritten = rewritten_model(
        checkpoint.contract, checkpoint.weights, torch.float64, rewrites_of_manifest(manifest)
    )

    def without_anchors():
        return eager_session(
            rewritten,
            checkpoint.normalization,
            cache_write=manifest.cache_write,
            visible=Visible(anchors=False),
        )

    rung = Rung(name="forgetful", precision="fp64", open=without_anchors)
    (climbed,) = climb([rung], truth, script, manifest, lambda _: None)
    result = climbed.result
    bad = {check.what for check in rung_checks(result) if not check.ok}
    assert bad == {"memory after the last frame", "actions, free-running"}
    assert result.by_frame.actions[0] <= 1e-6 < result.by_frame.actions[-1]


def test_the_eager_backend_runs_a_bundle_by_name(tiny_bundle):
    script = random_script(read_manifest(tiny_bundle).contract, 4, seed=5)
    by_onnx = drive(open_bundle(tiny_bundle), script, lambda _: None, "onnx")
    by_torch = drive(open_bundle(tiny_bundle, backend="eager"), script, lambda _: None, "eager")
    assert difference(by_torch.actions, by_onnx.actions).max_abs <= 1e-4


def test_what_cannot_be_verified_is_refused(tiny_bundle):
    checkpoint = checkpoint_from_argument(TINY)
    with pytest.raises(InputError, match="257 frames; the bundle's memory holds 256"):
        verify_bundle(tiny_bundle, checkpoint, VerifyOptions(num_frames=257))
    with pytest.raises(InputError, match="at least 1"):
        verify_bundle(tiny_bundle, checkpoint, VerifyOptions(num_frames=0))
    with pytest.raises(MissingPartError, match="expected CUDAExecutionProvider"):
        verify_bundle(tiny_bundle, checkpoint, VerifyOptions(backend="ort-cuda"))


def test_a_bf16_bundle_is_verified_in_torch(tmp_path_factory):
    """ONNX Runtime cannot run it on the CPU: the graphs in the bundle's type are the last rung."""
    checkpoint = checkpoint_from_argument(TINY)
    bundle = bundle_once(tmp_path_factory, NEWEST_OPSET, precision="bf16")
    checks, data = verify_bundle(bundle, checkpoint, VerifyOptions(num_frames=4))
    assert [rung["rung"] for rung in data["rungs"]] == ["graph fp64", "graph fp32", "graph bf16"]
    assert data["verdict"] == "ok", failed(checks)
    # Of 8 bits, and therefore not none; measured: 0.028.
    assert 1e-4 < data["rungs"][-1]["actions"]["max_abs"] < 0.1


def test_a_difference_knows_its_place_and_fails_on_nan():
    wanted = np.zeros((2, 3))
    found = wanted.copy()
    found[1, 2] = -0.5
    worst = difference(found, wanted, lambda index: f"row {index[0]}, column {index[1]}")
    assert (worst.max_abs, worst.worst) == (0.5, "row 1, column 2")
    found[0, 1] = np.nan
    assert difference(found, wanted).max_abs == np.inf
    assert difference(found, wanted).worst == "(0, 1)"
    assert difference(wanted[:1], wanted).max_abs == np.inf


def test_a_missing_weight_is_named(tiny_bundle, tmp_path):
    """A bundle without one of the checkpoint's weights differs by an infinity, not by nothing."""
    from memorywam_export.checkpoints.weights import Weight, write_weights
    from memorywam_export.verify.bundle_parity import bundle_checks

    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(tiny_bundle / "manifest.json", folder)
    with safe_open(tiny_bundle / "weights.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != ALTERED}  # noqa: SIM118
    weights = [
        Weight(name, tuple(t.shape), t.dtype, partial(torch.clone, t))
        for name, t in tensors.items()
    ]
    write_weights(folder / "weights.safetensors", weights)
    checks = bundle_checks(folder, read_manifest(folder), checkpoint_from_argument(TINY))
    (bad,) = failed(checks).values()
    assert (bad.max_abs, bad.worst) == (np.inf, f"1 differ: {ALTERED}")
