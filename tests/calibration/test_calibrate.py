"""Recordings become a scale table that the emitter takes, the same bytes each time."""

import json
import shutil

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from safetensors.numpy import load_file

from memorywam_calibration.calibrate import Options, calibrated
from memorywam_calibration.episodes.frames import frames_of
from memorywam_calibration.scales.smoothing import ALPHAS
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_report import compared_with_float, suspects
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import open_recording
from memorywam_runtime.scale_table import (
    scale_table_from_json,
    scale_table_schema,
    scale_table_to_json,
)

OPTIONS = Options(num_samples=16)
EDGES = "block {} of 3: the first and last 1 stay wide"


@pytest.fixture
def table(calibration):
    return calibration.table


@pytest.fixture
def plain(calibration_of):
    return calibration_of(smooth=False).table


def test_the_middle_block_becomes_int8(table):
    names = {site.rpartition(":")[0] for site in table.entries}
    parts = [f"self_attn.{part}" for part in "qkvo"] + ["cross_attn.q", "cross_attn.o"]
    assert names == {
        f"{graph}.blocks.1.{part}"
        for graph in ("cache_update/mixtures.video", "action_step/mixtures.action")
        for part in (*parts, "ffn.0", "ffn.2")
    } | {
        f"{graph}.blocks.1.cross_attn.{part}"
        for graph in (
            "prompt_kv/mixtures.video", "prompt_kv/mixtures.action", "state_kv/mixtures.action"
        )
        for part in "kv"
    }  # fmt: skip
    assert {
        f"{name}:{end}"
        for name in names
        for end in ("input", "weight")
        if end == "weight" or not name.startswith("prompt_kv/")  # its activations stay wide
    } == set(table.entries)


def test_what_stays_wide_has_a_reason(table):
    assert not {site.rpartition(":")[0] for site in table.entries} & set(table.wide)
    assert table.wide["cache_update/mixtures.video.blocks.0.ffn.0"] == EDGES.format(0)
    assert table.wide["action_step/mixtures.action.blocks.2.self_attn.q"] == EDGES.format(2)
    assert "head" in table.wide["action_step/mixtures.action.head"]
    assert "encoder" in table.wide["prompt_kv/mixtures.video.text_embedding.0"]


def factors_of(table, site):
    """Return what divides a site's input; 1 of one that is not smoothed."""
    key = site.rpartition(":")[0]
    return next(
        (np.array(one.factors) for one in table.smooth.values() if key in one.sites), np.float64(1)
    )


def test_scales_hold_what_was_seen(table, tiny_bundle):
    weights = load_file(tiny_bundle / "weights.safetensors")
    for site, entry in table.entries.items():
        name = site.partition("/")[2].rpartition(":")[0]
        if entry.kind == "weight":
            weight = weights[f"{name}.weight"] * factors_of(table, site)
            absmax = np.abs(weight).max(axis=1)
            assert entry.axis == 0
            assert entry.scales == ()  # the emitter makes them of the largest values
            assert entry.absmax == pytest.approx(absmax.max(), rel=1e-6)
            assert entry.sqnr_db is not None
            assert entry.sqnr_db > 35
        else:
            (scale,) = entry.scales
            is_smoothed = np.ndim(factors_of(table, site)) > 0
            assert entry.observer == ("max" if is_smoothed else "mse")
            assert 0 < scale <= entry.absmax / 127 * (1 + 1e-6)
            assert entry.clipped < 0.01
            if not is_smoothed:
                assert entry.absmax == table.ranges[site].absmax
    queries, keys = (
        table.entries[f"action_step/mixtures.action.blocks.1.self_attn.{part}:input"]
        for part in "qk"
    )
    assert queries == keys


def test_smoothing_is_chosen_where_it_gains(calibration_of):
    # One pass: in a second, what is rounded otherwise moves all that comes after it.
    table = calibration_of(second_pass=False).table
    plain = calibration_of(second_pass=False, smooth=False).table
    assert plain.smooth == {}
    assert {one.observer for one in plain.entries.values() if one.kind == "activation"} == {"mse"}
    assert set(table.smooth) <= {
        f"{graph}.blocks.1.{part}:input"
        for graph in ("cache_update/mixtures.video", "action_step/mixtures.action")
        for part in ("self_attn.q", "cross_attn.q", "ffn.0")
    }
    assert table.smooth
    for one in table.smooth.values():
        assert one.alpha in ALPHAS
        assert 0 < one.error < one.plain_error < 1e-3
        for key in one.sites:
            assert table.entries[f"{key}:input"].scales != plain.entries[f"{key}:input"].scales
    rest = set(plain.entries) - {
        f"{key}:{end}"
        for one in table.smooth.values()
        for key in one.sites
        for end in ("input", "weight")
    }
    assert all(plain.entries[key] == table.entries[key] for key in rest)


def test_it_says_where_it_comes_from(table, recordings, tiny_bundle):
    made = table.provenance
    files = {file.stem: sha256_of(file) for file in recordings.iterdir()}
    assert made.recordings == files
    parts = (made.calibration, made.development, made.held_out)
    assert sorted(name for part in parts for name in part) == sorted(files)
    assert made.num_samples == len(made.samples) == 16
    assert {one.episode for one in made.samples} <= set(made.calibration)
    assert made.coverage["step/03"] == 16
    assert "fill/16-30" in made.missing
    assert [one.num_samples for one in made.plateau] == [16]
    assert len(made.statistics_sha256) == 64
    assert made.versions["torch"]
    manifest = json.loads((tiny_bundle / "manifest.json").read_bytes())
    assert table.contract_hash == manifest["contract_hash"]
    for graph, digest in table.graph_sha256s.items():
        assert digest == sha256_of(tiny_bundle / f"{graph}.onnx")


def test_memory_is_measured_by_class_of_tokens(table):
    assert set(table.ranges["memory.01.v"].groups) == {"anchor", "recent", "gist"}


def test_the_same_recordings_give_the_same_bytes(table, tiny_bundle, recordings, tmp_path):
    copies = shutil.copytree(recordings, tmp_path / "copies")
    again = calibrated(tiny_bundle, copies, OPTIONS).table
    assert again is not None
    assert scale_table_to_json(again) == scale_table_to_json(table)


def test_another_seed_gives_another_table(table, calibration_of):
    other = calibration_of(seed=1, second_pass=False).table
    assert other.provenance.samples != table.provenance.samples
    assert other.entries != calibration_of(second_pass=False).table.entries


def test_the_file_is_of_its_schema(table):
    text = scale_table_to_json(table)
    jsonschema.validate(json.loads(text), scale_table_schema())
    assert scale_table_from_json(text) == table


def test_smoothed_products_are_nearer_to_the_float_ones(
    table, plain, tiny_bundle, recordings, tmp_path
):
    recording = open_recording(recordings / f"{table.provenance.held_out[0]}.mcap")

    def played(session):
        policy = Policy(session)
        policy.reset(recording.header.instruction)
        for frame in frames_of(recording, policy.contract):
            policy.remember(frame.observations)
            policy.act(frame.state)

    found = []
    for name, one in (("plain", plain), ("smooth", table)):
        quantize_bundle(tiny_bundle, tmp_path / name, recipe_from_name("int8"), one)
        tensors = compared_with_float(tiny_bundle, tmp_path / name, played=played)
        assert suspects(tensors, "int8") == []
        found.append({tensor.name: tensor.sqnr_db for tensor in tensors})
    names = [f"{key}:output" for one in table.smooth.values() for key in one.sites]
    gains = [found[1][name] - found[0][name] for name in names]
    assert np.mean(gains) > 0


def test_the_emitter_takes_it(table, tiny_bundle, tmp_path):
    made = quantize_bundle(tiny_bundle, tmp_path / "int8", recipe_from_name("int8"), table)
    assert made.quantization is not None
    wide, stored = (
        load_file(root / "weights.safetensors") for root in (tiny_bundle, tmp_path / "int8")
    )
    for one in table.smooth.values():
        for key in one.sites:
            name = f"{key.partition('/')[2]}.weight"
            largest = np.abs(wide[name] * np.array(one.factors)).max(axis=1)
            np.testing.assert_allclose(stored[f"{name}_scale"], largest / 127, rtol=1e-5)
    weights = [key for key, entry in table.entries.items() if entry.kind == "weight"]
    assert [f"{key}:weight" for key in sorted(made.quantization.sites)] == sorted(weights)
    with pytest.raises(InputError, match="quantized already, with int8"):
        calibrated(tmp_path / "int8", tmp_path, OPTIONS)


def test_fewer_than_eight_are_refused(tiny_bundle, recordings):
    with pytest.raises(InputError, match="found 7 decision points; expected at least 8"):
        calibrated(tiny_bundle, recordings, Options(num_samples=7))


def test_one_episode_is_refused(tiny_bundle, writer, tmp_path):
    writer.write(tmp_path, "one", 9)
    with pytest.raises(InputError, match="found one episode"):
        calibrated(tiny_bundle, tmp_path)


def test_no_episode_by_lot_is_refused(tiny_bundle, recordings):
    with pytest.raises(InputError, match="expected some for calibration"):
        calibrated(tiny_bundle, recordings, Options(shares=(0.0, 0.5, 0.5)))


def test_an_instruction_that_the_bundle_lacks_is_refused(tiny_bundle, writer, tmp_path):
    for number in range(6):
        writer.write(tmp_path, f"{number}", 2, seed=number, instruction="dance")
    with pytest.raises(
        InputError, match="found the instruction 'dance'; the bundle holds 'random'"
    ):
        calibrated(tiny_bundle, tmp_path)
    found = calibrated(tiny_bundle, tmp_path, Options(instruction="random"))
    assert found.plan.counts["prompt/random"] == len(found.plan.samples)


def test_no_bundle_is_refused(recordings, tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        calibrated(tmp_path, recordings)


def test_an_episode_that_ends_early_counts_as_far_as_it_goes(tiny_bundle, writer, tmp_path):
    for number in range(6):
        path = writer.write(tmp_path, f"{number}", 12, seed=number)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = calibrated(tiny_bundle, tmp_path)
    assert all(one.recording.damage for one in found.plan.episodes)
    assert all(1 <= one.num_frames < 12 for one in found.plan.surveys)
    assert found.plan.longest_frames == 13
