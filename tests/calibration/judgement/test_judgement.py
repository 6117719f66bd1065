"""A quantized bundle is judged beside the float one; what it does badly is seen where it is."""

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.export.episodes.test_closed_loop import FakeRuns

from memorywam_calibration.calibrate import Options
from memorywam_calibration.delivery import delivered
from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_calibration.episodes.held_out import held_out_episodes, instruct, one_after_another
from memorywam_calibration.judgement.chunk_error import ChunkErrors, JointError, chunk_errors
from memorywam_calibration.judgement.judgement import JudgeOptions
from memorywam_calibration.judgement.judgement_checks import (
    bytes_check,
    chunk_checks,
    loop_checks,
    memory_check,
    tick_check,
)
from memorywam_calibration.judgement.judgement_page import page_from_judgement
from memorywam_calibration.judgement.narrow_bytes import narrow_bytes
from memorywam_calibration.judgement.tick_ratio import TickRatio, least_median, tick_ratio
from memorywam_export.checkpoints.weights import safetensors_header
from memorywam_export.episodes.closed_loop import LoopOptions, closed_loop
from memorywam_export.episodes.drift import checkpoints, measured_drift
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_memory_bytes import MemoryBytes
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.scale_table import scale_table_from_json

OPTIONS = Options(num_samples=16, allowed=("fill/*",))
JUDGING = JudgeOptions(drift_frames=200, allow_slower=True)


@pytest.fixture(scope="module")
def delivery(tiny_bundle, recordings, tmp_path_factory):
    """What was found, and where the bundle is. Read only."""
    out = tmp_path_factory.mktemp("delivered") / "int8"
    return delivered(tiny_bundle, recordings, out, OPTIONS, JUDGING), out


@pytest.fixture(scope="module")
def episodes(tiny_bundle, recordings):
    manifest = check_bundle(tiny_bundle)
    found = episodes_in(recordings, manifest.contract, manifest.contract_hash, seed=0)
    return held_out_episodes(found)


def test_a_bundle_that_holds_opens_and_carries_its_report(delivery):
    found, out = delivery
    assert found.passed, [check.row for check in found.checks if not check.ok]
    manifest = check_bundle(out)
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert manifest.quantization is not None
    open_bundle(out, num_threads=1)
    report = json.loads((out / manifest.parity.file).read_text())
    assert report["verdict"] == "ok"
    assert report["recipe"] == "int8"
    assert {joint["unit"] for joint in report["chunks"]["joints"]} == {"rad", "fraction"}
    rung = report["drift"]["rungs"][0]
    assert rung["free"][-1]["frames"] == rung["swapped"][-1]["frames"] == 200
    page = (out / manifest.parity.page).read_text()
    assert "every check holds" in page
    assert "Whose error is it?" in page
    assert "Ranges by site" in page


def test_nothing_that_judges_was_calibrated_on(delivery):
    found, out = delivery
    table = scale_table_from_json((out / "scale_table.json").read_bytes())
    assert not set(found.data["held_out"]) & set(table.provenance.calibration)
    assert set(found.data["held_out"]) == set(table.provenance.held_out)


def test_a_bad_table_is_caught_and_its_bundle_stays_shut(
    tiny_bundle, recordings, tmp_path, monkeypatch
):
    def spoilt(root, out, recipe, table, **how):
        entries = {
            key: msgspec.structs.replace(entry, scales=(entry.scales[0] / 40,))
            if entry.kind == "activation"
            else entry
            for key, entry in table.entries.items()
        }
        wrong = msgspec.structs.replace(table, entries=entries)
        return quantize_bundle(root, out, recipe, wrong, **how)

    monkeypatch.setattr("memorywam_calibration.delivery.quantize_bundle", spoilt)
    out = tmp_path / "out"
    found = delivered(tiny_bundle, recordings, out, OPTIONS, JUDGING)
    failed = [check.what for check in found.checks if not check.ok]
    assert "products one call long: SQNR, dB, at least" in failed
    with pytest.raises(BundleError, match="run `memorywam calibrate` and read its page"):
        open_bundle(out)
    open_bundle(out, allow_unverified=True)


def test_a_recipe_of_weights_alone_needs_no_table(tiny_bundle, recordings, tmp_path):
    options = dataclasses.replace(OPTIONS, recipe="int8-weight")
    found = delivered(tiny_bundle, recordings, tmp_path / "out", options, JUDGING)
    assert found.calibration is None
    assert found.passed, [check.row for check in found.checks if not check.ok]
    assert not (tmp_path / "out" / "scale_table.json").exists()
    assert "Ranges by site" not in page_from_judgement(found.data, None)


def test_what_is_not_covered_writes_nothing(tiny_bundle, recordings, tmp_path):
    options = dataclasses.replace(OPTIONS, max_fill=4, allowed=())
    found = delivered(tiny_bundle, recordings, tmp_path / "out", options, JUDGING)
    assert not found.passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["held_out", "development"])
def test_what_cannot_be_judged_is_not_replayed(
    tiny_bundle, recordings, tmp_path, monkeypatch, split
):
    def fewer(*args, **how):
        return [one for one in episodes_in(*args, **how) if one.split != split]

    monkeypatch.setattr("memorywam_calibration.calibrate.episodes_in", fewer)
    monkeypatch.setattr("memorywam_calibration.calibrate.gathered", None)
    options = dataclasses.replace(OPTIONS, recipe="mixed")
    with pytest.raises(InputError, match=r"none held out|none for development"):
        delivered(tiny_bundle, recordings, tmp_path / "out", options, JUDGING)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_there_is_kept(tiny_bundle, recordings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        delivered(tiny_bundle, recordings, tmp_path / "out", OPTIONS, JUDGING)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_the_same_bundle_twice_has_no_error_at_all(tiny_bundle, episodes):
    wide, narrow = (open_bundle(tiny_bundle, num_threads=1) for _ in range(2))
    told: list[str] = []
    errors = chunk_errors(wide, narrow, episodes[:1], tell=told.append)
    assert told == [f"compares chunks of {episodes[0].name}, 1 of 1 episodes"]
    assert errors.max == 0
    assert errors.cosine_p5 == pytest.approx(1)
    assert all(joint.max == 0 and joint.spread > 0 for joint in errors.joints)


def test_actions_alone_leave_memory_as_it_is(tiny_bundle, episodes, tmp_path):
    table = random_input_ranges(tiny_bundle, RECIPES["int8"], num_episodes=2, num_frames=2)
    kept = {key: one for key, one in table.entries.items() if key.startswith("action_step/")}
    hashes = {"action_step": table.graph_sha256s["action_step"]}
    alone = msgspec.structs.replace(table, entries=kept, graph_sha256s=hashes)
    quantize_bundle(tiny_bundle, tmp_path / "out", RECIPES["int8"], alone)
    wide, narrow = (open_bundle(path, num_threads=1) for path in (tiny_bundle, tmp_path / "out"))
    for session in (wide, narrow):
        instruct(session, "random")
    frames = one_after_another(episodes, wide.manifest, 12)
    (curve,) = measured_drift(wide, {"int8": ("fp32", narrow)}, frames, checkpoints(12), swap=True)
    for free, forced, swapped in zip(curve.free, curve.forced, curve.swapped, strict=True):
        assert free.frame.max_abs == 0
        assert swapped.actions.max_abs == 0
        assert free.actions.rel_rms == forced.actions.rel_rms > 0


def test_bytes_are_counted_from_the_files(tiny_bundle, delivery):
    _, out = delivery
    size = narrow_bytes(tiny_bundle, out)
    assert size.narrow == sum(size.by_type.values())
    header, _ = safetensors_header(out / "weights.safetensors")
    sizes = {name: one.num_bytes for name, one in header.items() if one.dtype == "I8"}
    scales = [one.num_bytes for name, one in header.items() if name.endswith("_scale")]
    assert size.num_quantized == sum(sizes.values())
    assert size.quantized == size.num_quantized + sum(scales)
    assert size.wide > size.narrow > 0
    assert 8 < size.bits < 12
    same = narrow_bytes(tiny_bundle, tiny_bundle)
    assert (same.num_quantized, same.ratio) == (0, 1)
    assert not bytes_check(same, "int8", forced=False).ok
    assert "overruled" in bytes_check(same, "int8", forced=True).worst


def test_ticks_are_measured_beside_the_float_bundle_itself(tiny_bundle):
    ticks = tick_ratio(tiny_bundle, tiny_bundle, frames=3, rounds=3)
    assert min(ticks.wide_ms, ticks.narrow_ms, ticks.ratio, ticks.noise) > 0
    assert 0 < ticks.at_least <= ticks.ratio


def test_a_slower_bundle_has_the_larger_ratio(monkeypatch):
    class Arm:
        def __init__(self, options):
            self._ms = 3.0 if options.root == "narrow" else 2.0

        def open(self):
            pass

        def fill(self, num_frames):
            pass

        def tick(self, discard):
            return {"tick": [self._ms]}

    monkeypatch.setattr("memorywam_calibration.judgement.tick_ratio.SessionArm", Arm)
    ticks = tick_ratio(Path("wide"), Path("narrow"), frames=1)
    assert (ticks.wide_ms, ticks.narrow_ms, ticks.ratio, ticks.noise) == (2.0, 3.0, 1.5, 1.0)
    assert ticks.is_slower


def test_chance_alone_is_hardly_ever_slower():
    assert least_median([float(number) for number in range(1, 31)]) == 10
    rng = np.random.default_rng(0)
    alarms = [least_median(values) > 0 for values in rng.standard_t(3, (2000, 30))]
    assert np.mean(alarms) < 0.03


@pytest.mark.parametrize(
    ("at_least", "noise", "ok"), [(0.7, 1.0, True), (1.04, 0.95, True), (1.1, 1.02, False)]
)
def test_slower_is_what_exceeds_the_float_bundle_s_own_difference(at_least, noise, ok):
    ticks = TickRatio(
        frames=1, num_threads=1, rounds=1, wide_ms=1.0, narrow_ms=1.2, ratio=1.2,
        at_least=at_least, noise=noise,
    )  # fmt: skip
    assert tick_check(ticks, "int8", forced=False).ok is ok
    assert tick_check(ticks, "int8", forced=True).ok
    assert ("overruled" in tick_check(ticks, "int8", forced=True).worst) is not ok


@pytest.mark.parametrize(
    ("cosine", "p95", "p99", "verdicts"),
    [
        (0.996, 0.09, 0.29, [True, True, True]),
        (0.994, 0.09, 0.29, [False, True, True]),
        (0.996, 0.11, 0.29, [True, False, True]),
        (0.996, 0.09, 0.31, [True, True, False]),
    ],
)
def test_chunks_are_held_to_all_limits(cosine, p95, p99, verdicts):
    joint = JointError(
        joint=0, name="waist", unit="rad", rms=0.1, p95=0.1, p99=0.1, max=0.1, spread=1, flips=None
    )
    errors = ChunkErrors(
        num_chunks=1,
        cosine_median=cosine,
        cosine_p5=0,
        p95=p95,
        max=1,
        joint_p99=p99,
        joints=(joint,),
    )
    assert [check.ok for check in chunk_checks(errors, "int8")] == verdicts


def test_memory_must_shrink_at_every_length():
    rows = [MemoryBytes(frames=n, wide=10, narrow=n, full_history=20) for n in (5, 9, 10)]
    assert memory_check(rows[:2], "kv-int8").ok
    assert not memory_check(rows, "kv-int8").ok


@pytest.mark.parametrize(("better", "ok"), [(False, False), (True, True)])
def test_success_may_grow_but_not_shrink(better, ok):
    class Runs(FakeRuns):
        def __call__(self, verb, *words, name=None):
            document = super().__call__(verb, *words, name=name)
            for one in document["data"]["episodes"]:
                one["success"] = (words[0] == "narrow") is better or one["seed"] > 20
            return document

    options = LoopOptions(tasks=("recall",), num_episodes=50, seed=7, ablations=())
    runs = Runs({})
    loops = closed_loop(Path("narrow"), runs, options, reference=Path("wide"))
    assert [words[1] for words in runs.calls] == ["wide", "narrow"]
    (check,) = loop_checks(loops)
    assert check.ok is ok
    assert ("14 repairs" if better else "14 regressions") in check.worst
