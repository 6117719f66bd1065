"""The figures of the report: memory as the session allots it, medians, and what counts as wrong."""

import pytest

from memorywam_robot.evidence import (
    complaints_from_report,
    latency_by_frame,
    memory_by_frame,
    pooled_stages,
)
from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.memory import Rows


def report(success, success_torch, *, ok=True):
    task = {"episodes": 50, "success": success, "success_torch": success_torch}
    return {"parity": {"ok": ok}, "tasks": {"recall": task}}


@pytest.mark.parametrize(
    ("found", "num_complaints"),
    [
        (report(0.9, 0.9), 0),
        (report(0.90, 0.94), 0),
        (report(0.94, 0.90), 0),
        (report(0.90, 0.96), 1),
        (report(0.96, 0.90), 1),
        (report(0.9, 0.9, ok=False), 1),
        (report(0.5, 0.9, ok=False), 2),
    ],
)
def test_complaints(found, num_complaints):
    assert len(complaints_from_report(found)) == num_complaints


def test_memory_by_frame(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    contract, plan = manifest.contract, manifest.memory
    kept, everything = map(dict, memory_by_frame(manifest))
    assert max(kept) == max(everything) == plan.max_frames
    assert everything[10] == 10 * contract.num_visual * plan.bytes_per_token
    slots = contract.memory.num_anchors + contract.num_ring_slots
    rows = slots * contract.num_visual + 256 * contract.memory.num_gists
    assert kept[256] == rows * plan.bytes_per_token
    # Bytes per token is what a session really allots per row.
    session = open_bundle(tiny_bundle, num_threads=1)
    allotted = Rows(contract).total(plan.gist_buckets[0]) * plan.bytes_per_token
    assert session.buffers.num_bytes == allotted
    assert kept[plan.gist_buckets[0]] <= allotted


def test_latency_by_frame_leaves_out_what_few_episodes_reached():
    episodes = [
        {"remember_ms": [1.0, 2.0], "act_ms": [5.0, 6.0]},
        {"remember_ms": [3.0, 4.0, 9.0], "act_ms": [7.0, 8.0, 9.0]},
        {"remember_ms": [5.0], "act_ms": [9.0]},
    ]
    found = latency_by_frame([{"episodes": episodes[:2]}, {"episodes": episodes[2:]}])
    assert found == {"remember": [(1, 3.0), (2, 3.0)], "act": [(1, 7.0), (2, 7.0)]}


def test_pooled_stages():
    runs = [
        {"stages_ms": {"chunk": {"count": 3.0, "p50": 2.0, "p95": 4.0, "p99": 5.0}}},
        {"stages_ms": {"chunk": {"count": 1.0, "p50": 6.0, "p95": 7.0, "p99": 8.0}}},
    ]
    assert pooled_stages(runs) == {"chunk": {"p50": 3.0, "p99": 8.0}}
