"""A bundle's drift over more frames than it ships with, and its cards."""

import json

import msgspec
import pytest
from tests.fakes.bundles import TINY

from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.episodes.bundle_drift import DriftOptions, bundle_drift, drift_plan
from memorywam_export.episodes.drift_gate import GROWTH_PER_DECADE
from memorywam_export.episodes.drift_page import drift_figures
from memorywam_robot.demo import SHIPPED_CHECKPOINT
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import MemoryPlan
from memorywam_runtime.report import json_from_data
from memorywam_runtime.session import Session


@pytest.fixture(scope="module")
def found(tiny_bundle):
    told: list[str] = []
    options = DriftOptions(num_frames=40, precisions=("fp32", "fp16"))
    with pytest.MonkeyPatch.context() as patch:  # too short to judge, and quick
        patch.setattr("memorywam_export.episodes.bundle_drift.LEAST_FRAMES", 40)
        checks, data = bundle_drift(
            tiny_bundle, checkpoint_from_argument(TINY), options, tell=told.append
        )
    return checks, json.loads(json_from_data(data)), told


@pytest.mark.proof
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("checkpoint", [TINY, str(SHIPPED_CHECKPOINT)])
def test_over_1000_frames_no_bundle_drifts(checkpoint, precision, tmp_path):
    source = checkpoint_from_argument(checkpoint)
    export_bundle(source, tmp_path / "bundle", ExportOptions(precision=precision))
    checks, data = bundle_drift(
        tmp_path / "bundle", source, DriftOptions(precisions=("bf16",) * (precision == "fp32"))
    )
    assert [check for check in checks if not check.ok] == []
    for rung in data["rungs"]:  # those in other types too
        assert max(rung["growth_per_decade"].values()) <= GROWTH_PER_DECADE, rung["rung"]


def test_checks_and_curves_of_every_rung(found):
    checks, data, told = found
    assert {check.rung for check in checks} == {"graph fp32", "onnx"}
    assert [(rung["rung"], rung["judged"]) for rung in data["rungs"]] == [
        ("graph fp32", True),
        ("onnx", True),
        ("graph fp16", False),
    ]
    single, half = (data["rungs"][index]["free"][-1]["actions"]["rel_rms"] for index in (1, 2))
    assert 1e-9 < single < 1e-5 < half < 1e-2
    assert told[-1] == "drift: frame 40 of 40"


def test_its_cards_tell_every_curve(found):
    cards = "".join(drift_figures(found[1]))
    assert cards.count("<svg") == 7
    assert "x0." in cards or "x1." in cards
    for rung in ("graph fp32", "onnx", "graph fp16"):
        assert f"actions, free running: {rung}" in cards


def test_an_infinite_error_leaves_the_cards_whole(found):
    data = json.loads(json.dumps(found[1]))
    data["rungs"][2]["free"][3]["actions"]["rel_rms"] = "inf"
    data["rungs"][2]["growth_per_decade"]["actions"] = "inf"
    assert "xinf" in "".join(drift_figures(data))


def test_a_plan_holds_the_frames(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    assert drift_plan(manifest, 256) == manifest.memory
    assert drift_plan(manifest, 1000).gist_buckets == (32, 64, 128, 256, 512, 1000)
    with pytest.raises(InputError, match="found 199 frames of drift; expected at least 200"):
        drift_plan(manifest, 199)


def test_fixed_rows_say_how_long_at_most(tiny_bundle, monkeypatch):
    manifest = read_manifest(tiny_bundle)
    session = open_bundle(tiny_bundle)
    device = Session(
        msgspec.structs.replace(
            manifest,
            memory=MemoryPlan(
                max_frames=220, gist_buckets=(220,), on_full="refuse", bytes_per_token=8
            ),
        ),
        session.backend,
        session.engines,
    )
    monkeypatch.setattr(device.backend, "name", "tensorrt")
    assert drift_plan(manifest, 220, device).gist_buckets == (220,)
    with pytest.raises(InputError, match="the engines of tensorrt hold 220"):
        drift_plan(manifest, 221, device)


def test_another_checkpoint_is_refused(tiny_bundle):
    other = checkpoint_from_argument("random:tiny-fastwam")
    with pytest.raises(InputError, match="expected the bundle's"):
        bundle_drift(tiny_bundle, other)
