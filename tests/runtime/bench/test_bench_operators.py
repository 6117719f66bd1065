"""Operators are timed in the calls that are counted, and add up to what those took."""

import json

import pytest
from tests.fakes.rungs import NEWEST_OPSET

from memorywam_runtime.bench.bench import bench_bundle
from memorywam_runtime.bench.bench_operators import times_from_profile
from memorywam_runtime.bench.bench_page import page_from_bench
from memorywam_runtime.errors import InputError, MemorywamError
from memorywam_runtime.opening import Opening


def kernel(kind, start, took):
    return {"name": f"{kind}_kernel_time", "ts": start, "dur": took, "args": {"op_name": kind}}


@pytest.fixture
def profile(tmp_path):
    """Three calls: of 1 ms, which is not counted, and of 2 and 4 ms."""
    events = [
        {"name": "session_initialization", "ts": 0, "dur": 9},
        {"name": "model_run", "ts": 1000, "dur": 1000},
        kernel("Attention", 1100, 900),
        kernel("MatMul", 4100, 1000),
        {"name": "MatMul_fence_before", "ts": 4100, "dur": 500},
        kernel("Attention", 5200, 500),
        {"name": "model_run", "ts": 4000, "dur": 2000},
        {"name": "model_run", "ts": 10000, "dur": 4000},
        kernel("MatMul", 10500, 3000),
    ]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    return path


def test_only_the_newest_calls_count_and_what_is_between_operators_is_told(profile):
    found = times_from_profile(profile, 2, 2)
    assert found == {"MatMul": 2.0, "other": 0.75, "Attention": 0.25}
    assert list(found) == ["MatMul", "other", "Attention"]
    assert times_from_profile(profile, 3, 1)["Attention"] == 1.4


def test_a_profile_that_lost_calls_is_refused(profile):
    with pytest.raises(MemorywamError, match="found 3 calls; expected 4"):
        times_from_profile(profile, 4, 1)


def test_operators_of_a_bundle(tiny_bundle):
    data = bench_bundle(
        tiny_bundle, Opening(num_threads=1), frames=(10, 40), repeat=2, num_steps=3, operators=True
    )
    assert [one["frames"] for one in data["operators"]] == [10, 40]
    times = data["operators"][0]["graphs_ms"]
    assert {"vae_group", "cache_update", "action_step"} <= set(times)
    assert "vae_first" not in times  # no call of a tick
    assert all(ms >= 0 for kinds in times.values() for ms in kinds.values())
    whole = data["by_frames"][0]["stages_ms"]["cache_update"]["p50"]
    assert 0 < sum(times["cache_update"].values()) < 20 * whole
    if NEWEST_OPSET == 24:  # at opset 20 attention is in parts
        (grown,) = data["attention"]
        assert (grown["from_frames"], grown["frames"]) == (10, 40)
        assert grown["read_ms"] == pytest.approx(
            grown["attention_ms"][1] - grown["attention_ms"][0]
        )
    else:
        assert data["attention"] == []
    # The page has those that take most, which is for the machine to say.
    page, kinds = page_from_bench(data), times["cache_update"]
    assert "Operators" in page
    assert max(kinds, key=lambda kind: kinds[kind]) in page


def test_operators_need_a_backend_that_times_them(tiny_bundle):
    with pytest.raises(InputError, match="operators on eager; expected ort"):
        bench_bundle(tiny_bundle, Opening(backend="eager"), operators=True)
