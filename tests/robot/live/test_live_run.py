"""Real time: threads, a supervisor in a process of its own, and an interrupt from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.live import calm_bundle

from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import LoadRules, load_from_measured
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy

pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

NUM_STEPS = 12
CAMERA_HZ = 5.0
"""On a machine that is busy with other things, rendering keeps up with this."""


@pytest.fixture(scope="module")
def calm(tiny_bundle, tmp_path_factory):
    return calm_bundle(tiny_bundle, tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="module")
def policy(calm):
    return Policy(opened(calm, Opening(num_threads=1)), num_steps=2)


@pytest.fixture
def robot():
    from memorywam_robot.live.live_simulated import LiveSimulated

    class ShortJobs(LiveSimulated):
        """The simulator, with jobs of few steps."""

        def start(self, seed):
            return replace(super().start(seed), num_steps=NUM_STEPS)

    made = ShortJobs("recall", camera_hz=CAMERA_HZ)
    yield made
    made.close()


def run_of(policy, robot, **words):
    from memorywam_robot.live.live_run import LiveRun

    # What is tried is that it ends and replays, not that this machine is quick.
    rules = LoadRules(longest_bridge_ms=5000, most=9.0, margin=1.0)
    load = load_from_measured(policy.contract, remember_ms=40, act_ms=80, rules=rules)
    grid_rules = GridRules(
        camera_hz=CAMERA_HZ, late_ms=2000, stop_after_ms=5000, skew_refused_share=1.0
    )
    return LiveRun(
        policy, robot, load=load, grid_rules=grid_rules, rules=LiveRules(starved_ms=20_000), **words
    )


def test_two_episodes_end_with_the_arms_held_and_replay(policy, calm, robot, tmp_path):
    from memorywam_robot.live.live_recorder import LiveRecorder
    from memorywam_robot.recorder import Recorder
    from memorywam_robot.replay import replay_exactly
    from memorywam_runtime.recording import open_recording

    with Recorder(
        tmp_path, policy, robot="sim:recall", num_threads=1, records_memory=True, loop="async"
    ) as recorder:
        run = run_of(policy, robot, tellers=[LiveRecorder(recorder)])
        handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
        switch_s = sys.getswitchinterval()
        try:
            # The first one's policy knows no such text: the next must not suffer from it.
            (lost,) = run.episodes([8], instruction="no such instruction")
            (result,) = run.episodes([3], instruction="random")
        finally:
            run.close()
        assert not run._thread.is_alive
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert sys.getswitchinterval() == switch_s
    assert "the policy failed" in lost.aborted
    assert "no such instruction" in lost.aborted
    assert result.aborted == ""
    assert result.executed.shape == (NUM_STEPS, 14)
    assert np.isfinite(result.executed).all()
    assert robot.arm.wait_for("holding", 2.0)
    assert result.counts.frames >= 1
    assert run.timekeeping.num_ticks >= NUM_STEPS
    assert result.kept_hz is not None
    assert result.worst_tick_ms is not None
    assert 0 < result.kept_hz < 51
    assert 19 < result.worst_tick_ms < 1000 * result.seconds
    assert result.report()["kept_hz"] == result.kept_hz
    assert run.stopped_by == 0
    (written,) = recorder.written
    replayed = replay_exactly(
        Policy(opened(calm, Opening(num_threads=1)), num_steps=2), open_recording(written.path)
    )
    assert replayed.is_equal
    assert len(replayed.chunks) >= 1


PROGRAM = """
import json, sys, time
from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.live_run import LiveRun
from memorywam_robot.live.live_simulated import LiveSimulated
from memorywam_robot.live.load import LoadRules, load_from_measured
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy

policy = Policy(opened(sys.argv[1], Opening(num_threads=1)), num_steps=2)
rules = LoadRules(longest_bridge_ms=5000, most=9.0)
load = load_from_measured(policy.contract, remember_ms=40, act_ms=80, rules=rules)
robot = LiveSimulated("recall", camera_hz=5.0)
grid = GridRules(camera_hz=5.0, late_ms=2000, stop_after_ms=5000, skew_refused_share=1.0)
begun = robot.begun
robot.begun = lambda: (begun(), print("begun", flush=True))
run = LiveRun(policy, robot, load=load, grid_rules=grid, rules=LiveRules(starved_ms=20000))
(result,) = run.episodes([3, 4, 5], instruction="random")
run.close()
held = robot.arm.wait_for("holding", 2.0)
print(json.dumps(
    {"aborted": result.aborted, "held": held, "interrupted": run.stopped_by}
), flush=True)
robot.close()
sys.exit(0 if held else 9)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.proof)]
)
def test_an_interrupt_ends_the_episode_with_the_arms_held(calm, number):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(calm)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[3],
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.3)
            process.send_signal(number)
            sent = time.monotonic()
            told = process.stdout.readline()
            took_s = time.monotonic() - sent
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, said
    report = json.loads(told)
    assert report["aborted"] == "interrupted"
    assert report["held"]
    assert report["interrupted"] == number
    assert took_s < 2.0
