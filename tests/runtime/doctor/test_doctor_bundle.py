"""A bundle opens or says why not; its memory is told by the length of an episode."""

from pathlib import Path

import pytest
from tests.runtime.doctor.test_doctor_machine import write

from memorywam_runtime import buffers
from memorywam_runtime.bench.bench_sizes import memory_bytes
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.doctor.doctor_bundle import bundle_findings
from memorywam_runtime.doctor.doctor_finding import Asked, Finding
from memorywam_runtime.errors import CapacityError


def found_with(root: Path, bundle: Path, free_bytes: int) -> dict[str, Finding]:
    meminfo = f"MemTotal: 1 kB\nMemAvailable: {free_bytes // 1024} kB\n"
    write(root, proc__meminfo=meminfo)
    return {one.part: one for one in bundle_findings(Asked(bundle=str(bundle), root=root))}


def test_memory_by_the_length_of_an_episode(tmp_path: Path, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    most = manifest.memory.max_frames
    found = found_with(tmp_path, tiny_bundle, 3 << 30)
    assert found["bundle"].status == "ok"
    plan = found["memory plan"]
    assert plan.status == "ok"
    whole = memory_bytes(manifest, most) / (1 << 20)
    assert f"{most} frames {whole:,.1f} MiB" in plan.found
    contract = manifest.contract
    seconds = most * contract.steps_per_frame / contract.observations.control_hz
    ending = f"{seconds:,.0f} s; {whole:,.1f} of 3,072 MiB free are taken at opening"
    assert plan.found.endswith(ending)


def test_a_bundle_that_does_not_open_says_why(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(num_bytes: int, max_frames: int) -> None:
        raise CapacityError(f"{num_bytes} for {max_frames}")

    monkeypatch.setattr(buffers, "check_room", refuse)
    found = found_with(tmp_path, tiny_bundle, 1 << 30)
    assert set(found) == {"bundle"}
    assert found["bundle"].status == "missing"
    assert " for " in found["bundle"].found


def test_nothing_is_said_without_a_bundle() -> None:
    assert list(bundle_findings(Asked())) == []
