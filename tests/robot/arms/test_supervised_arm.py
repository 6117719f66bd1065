"""The policy's side: episodes start, commands reach the arms, and errors come back in words."""

import time
import tracemalloc

import numpy as np
import pytest
from tests.fakes.dead_process import DeadProcess

from memorywam_robot.arms.guard_rules import GuardRules
from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_runtime.errors import DeviceError, InputError, MissingPartError

DRIVER = "python:tests.fakes.arm_drivers:open_lagging"
LIMITS = JointLimits(
    lower=np.array([-1.0, -2.0, -1.0]),
    upper=np.array([1.0, 3.0, 1.0]),
    velocity=np.array([1.0, 2.0, 5.0]),
    acceleration=np.array([8.0, 8.0, 200.0]),
    step=np.array([0.1, 0.1, np.inf]),
    is_angle=np.array([True, True, False]),
)
ZERO = np.zeros(3)
HOME = np.array([0.05, 0.0, 0.0])


def opened(text="", **options):
    return SupervisedArm.open(
        f"{DRIVER}:{text}" if text else DRIVER,
        LIMITS,
        **{"is_real_time": False, "home": HOME, **options},
    )


@pytest.fixture(scope="module")
def shared():
    with opened(rules=GuardRules(home_s=0.2, home_ease_s=0.1)) as arm:
        yield arm


@pytest.fixture
def arm(shared):
    """The same arms for all, holding at zero."""
    yield shared
    shared.release_estop()
    shared.stop()
    assert shared._wait(lambda: shared.mode in ("holding", "stopped"), 1.0)
    if shared.mode == "stopped":
        shared.operator_reset()
        assert shared.wait_for("holding", 2.0)


def send(arm, seconds, to=0.1, **options):
    """Command a pose for a while, 50 times a second."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        arm.command(np.array([to, 0, 0]), **options)
        time.sleep(0.02)


def test_an_episode_moves_the_arms_and_ends_at_rest(arm):
    out = np.ones(3)
    assert time.monotonic_ns() - arm.state(out) < 200_000_000
    arm.start(out)
    assert arm.mode == "following"
    send(arm, 0.4, to=0.1)
    arm.state(out)
    assert out[0] == pytest.approx(0.1, abs=0.01)
    arm.stop("enough")
    assert arm.wait_for("holding", 1.0)
    assert arm.reason == "stop asked: enough"
    status = arm.status()
    assert status.is_at_rest
    assert status.is_powered
    assert status.counts["overdue"] == 0
    assert not status.is_scheduled
    assert not status.is_locked


def test_a_start_too_far_away_is_an_error_in_words(arm):
    with pytest.raises(InputError, match=r"start refused: joint 1 is 0\.900 rad"):
        arm.start(np.array([0.1, 0.9, 0]))
    assert arm.mode == "holding"
    out = np.zeros(3)
    arm.state(out)
    arm.start(out)


def test_a_start_returns_when_the_first_action_is_reached(arm):
    out = np.zeros(3)
    arm.state(out)
    first = out + np.array([0, 0.1, 0])
    began_s = time.monotonic()
    arm.start(first)
    assert time.monotonic() - began_s > 0.35  # 0.08 rad at 0.2 rad/s
    arm.state(out)
    assert out[1] == pytest.approx(first[1], abs=0.03)
    send(arm, 0.1, to=out[0])
    assert arm.mode == "following"


def test_a_start_in_an_episode_ends_it_first(arm):
    out = np.zeros(3)
    arm.state(out)
    arm.start(out)
    send(arm, 0.1, to=out[0] + 0.05)
    epoch = arm.status().epoch
    arm.state(out)
    arm.start(out)
    assert arm.status().epoch == epoch + 1


def test_an_emergency_stop_is_left_by_release_reset_and_a_new_start(arm):
    out = np.zeros(3)
    arm.state(out)
    arm.start(out)
    arm.estop()
    assert arm.wait_for("stopped", 1.0)
    assert arm.reason == "emergency stop"
    arm.operator_reset()
    time.sleep(0.05)
    assert arm.status().counts["refused_resets"] >= 1
    with pytest.raises(DeviceError, match=r"stopped: emergency stop.*operator_reset"):
        arm.start(out)
    arm.release_estop()
    began_s = time.monotonic()
    arm.operator_reset()
    assert arm.wait_for("holding", 2.0)
    assert time.monotonic() - began_s >= 0.49
    arm.command(out)
    assert arm.mode == "holding"
    arm.start(out)
    assert arm.mode == "following"


def test_a_command_of_the_wrong_shape_is_counted_and_not_executed(arm):
    out = np.zeros(3)
    arm.state(out)
    arm.start(out)
    before = arm.status().counts["bad"]
    arm.command(np.zeros(2))
    time.sleep(0.03)
    arm.command(np.full(3, np.nan))
    assert arm.wait_for("stopped", 0.5)
    assert arm.status().counts["bad"] == before + 2
    assert arm.reason == "commands that are no position of these joints"


def test_home_is_reached(arm):
    arm.home()
    assert arm.wait_for("homing", 0.5)
    assert arm.wait_for("holding", 3.0)
    out = np.zeros(3)
    arm.state(out)
    assert out[0] == pytest.approx(0.05, abs=5e-3)


def test_commands_take_no_memory_that_grows(arm):
    out = np.zeros(3)
    arm.state(out)
    arm.start(out)
    action = out.copy()
    for _ in range(20):
        arm.command(action)
        arm.state(out)
    tracemalloc.start()
    arm.command(action)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(500):
        arm.command(action)
        arm.state(out)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 500


def test_another_thread_watches_with_a_view_of_its_own(arm):
    view = arm.watched()
    assert view.state.read()
    tick = int(view.state.record["tick"])
    arm.status()
    time.sleep(0.05)
    assert view.state.read()
    assert int(view.state.record["tick"]) > tick


def test_the_supervisor_keeps_its_rate(arm):
    before = arm.status()
    time.sleep(0.5)
    after = arm.status()
    ticks = after.tick - before.tick + after.num_skipped - before.num_skipped
    assert ticks == pytest.approx((after.tick_ns - before.tick_ns) / 1e7, abs=1)
    assert after.late_p50_ms <= after.late_p99_ms <= after.late_max_ms


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("raise=can0", DeviceError, "could not be opened: OSError.*no such bus: can0"),
        ("exit", DeviceError, "ended with code 7 before it was ready"),
        ("beyond", InputError, "joint 1 is at 9.0000; expected -2.0000 to 3.0000"),
    ],
)
def test_arms_that_do_not_open_are_an_error_here(text, kind, said):
    with pytest.raises(kind, match=said):
        opened(text)


def test_a_supervisor_that_is_gone_before_it_is_told_of_its_arms(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", DeadProcess)
    with pytest.raises(DeviceError, match="ended with code 1 before it was ready"):
        opened()


def test_arms_that_open_too_slowly_are_given_up():
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match=r"was not ready within 0.5 s"):
        opened("hang", ready_s=0.5)
    assert time.monotonic() - began_s < 5


def test_a_driver_that_prints_does_not_spoil_the_answer(capfd):
    with opened("print") as arm:
        assert arm.mode == "holding"
    assert "a vendor's greeting" in capfd.readouterr().err


def test_unknown_arms_and_wrong_limits_are_refused():
    with pytest.raises(InputError, match="unknown arms 'nobody'; expected sim:TASK:SEED"):
        SupervisedArm.open("nobody", LIMITS)
    with pytest.raises(MissingPartError, match=r"nothing_there.*install"):
        SupervisedArm.open("python:nothing_there:opened", LIMITS)
    with pytest.raises(InputError, match="14 joints; expected 3"):
        SupervisedArm.open("sim:recall:0", LIMITS)
    with pytest.raises(InputError, match="period of 5 ns"):
        SupervisedArm.open(DRIVER, LIMITS, period_ns=5)


def test_closing_ends_the_process_at_rest_and_powered(tmp_path):
    log = tmp_path / "log"
    arm = opened(f"log={log}", is_real_time=True)
    arm.start(ZERO)
    send(arm, 0.2, to=0.3)
    arm.close()
    arm.close()
    assert arm.mode == "closed"
    assert arm._process.exit_code == 0
    assert log.read_text() == "closed still=True powered=True"
    status = arm.status()
    assert status.is_powered
    assert status.is_at_rest
