"""Each boundary of memory has its name and its frame, and an error there is told by it."""

import msgspec
import numpy as np
import pytest
from tests.fakes.episodes import contract_with

from memorywam_export.ladder.boundaries import boundary_checks, boundary_frames
from memorywam_export.parity.trace_report import ByFrame, Difference, RungResult
from memorywam_runtime.manifest import MemoryPlan
from memorywam_runtime.memory import Memory

PLAN = MemoryPlan(max_frames=128, gist_buckets=(32, 64, 128), on_full="refuse", bytes_per_token=1)


def result(name="onnx", precision="fp32", frames=12, at=None, error=0.0):
    actions = np.zeros(frames)
    if at is not None:
        actions[at] = error
    nothing = Difference(max_abs=0, rel_rms=0, worst="")
    return RungResult(
        name=name,
        precision=precision,
        latents=nothing,
        actions=nothing,
        per_joint=[],
        by_frame=ByFrame(
            latents=np.zeros(frames),
            memory={"memory.00.k": np.zeros((frames, 3))},
            actions=actions,
        ),
        memory={},
        graphs={},
        noise_effect=None,
        repeat_effect=None,
    )


@pytest.mark.parametrize("includes_current", [True, False])
def test_frames_are_those_at_which_memory_does_it(includes_current):
    contract = contract_with(recent_includes_current=includes_current)
    found = boundary_frames(contract, PLAN)
    memory = Memory(contract, max_frames=128)
    taken: dict[str, int] = {}
    slots: list[int] = []
    for frame in range(40):
        slot = memory.slot_of(frame)
        if slot in slots:
            taken.setdefault("first eviction", frame)
            if slot == contract.memory.num_anchors and frame > taken["first eviction"]:
                taken.setdefault("ring wrap", frame)
        slots.append(slot)
        memory.remembered()
    assert found["first frame"] == 0
    assert found["anchors full, first frame of the window"] == contract.memory.num_anchors
    assert {name: found[name] for name in taken} == taken
    assert found["gist bucket of 32 full"] == 32
    assert "gist bucket of 128 full" not in found  # that is capacity


def test_what_a_contract_has_not_is_not_named():
    bare = msgspec.structs.replace(
        contract_with(),
        memory=msgspec.structs.replace(contract_with().memory, num_anchors=0, num_gists=0),
    )
    assert set(boundary_frames(bare, PLAN)) == {"first frame", "first eviction", "ring wrap"}
    single = boundary_frames(contract_with("tiny-fastwam"), PLAN)
    assert set(single) == {"first frame", "second frame, which replaces the first"}


def test_an_error_is_told_by_the_boundary_where_it_is_and_by_the_rung_that_is_worst():
    boundaries = {"first frame": 0, "first eviction": 5, "ring wrap": 8, "later": 12}
    results = [
        result("graph", "fp64"),
        result(at=5, error=2e-4),
        result("device", at=5, error=1e-4),
    ]
    checks = {check.what: check for check in boundary_checks(results, boundaries, 12)}
    assert list(checks) == ["first frame (frame 0)", "first eviction (frame 5)",
                            "ring wrap (frame 8)"]  # fmt: skip
    bad = checks["first eviction (frame 5)"]
    assert (bad.ok, bad.rung, bad.max_abs, bad.tolerance) == (False, "onnx", 2e-4, 1e-4)
    assert all(check.ok for check in checks.values() if check is not bad)


def test_a_coarse_rung_is_judged_by_its_own_tolerance():
    results = [
        result("graph", "fp64", at=0, error=2e-6),
        result("graph bf16", "bf16", at=0, error=0.3),
    ]
    (check,) = boundary_checks(results, {"first frame": 0}, 12)
    assert (check.ok, check.rung) == (False, "graph")
