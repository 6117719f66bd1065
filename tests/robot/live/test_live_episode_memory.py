"""Memory of an episode that keeps time, under late ticks and every fault of cameras."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.grids import Oracle
from tests.fakes.live import (
    CAMERAS,
    IMAGE,
    MS,
    BenchPolicy,
    at,
    small_contract,
)
from tests.fakes.live_bench import AMPLE, STEP_MS, Bench, bench

from memorywam_robot.live.grid_rules import CameraFrame, GridRules
from memorywam_robot.live.live_rules import LiveRules

# --- ticks that are late


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.sampled_from(["inpaint", "drop"]))
def test_late_ticks_keep_the_phase(skips, seam):
    rig = bench(num_steps=96, rules=LiveRules(starved_ms=60_000, seam=seam),
                grid_rules=GridRules(max_waiting=99))  # fmt: skip
    skipped = 0
    for count in skips:
        before = rig.queue.num_taken
        if not rig.tick(count):
            break
        due = int(rig.since_ms // STEP_MS) + 1
        skipped += max(0, due - before - 1)
        assert rig.queue.num_taken == due
        assert len(rig.episode.executed) == due - 1
        assert np.isfinite(rig.body.commands[-1][1]).all()
        assert rig.episode.counts.skipped == skipped
    rig.run()
    assert rig.episode.aborted == ""
    assert len(rig.episode.executed) == 96
    frames = [task.frame for task in rig.remembered]
    assert frames == list(range(len(frames)))
    assert [o.step for t in rig.remembered for o in t.observations] == list(
        range(0, 4 * (4 * len(frames) - 3), 4)
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_a_step_is_told_with_the_joints_as_it_began(skips):
    told = {}

    class Ear:
        def on_observation(self, observation, captured_ns):
            pass

        def on_step(self, step, action, state):
            told[step] = None if state is None else state.copy()

    rig = bench(num_steps=96, rules=AMPLE, grid_rules=GridRules(max_waiting=99), listeners=[Ear()])
    began: dict[int, Any] = {}
    for count in skips:
        before, position = rig.queue.num_taken, rig.body.position.copy()
        if not rig.tick(count):
            break
        now = rig.queue.num_taken
        # Steps that were over before this tick nobody has seen begin.
        began |= dict.fromkeys(range(before + 1, now))
        began |= {now: position} if now > before else {}
    for step in set(told) - {1}:  # that began before the first of these ticks
        np.testing.assert_equal(told[step], began[step])


# --- memory under every fault of cameras

FAULTS = ("none",) * 14 + ("drop", "late", "very late", "twice", "skew", "wide", "swap")


@st.composite
def schedules(draw):
    """(arrival in ms since the gate, camera, number, capture in ms since the gate), and ticks."""
    num_ms = draw(st.integers(20, 60)) * 100
    faults = {
        camera: draw(st.lists(st.sampled_from(FAULTS), min_size=64, max_size=64))
        for camera in CAMERAS
    }
    dark_ms = draw(st.integers(2000, 6000))
    dark_end_ms = dark_ms + draw(st.sampled_from([0, 300, 700, 1500]))
    offsets = {camera: draw(st.integers(1, 12)) for camera in CAMERAS}
    shots = []
    for camera in CAMERAS:
        for index, captured in enumerate(range(offsets[camera], num_ms, 100)):
            fault = faults[camera][index % 64] if index > draw(st.integers(0, 30)) else "none"
            arrival = captured + draw(st.integers(0, 30))
            if fault == "drop" or dark_ms <= captured < dark_end_ms:
                continue
            captured_at = captured + {"skew": 14, "wide": 60}.get(fault, 0)
            arrival = max(arrival, captured_at)
            arrival += {"late": 170, "very late": 700, "swap": 150}.get(fault, 0)
            shots.append((arrival, camera, index, captured_at))
            if fault == "twice":
                shots.append((arrival + 7, camera, index, captured_at))
    shots.sort(key=lambda shot: shot[0])
    ticks, now = [], 0
    while now < num_ms + 800:
        now += draw(st.sampled_from([20, 20, 20, 20, 20, 20, 40, 100, 180]))
        ticks.append(now)
    return shots, ticks


LENIENT = GridRules(max_waiting=99, max_hold_frames=99)


@settings(max_examples=40, deadline=None)
@given(schedules())
def test_memory_holds_what_the_rules_admit_and_nothing_else(schedule):
    shots, ticks = schedule
    seen: list[tuple[int, CameraFrame]] = []
    rig = Bench(
        policy=BenchPolicy(lambda f: at(0.0, 32)), rules=AMPLE, grid_rules=LENIENT,
        num_steps=10_000,
    )  # fmt: skip
    gate_ns = rig.begun[0]
    put = rig.grid.put

    def spying(frame, now_ns):
        seen.append((now_ns, frame))
        return put(frame, now_ns)

    rig.grid.put = spying  # type: ignore[method-assign]
    images = {}
    waiting = list(shots)
    for tick_ms in ticks:
        rig.now_ns = gate_ns + tick_ms * MS
        while waiting and waiting[0][0] <= tick_ms:
            _, name, number, captured_ms = waiting.pop(0)
            camera = rig.cameras[CAMERAS.index(name)]
            code = np.array([CAMERAS.index(name), number % 256, number // 256], np.uint8)
            images[name, number] = code
            camera.give(gate_ns + captured_ms * MS, number=number, image=IMAGE + code)
        assert rig.virtual is not None
        rig.virtual.advance(rig.now_ns)
        rig.body.now_ns = rig.now_ns
        if not rig.episode.tick(rig.now_ns):
            break
    # The oracle counts in milliseconds from 1000 on.
    shift = gate_ns - 1000 * MS
    events = [
        ((now_ns - shift) // MS, replace(frame, captured_ns=frame.captured_ns - shift))
        for now_ns, frame in seen
    ]
    last_ms = (rig.now_ns - shift) // MS
    oracle = Oracle(rig.grid.shape, LENIENT).run(events, last_ms)
    expected: list[Any] = [line for line in oracle if line[0] == "commit"]
    assert [task.frame for task in rig.remembered] == list(range(len(rig.remembered)))
    assert len(rig.remembered) == len(expected)
    for task, line in zip(rig.remembered, expected, strict=True):
        for observation, numbers in zip(task.observations, line[5], strict=True):
            for camera, number in numbers:
                assert (observation.images[camera] == IMAGE + images[camera, number]).all()
        assert [o.step // 4 for o in task.observations] == list(line[4])
    # What the loop kept from the grid was of no use to it: captured before what was due.
    given_numbers = {(frame.camera, frame.number) for _, frame in seen}
    assert given_numbers <= {(shot[1], shot[2]) for shot in shots}
    # Chunks are asked for where a frame is complete, once, and never while held.
    order = [type(task).__name__ for task in rig.tasks]
    assert all(order[k - 1] == "Remember" for k, name in enumerate(order) if name == "Act")
    asked = [task.frame for task in rig.asked]
    assert asked == sorted(set(asked))
    held = {line[3] for line in expected if line[7]}
    assert not held & set(asked)
    policy = rig.policy
    assert policy is not None
    for group, task in zip(policy.groups, rig.remembered, strict=False):
        assert [one.step for one in group] == [one.step for one in task.observations]
        for one, other in zip(group, task.observations, strict=True):
            assert all(one.images[name] is other.images[name] for name in other.images)


def test_the_tick_keeps_nothing_but_what_was_executed():
    rig = bench(num_steps=10_000, contract=small_contract(32))
    rig.body.command = lambda *words, **more: None
    for _ in range(2500):
        assert rig.tick()
        rig.tasks.clear()
        assert rig.policy is not None
        rig.policy.log.clear()
        rig.policy.groups = [()] * len(rig.policy.groups)
        rig.policy.noise.clear()
    tracemalloc.start()
    try:
        before, num_executed = tracemalloc.get_traced_memory()[0], len(rig.episode.executed)
        for _ in range(500):
            rig.tick()
        rig.tasks.clear()
        rig.policy.log.clear()
        rig.policy.noise.clear()
        rig.policy.groups = [()] * len(rig.policy.groups)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    steps = len(rig.episode.executed) - num_executed
    assert steps == 100
    # An array of 14 numbers is 112 bytes and its object as many; all else is less than 100 kB.
    assert grown < steps * 400 + 60_000
