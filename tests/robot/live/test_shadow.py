"""A shadow run: nothing reaches the arms, and the distance is what a hand computes."""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.fakes.live import NUM_JOINTS, BenchPolicy, at
from tests.fakes.live_robot import NowRobot, run_of

from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_robot.live.live_result import LiveResult
from memorywam_robot.live.live_robot import ShadowBody
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.shadow import ShadowDistance
from memorywam_robot.live_report import _shadow_note
from memorywam_runtime.cli import main
from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import DeviceError, InputError

PAIR = ActionSpace(action_dim=2, state_dim=2, names=("waist", "hand"), units=("rad", "fraction"))


class WatchedArm:
    """A supervisor that watches arms which somebody moves; a command is an error."""

    def __init__(self, start: float) -> None:
        self.record: dict[str, Any] = {"target": np.zeros(NUM_JOINTS), "num_limited": 0}
        self.link = SimpleNamespace(state=SimpleNamespace(record=self.record))
        self.mode, self.reason = "holding", ""
        self._start, self.per_s, self.since_s = start, 0.0, time.monotonic()

    def state(self, out):
        moved = self.per_s * (time.monotonic() - self.since_s)
        out[:] = self.record["target"][:] = self._start + moved
        return time.monotonic_ns()

    def command(self, *_args, **_options):
        raise AssertionError("a command")

    stop = start = home = command


def test_the_distance_is_what_a_hand_computes():
    distance = ShadowDistance(PAIR)
    for step, (chosen, done, is_chosen) in enumerate(
        [
            ([0.1, 0.5], [0.1, 0.5], True),
            ([0.4, 0.5], [0.1, 0.6], True),
            ([9.0, 9.0], [0.0, 0.0], False),  # an old action that stood: nobody chose it
            ([0.1, 0.1], [0.2, 0.4], True),
            ([0.1, 0.1], [0.4, 0.1], True),  # as far as before: the first one stays
        ],
        1,
    ):
        distance.note(step, np.array(chosen), np.array(done), is_chosen=is_chosen)
    told = distance.report()
    assert (told["num_steps"], told["is_still"]) == (4, False)
    waist, hand = told["joints"]
    assert waist == {
        "name": "waist",
        "unit": "rad",
        "rms": pytest.approx(np.sqrt((0.09 + 0.01 + 0.09) / 4)),
        "worst": pytest.approx(0.3),
        "worst_step": 2,
    }
    assert (hand["unit"], hand["worst_step"]) == ("fraction", 4)
    assert hand["rms"] == pytest.approx(np.sqrt((0.01 + 0.09) / 4))
    assert hand["worst"] == pytest.approx(0.3)


def test_nameless_joints_are_numbered_and_in_rad():
    distance = ShadowDistance(ActionSpace(action_dim=2, state_dim=2))
    assert [(one["name"], one["unit"]) for one in distance.report()["joints"]] == [
        ("joint_0", "rad"),
        ("joint_1", "rad"),
    ]
    assert distance.report()["num_steps"] == 0


def shadowed(
    arm: WatchedArm, value: float, begun: Callable[[], None] = lambda: None
) -> tuple[LiveResult, ShadowDistance]:
    """Run an episode of six steps whose chunks are of this value."""
    robot = NowRobot(num_steps=6)
    robot.body = ShadowBody(arm)  # type: ignore[arg-type, assignment]
    robot.begun = begun  # type: ignore[method-assign]
    run = run_of(BenchPolicy(lambda _: at(value, 32)), robot, rules=LiveRules(is_shadow=True))
    try:
        (result,) = run.episodes([3])
    finally:
        run.close()
    assert result.counts.shadow is not None
    return result, result.counts.shadow


def test_an_episode_sends_nothing_and_tells_how_far_the_arms_were():
    # A jump of 0.5 rad at every seam would drop chunks, and then stop, if they were executed.
    result, distance = shadowed(WatchedArm(0.25), 0.75)
    assert result.aborted == ""
    told = result.report()["shadow"]
    assert 0 < told["num_steps"] <= result.num_steps == 6
    assert told["is_still"]
    assert result.counts.chunks_dropped == result.counts.holds == 0
    for joint in told["joints"]:
        assert (joint["rms"], joint["worst"]) == (pytest.approx(0.5), pytest.approx(0.5))
    np.testing.assert_allclose(result.executed, 0.25)  # what the arms did
    assert result.report()["num_dropped_gists"] == 3
    assert "stood STILL" in _shadow_note([distance])


def test_arms_that_move_are_held_against_each_step():
    arm = WatchedArm(0.0)

    def begun():  # the gate waits for arms that stand still
        arm.per_s, arm.since_s = 1.0, time.monotonic()

    _, distance = shadowed(arm, 0.0, begun)
    told = distance.report()
    assert not told["is_still"]
    assert told["joints"][0]["worst_step"] == 6
    # A step of 100 ms each, looked at within a tick or, where much else runs, a few.
    assert told["joints"][0]["worst"] == pytest.approx(0.6, abs=0.15)
    assert "rad RMS" in _shadow_note([distance])


def test_without_a_shadow_none_is_told():
    robot = NowRobot()
    run = run_of(BenchPolicy(), robot)
    (result,) = run.episodes([3])
    run.close()
    assert result.report()["shadow"] is None


@pytest.mark.parametrize(
    ("mode", "told"),
    [("holding", "following"), ("braking", "stopped"), ("lost", "lost"), ("closed", "closed")],
)
def test_arms_that_fail_end_the_episode_all_the_same(mode, told):
    arm = WatchedArm(0.0)
    arm.mode = mode
    assert ShadowBody(arm).mode == told  # type: ignore[arg-type]


def test_a_supervisor_that_watches_writes_nothing():
    one = np.ones(3)
    limits = JointLimits(
        lower=-one, upper=one, velocity=one, acceleration=one, step=one, is_angle=one > 0
    )
    driver = "python:tests.fakes.arm_drivers:open_lagging:refuse"
    with SupervisedArm.open(driver, limits, is_watching=True) as arm:
        first, then = np.zeros(3), np.zeros(3)
        arm.state(first)
        arm.command(np.ones(3))
        arm.stop("nothing")
        arm.home()
        time.sleep(0.2)
        arm.state(then)
        status = arm.status()
        assert arm.mode == "holding"
        assert status.counts["failed_writes"] == 0
        assert (then - first).min() > 0  # somebody moves them
        np.testing.assert_array_equal(status.target, status.measured)
    assert arm.mode == "closed"


def test_the_expert_moves_the_simulated_arms_and_takes_no_command():
    pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
    from memorywam_robot.arms.arm_drivers import driver_from_argument
    from memorywam_robot.arms.arm_link import PAGE_BYTES
    from memorywam_robot.arms.expert_driver import ExpertDriver
    from memorywam_robot.sim.live_page import LivePage

    page = memoryview(bytearray(PAGE_BYTES))
    driver = driver_from_argument("sim-expert:recall:0", page)
    assert isinstance(driver, ExpertDriver)
    now_ns = time.monotonic_ns()
    driver._now_ns = lambda: now_ns
    asking = LivePage(page)
    for is_begun in (False, True):
        asking.request.record["seed"], asking.request.record["is_begun"] = 2, is_begun
        asking.request.write()
        driver.read(np.zeros(14))
    script = driver._world.script
    seen = []
    while not driver._world.is_done:
        now_ns += 50_000_000
        driver.read(out := np.zeros(14))
        seen.append(out)
    assert driver._world.is_success
    assert driver._world.script is script
    assert np.ptp(seen, axis=0).max() > 0.2
    with pytest.raises(DeviceError, match="the expert moves these arms"):
        driver.write(np.zeros(14))


@pytest.mark.parametrize("words", [[], ["--async", "--simulated-time"], ["--async", "--dry-run"]])
def test_a_shadow_goes_by_the_clock(tiny_bundle, words, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    status = main(["run", str(tiny_bundle), "--robot", "sim:recall", "--shadow", *words])
    assert status == 2
    assert "expected it with --async in real time" in capsys.readouterr().err


def test_a_shadow_begins_chunks_with_nothing(tiny_bundle, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    words = ["--async", "--shadow", "--seam", "inpaint"]
    assert main(["run", str(tiny_bundle), "--robot", "sim:recall", *words]) == 2
    assert "--seam inpaint; expected drop" in capsys.readouterr().err


@pytest.mark.parametrize(
    "robot", ["lerobot:so101_follower,id=mine", "driver:lerobot:so101_follower"]
)
def test_what_connecting_would_move_is_not_watched(tiny_bundle, robot, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    status = main(
        ["run", str(tiny_bundle), "--robot", robot, "--async", "--shadow", "--limits", "none.json",
         "--instruction", "random", "--latency", "10,20"]
    )  # fmt: skip
    assert status == 2
    said = capsys.readouterr().err
    assert "--shadow with lerobot:so101_follower; expected arms that are only read" in said


def test_nor_by_the_supervisor():
    one = np.ones(3)
    limits = JointLimits(
        lower=-one, upper=one, velocity=one, acceleration=one, step=one, is_angle=one > 0
    )
    with pytest.raises(InputError, match="arms that are only read"):
        SupervisedArm.open("lerobot:so101_follower", limits, is_watching=True)


@pytest.mark.proof
def test_a_shadow_of_the_expert_is_recorded_and_replays(tiny_bundle, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    told = tmp_path / "told.json"
    status = main(
        ["run", str(tiny_bundle), "--robot", "sim:recall", "--async", "--shadow",
         "--instruction", "random", "--latency", "10,20", "--threads", "1",
         "--record", str(tmp_path / "recordings"), "--json", str(told)]
    )  # fmt: skip
    found = json.loads(told.read_text())["data"]
    assert status == 0, found
    (episode,) = found["episodes"]
    assert episode["success"]  # of the expert
    assert episode["shadow"]["num_steps"] > 50
    assert not episode["shadow"]["is_still"]
    assert found["timing"]["supervisor"]["counts"]["failed_writes"] == 0
    (path,) = (tmp_path / "recordings").iterdir()
    assert path.name == "shadow-sim-recall-seed-0.mcap"
    assert (
        main(
            ["replay", str(path), "--bundle", str(tiny_bundle), "--assert-equal", "--threads", "1"]
        )
        == 0
    )
