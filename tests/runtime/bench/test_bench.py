"""What bench measures is what it says: memory really filled, every stage, sizes that hold."""

import math

import pytest

from memorywam_runtime.bench.bench import bench_bundle, full_history_bytes, memory_bytes
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.opening import Opening
from memorywam_runtime.session import STAGES, Session

TICK = {"tick", "total", "engines", "instruction"}


@pytest.fixture
def remembered(monkeypatch):
    """The number of every frame that a session remembers."""
    frames = []
    real = Session.remember

    def noted(self, *args, **options):
        frame = real(self, *args, **options)
        frames.append(frame)
        return frame

    monkeypatch.setattr(Session, "remember", noted)
    return frames


def test_memory_is_filled_until_every_slot_is_taken_then_counted_on(tiny_bundle, remembered):
    data = bench_bundle(tiny_bundle, Opening(num_threads=1), frames=(1, 3, 34), repeat=2)
    first_calls = [0, 1]
    at_1, at_3, at_34 = [0] * 3, [2] * 3, [33] * 3  # one tick to warm up, two counted
    assert remembered == [*first_calls, *at_1, 1, *at_3, 3, 4, 5, *at_34]
    by_frames = {entry["frames"]: entry for entry in data["by_frames"]}
    assert list(by_frames) == [1, 3, 34]
    assert by_frames[34]["memory_bytes"] > by_frames[3]["memory_bytes"]  # a larger bucket


def test_every_stage_is_told_with_its_percentiles(tiny_bundle):
    data = bench_bundle(tiny_bundle, Opening(num_threads=1), frames=(1, 2), num_steps=3, repeat=4)
    assert set(data["stages_ms"]) == set(STAGES) - {"prepare", "vae_step"} | TICK
    assert data["num_steps"] == 3
    at_1, at_2 = (entry["stages_ms"] for entry in data["by_frames"])
    of_a_group = {"prepare", "vae_step", "vae_image", "vae_pair", "vae_group", "see"}
    assert set(at_1) == set(STAGES) - of_a_group | TICK
    assert set(at_2) == set(STAGES) - {"prepare", "vae_first", "vae_step"} | TICK
    assert [at_2[stage]["count"] for stage in ("vae_image", "vae_pair", "vae_group")] == [16, 8, 4]
    assert (at_2["see"]["count"], at_2["remember"]["count"]) == (12, 4)
    assert at_2["action_step"]["count"] == 12
    assert data["stages_ms"]["action_step"]["count"] == 24
    for stage in data["stages_ms"].values():
        assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"]
    assert at_2["chunk"]["p50"] > at_2["action_step"]["p50"]
    assert set(data["first_ms"]) == set(data["stages_ms"]) - TICK
    assert data["open_s"] > 0
    assert data["stages_ms"]["instruction"]["count"] == 8
    assert set(data["sensors"]) == {"temperatures_c", "power_w", "mean_power_w"}


def test_sizes_are_those_of_the_buffers(tiny_bundle):
    session, manifest = open_bundle(tiny_bundle), read_manifest(tiny_bundle)
    assert memory_bytes(manifest, 1) == session.buffers.num_bytes
    assert memory_bytes(manifest, 32) == session.buffers.num_bytes
    session.buffers.grow()
    assert memory_bytes(manifest, 33) == session.buffers.num_bytes
    assert full_history_bytes(manifest, 200) == 200 * full_history_bytes(manifest, 1)


def test_the_eager_backend_is_measured_in_the_same_way(tiny_bundle):
    data = bench_bundle(tiny_bundle, Opening(backend="eager"), frames=(2,), repeat=1)
    assert data["backend"] == "eager"
    assert all(math.isfinite(stage["p99"]) for stage in data["stages_ms"].values())
    edges = [frames for frames, _ in data["memory_bytes_by_frame"]]
    assert {1, 10, 32, 33, 128, 129, 256} <= set(edges)
    assert max(edges) == 256
