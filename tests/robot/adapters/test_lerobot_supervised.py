"""LeRobot's arms under the supervisor: they stop, stay and hold whatever their bus does."""

import os
import signal
import time

import numpy as np
import pytest
from tests.fakes.faults import keep
from tests.fakes.lerobot_arms import ACTIONS, Motors, policy_killed

from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_runtime.errors import DeviceError

N = 14
LIMITS = JointLimits(
    lower=np.full(N, -3.0),
    upper=np.full(N, 3.0),
    velocity=np.full(N, 3.0),
    acceleration=np.full(N, 20.0),
    step=np.full(N, np.inf),
    is_angle=np.array([unit == "rad" for unit in ACTIONS.units]),
)


def test_the_supervisor_tells_when_the_arms_were_measured(tmp_path):
    driver = f"python:tests.fakes.lerobot_arms:open_bus:{tmp_path / 'motors'},20"
    with SupervisedArm.open(driver, LIMITS) as arm:
        out, ages_ms = np.zeros(N), []
        for _ in range(30):
            time.sleep(0.01)
            measured_ns = arm.state(out)
            # Of the supervisor's tick, which said so; this process may have had no turn since.
            ages_ms.append((int(arm.link.state.record["tick_ns"]) - measured_ns) / 1e6)
        status = arm.status()
    assert 10 < np.median(ages_ms) < 60  # half a call, and the one that follows
    assert status.counts["failed_reads"] == status.counts["failed_writes"] == 0
    assert status.counts["clipped"] == 0
    assert status.work_max_ms < 10


@pytest.mark.parametrize("fault", ["read", "write", "hang"])
def test_a_bus_that_fails_stops_the_arms_for_good(tmp_path, fault):
    driver = f"python:tests.fakes.lerobot_arms:open_bus:{tmp_path / 'motors'},8,{fault}"
    with SupervisedArm.open(driver, LIMITS) as arm:
        out = np.zeros(N)
        arm.state(out)
        arm.start(out)
        os.kill(arm.supervisor_pid, signal.SIGUSR1)
        until_s = time.monotonic() + 1.0
        while arm.mode != "stopped" and time.monotonic() < until_s:
            arm.command(out)
            time.sleep(0.02)
        assert arm.mode == "stopped"
        assert "the driver fails" in arm.reason
        os.kill(arm.supervisor_pid, signal.SIGUSR1)
        time.sleep(0.15)
        arm.operator_reset()
        assert arm.wait_for("holding", 2.0)
    assert Motors(tmp_path / "motors", N).torque.all()


@pytest.mark.parametrize("fault", ["write", "hang"])
def test_stopped_arms_stay_where_they_are_when_their_bus_is_back(tmp_path, fault):
    driver = f"python:tests.fakes.lerobot_arms:open_bus:{tmp_path / 'motors'},8,{fault}"
    motors = Motors(tmp_path / "motors", N)

    def turn():
        os.kill(arm.supervisor_pid, signal.SIGUSR1)

    def fly(seconds, is_so=lambda: False):
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not is_so():
            arm.command(np.r_[2.8, np.zeros(N - 1)])
            time.sleep(0.01)

    arm = SupervisedArm.open(driver, LIMITS)
    try:
        out = np.zeros(N)
        arm.state(out)
        arm.start(out)
        fly(2.0, lambda: motors.goal[-1] > 45)
        assert motors.goal[-1] > 45
        turn()
        fly(0.5)
        assert arm.mode == "stopped"
        held = motors.goal.copy()
        turn()
        time.sleep(0.2)
        np.testing.assert_allclose(motors.goal, held, rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.degrees(arm.status().target[0]), held[-1], atol=1e-6)
        turn()
    finally:
        if fault == "hang":  # it cannot be let go of, and that is said
            with pytest.raises(DeviceError, match="ended with code 1"):
                arm.close()
        arm.close()
    assert motors.torque.all()


def test_a_joint_without_torque_stops_the_others(tmp_path):
    path = tmp_path / "motors"
    motors = Motors(path, N)
    with SupervisedArm.open(f"python:tests.fakes.lerobot_arms:open_bus:{path},8", LIMITS) as arm:
        motors.torque[3] = 0
        assert arm.wait_for("stopped", 3.0)
        assert "a joint has no torque" in arm.reason
        arm.operator_reset()
        assert not arm.wait_for("holding", 0.7)


def test_a_policy_killed_leaves_the_arms_still_and_powered(tmp_path):
    path = tmp_path / "motors"
    motors = Motors(path, N)
    record = policy_killed(f"python:tests.fakes.lerobot_arms:open_bus:{path},8", motors)
    keep(record)
    assert record.still, record
    assert record.powered
    assert "the policy's process is gone" in record.reason
    assert record.measured_ms is not None
    assert 50 < record.measured_ms < 500
