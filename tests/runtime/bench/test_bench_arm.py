"""An arm's memory is as full as it says, and each of its ticks does the same work."""

import json
import time

import msgspec
import numpy as np
import pytest

from memorywam_runtime.bench import bench_history
from memorywam_runtime.bench.bench_arm import ArmOptions, SessionArm
from memorywam_runtime.bench.bench_history import HistoryArm
from memorywam_runtime.bench.bench_sizes import full_history_rows, update_bytes
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening
from memorywam_runtime.session import Session


def options_of(bundle):
    return ArmOptions(root=str(bundle), opening=Opening(num_threads=1), num_steps=2)


def test_a_filled_memory_has_the_counters_and_rows_of_one_that_saw_every_frame(tiny_bundle):
    arm = SessionArm(options_of(tiny_bundle))
    arm.open()
    sizes = arm.fill(40)
    session = open_bundle(tiny_bundle)
    rng = np.random.default_rng(0)
    for _ in range(40):
        spec = session.encoder.missing_spec(session.memory.num_frames)
        session.remember(rng.uniform(-1, 1, spec.fixed_shape).astype(np.float32))
    session.set_state(np.zeros(14, np.float32))
    session.denoise(rng.standard_normal((16, 14), np.float32))
    assert arm._session.memory.snapshot() == session.memory.snapshot()
    assert sizes["rows"] == session.buffers.num_rows
    assert sizes["memory_bytes"] == session.buffers.num_bytes
    filled, real = arm._session.snapshot().arrays, session.snapshot().arrays
    for name in (name for name in real if name.startswith("memory.")):
        untouched = [not tensor.any(axis=(0, 1, 3)).all() for tensor in (filled[name], real[name])]
        assert untouched == [True, True]  # the table's end
        np.testing.assert_array_equal(
            filled[name].any(axis=(0, 1, 3)), real[name].any(axis=(0, 1, 3)), err_msg=name
        )


def test_what_is_not_one_launch_is_told(tiny_bundle, monkeypatch, capsys):
    real = SessionArm.open

    def opened(arm):
        found = real(arm)
        arm._session.backend.num_fallbacks, arm._session.backend.fallback_reason = 3, "too new"
        return found

    words = ["bench", str(tiny_bundle), "--frames", "2", "--repeat", "1", "--json", "-"]
    assert main(words) == 0
    (fill,) = json.loads(capsys.readouterr().out)["data"]["by_frames"]
    assert (fill["num_fallbacks"], fill["fallback_reason"]) == (0, "")
    monkeypatch.setattr(SessionArm, "open", opened)
    assert main(words[:-2]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 frames, ort: 3 sequences are not one launch each: too new" in told


@pytest.mark.parametrize("frames", [1, 34])
def test_every_tick_does_the_same(tiny_bundle, monkeypatch, frames):
    chunks = []
    real = Session.denoise

    def noted(self, *args, **options):
        chunks.append(real(self, *args, **options))
        return chunks[-1]

    monkeypatch.setattr(Session, "denoise", noted)
    arm = SessionArm(options_of(tiny_bundle))
    arm.open()
    arm.fill(frames)
    chunks.clear()
    spans = arm.tick(discard=2)
    assert len(chunks) == 3
    assert arm._session.memory.num_frames == frames
    assert all(np.array_equal(chunk, chunks[0]) for chunk in chunks)
    assert len(spans["action_step"]) == 2
    assert 0 < spans["engines"][0] < spans["tick"][0] <= spans["total"][0]
    assert spans["tick"][0] > spans["remember"][0] + spans["chunk"][0]


@pytest.mark.parametrize("bundle", ["tiny_bundle", "tiny_bundle_opset20"])
def test_full_history_has_a_row_for_every_visual_token(request, bundle):
    root = request.getfixturevalue(bundle)
    manifest = read_manifest(root)
    arm = HistoryArm(options_of(root))
    arm.open()
    rows = {frames: full_history_rows(manifest, frames) for frames in (1, 300)}
    assert rows[300] - rows[1] == 299 * manifest.contract.num_visual
    for frames, expected in rows.items():
        sizes = arm.fill(frames)
        assert sizes["rows"] == expected
        assert sizes["memory_bytes"] == expected * manifest.memory.bytes_per_token
        in_place = manifest.cache_write == "in_place"
        new = 0 if in_place else manifest.contract.num_frame_tokens
        assert sizes["keys"]["cache_update"] == expected + new
    spans = arm.tick(discard=1)
    assert len(spans["action_step"]) == 2
    assert spans["tick"] == [spans["remember"][0] + spans["chunk"][0]]
    assert "vae_first" not in spans


def test_full_history_that_does_not_fit_this_machine_is_refused(tiny_bundle, monkeypatch):
    arm = HistoryArm(options_of(tiny_bundle))
    arm.open()
    monkeypatch.setattr(bench_history, "available_bytes", lambda: 1 << 20)
    arm.fill(1)
    with pytest.raises(InputError, match=r"full history of 5000 frames takes .* larger machine"):
        arm.fill(5000)


def test_random_values_fill_every_type(tiny_bundle):
    spec = read_manifest(tiny_bundle).graphs["cache_update"].inputs[0].bound(rows=3)
    for dtype in ("float32", "float16", "bfloat16"):
        values = bench_history._values(
            type(spec)(name="x", shape=(70000,), dtype=dtype, meaning="")
        )
        numbers = values
        if dtype == "bfloat16":
            numbers = (values.astype(np.uint32) << 16).view(np.float32)
        assert 0.9 < numbers.astype(np.float32).std() < 1.1, dtype
        assert values.any()


def test_a_change_of_instruction_is_timed_apart_from_the_tick(tiny_bundle, monkeypatch):
    arm = SessionArm(options_of(tiny_bundle))
    arm.open()
    arm.fill(2)
    texts = []
    real = Session.set_text

    def slow(self, text):
        texts.append(text)
        time.sleep(0.2)
        real(self, text)

    monkeypatch.setattr(Session, "set_text", slow)
    spans = arm.tick()
    assert len(texts) == 1
    assert spans["instruction"][0] >= 200 > spans["total"][0]
    assert spans["engines"][0] < spans["tick"][0]
    manifest = msgspec.structs.replace(arm._session.manifest, prompts=())
    arm._session.manifest = manifest
    assert "instruction" not in arm.tick()


@pytest.mark.parametrize("bundle", ["tiny_bundle", "tiny_bundle_opset20"])
def test_an_update_writes_as_many_bytes_as_is_told(request, bundle):
    root = request.getfixturevalue(bundle)
    arm = SessionArm(options_of(root))
    arm.open()
    arm.fill(4)
    memory = arm._session.buffers.arena()
    before = memory.copy()
    arm._remember(arm._see())
    changed = (before != memory).any(axis=(1, 3))  # [layers x 2, rows]
    own = (
        changed[:, : arm._session.memory.rows.chunk].sum()
        + changed[:, arm._session.memory.rows.gist_table :].sum()
    )
    row_bytes = memory[0, :, 0].nbytes
    assert own * row_bytes == update_bytes(arm._session.manifest)
