"""A bundle's memory by episode length against what is free."""

from pathlib import Path

import pytest
from tests.runtime.doctor.test_doctor_machine import write

from memorywam_runtime.bench.bench_sizes import memory_bytes
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.doctor.doctor_bundle import bundle_findings
from memorywam_runtime.doctor.doctor_finding import Asked, Finding


def found_with(root: Path, bundle: Path, free_bytes: int) -> dict[str, Finding]:
    meminfo = f"MemTotal: 1 kB\nMemAvailable: {free_bytes // 1024} kB\n"
    write(root, proc__meminfo=meminfo)
    return {one.part: one for one in bundle_findings(Asked(bundle=str(bundle), root=root))}


def test_memory_that_holds_the_longest_episode(tmp_path: Path, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    most = manifest.memory.max_frames
    needed = memory_bytes(manifest, most) - memory_bytes(manifest, 1)
    found = found_with(tmp_path, tiny_bundle, needed + 1024)
    assert found["bundle"].status == "ok"
    assert found["memory plan"].status == "ok"
    assert f"{most} frames" in found["memory plan"].found


def test_memory_that_holds_less(tmp_path: Path, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    buckets = manifest.memory.gist_buckets
    if len(buckets) < 2:
        pytest.skip("one bucket: memory is taken at once")
    needed = memory_bytes(manifest, buckets[-1]) - memory_bytes(manifest, 1)
    found = found_with(tmp_path, tiny_bundle, needed - 1024)["memory plan"]
    assert found.status == "warn"
    assert found.fix.startswith(f"keep episodes to {buckets[-2]} frames")
    contract = manifest.contract
    seconds = buckets[-2] * contract.steps_per_frame / contract.observations.control_hz
    assert found.found.endswith(f"episodes of {seconds:,.0f} s fit")


def test_nothing_is_said_without_a_bundle() -> None:
    assert list(bundle_findings(Asked())) == []
