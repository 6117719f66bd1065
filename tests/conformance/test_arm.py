"""What the driver of any arms must keep: the process that guards them relies on all of it."""

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from tests.fakes.arm_drivers import LaggingDriver
from tests.fakes.lerobot_arms import JOINTS, BusDevice

from memorywam_robot.adapters import lerobot_driver
from memorywam_robot.adapters.lerobot_driver import LeRobotDriver
from memorywam_robot.arm import ArmDriver
from memorywam_robot.arms.arm_drivers import driver_from_argument
from memorywam_robot.arms.arm_link import PAGE_BYTES

CALL_MS = 5.0
"""Half a period of the supervisor's tick."""


@pytest.fixture(params=["simulated", "lagging", "lerobot"])
def driver(request, tmp_path, monkeypatch) -> Iterator[ArmDriver]:
    if request.param == "lagging":
        yield LaggingDriver(14, 0.2)
    if request.param == "lerobot":
        monkeypatch.setattr(lerobot_driver, "SILENT_NS", 10 * lerobot_driver.SILENT_NS)
        made = LeRobotDriver(BusDevice(tmp_path / "motors", call_s=0.008), JOINTS)
        yield made
        made.close()
    if request.param == "simulated":
        pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
        yield driver_from_argument("sim:recall:3", memoryview(bytearray(PAGE_BYTES)))


@pytest.fixture
def pose(driver):
    out = np.full(driver.num_joints, np.nan)
    driver.read(out)
    return out


def settle(driver, target, seconds=0.6):
    out = np.zeros(driver.num_joints)
    driver.write(target)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        driver.read(out)
        time.sleep(0.005)
    return out


def test_a_read_fills_every_joint_with_a_number(driver, pose):
    assert pose.shape == (driver.num_joints,)
    assert pose.dtype == np.float64
    assert np.isfinite(pose).all()


def test_joints_go_where_they_are_sent_and_stay_there(driver, pose):
    target = pose + 0.05 * np.where(pose > 0.5, -1, 1)
    out = settle(driver, target)
    np.testing.assert_allclose(out, target, atol=0.02)
    later = settle(driver, target, 0.2)  # the last target holds
    np.testing.assert_allclose(later, out, atol=0.005)


def test_joints_keep_their_order(driver, pose):
    for joint in (0, driver.num_joints // 2, driver.num_joints - 2):
        target = pose.copy()
        target[joint] += 0.08
        moved = settle(driver, target, 0.4) - pose
        assert int(np.abs(moved).argmax()) == joint


def test_what_was_written_may_be_changed_at_once(driver, pose):
    target = pose.copy()
    driver.write(target)
    target += 1.0
    np.testing.assert_allclose(settle(driver, pose, 0.2), pose, atol=0.01)
    driver.write(target := pose.copy())
    target += 1.0
    out = np.zeros(driver.num_joints)
    until_s = time.monotonic() + 0.2
    while time.monotonic() < until_s:
        driver.read(out)
        time.sleep(0.005)
    np.testing.assert_allclose(out, pose, atol=0.01)


def test_what_was_read_is_a_copy(driver, pose):
    before = pose.copy()
    pose += 5.0
    again = np.zeros(driver.num_joints)
    driver.read(again)
    np.testing.assert_allclose(again, before, atol=0.01)


def test_calls_are_short_and_leave_nothing_behind(driver, pose):
    out, spans_ms = np.zeros(driver.num_joints), []
    for _ in range(20):
        driver.read(out)
        driver.write(pose)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        driver.read(out)
        driver.write(pose)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000
    for _ in range(100):
        began_ns = time.monotonic_ns()
        driver.read(out)
        driver.write(pose)
        spans_ms.append((time.monotonic_ns() - began_ns) / 1e6)
        time.sleep(0.002)
    assert np.median(spans_ms) < CALL_MS


def test_torque_is_on_from_the_first_to_after_the_last(driver, pose):
    assert driver.is_powered
    driver.write(pose)
    assert driver.is_powered
    driver.close()
    assert driver.is_powered
    driver.close()  # twice is fine
