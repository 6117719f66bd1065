"""The figures of the report, and what counts as wrong."""

import pytest

from memorywam_export.episodes import closed_loop
from memorywam_robot import evidence
from memorywam_robot.evidence import complaints_from_report, latency_by_frame, memory_by_frame
from memorywam_runtime.bench.bench import bench_bundle
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.memory import Rows
from memorywam_runtime.opening import Opening


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


def test_figures_of_a_real_bench(tiny_bundle):
    bench = bench_bundle(tiny_bundle, Opening(num_threads=1), frames=(1, 4, 40), repeat=2)
    contract, plan = read_manifest(tiny_bundle).contract, read_manifest(tiny_bundle).memory
    kept, everything = memory_by_frame(bench)
    frame_bytes = contract.num_visual * plan.bytes_per_token
    assert everything == [(frames, frames * frame_bytes) for frames in (1, 4, 40)]
    assert kept[-1][0] == plan.max_frames
    rows = Rows(contract).total(plan.max_frames)
    assert kept[-1][1] == rows * plan.bytes_per_token
    latency = latency_by_frame(bench)
    assert list(latency) == ["chunk", "remember", "see", "tick"]
    assert [frames for frames, _ in latency["chunk"]] == [1, 4, 40]
    assert [frames for frames, _ in latency["see"]] == [4, 40]
    assert all(ms > 0 for points in latency.values() for _, ms in points)


def test_the_report_asks_for_no_less_than_the_closed_loop() -> None:
    assert evidence.LARGEST_DIFFERENCE == closed_loop.LARGEST_DIFFERENCE
