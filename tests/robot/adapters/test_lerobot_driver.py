"""LeRobot's arms as a driver: a slow bus, one thread, and motors that never go limp."""

import contextlib
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from tests.fakes.lerobot_arms import ACTIONS, JOINTS, BusDevice, Motors

from memorywam_robot.adapters import lerobot_bus, lerobot_driver
from memorywam_robot.adapters.lerobot_driver import LeRobotDriver, open_lerobot
from memorywam_robot.adapters.lerobot_opening import without_cameras
from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.arm import SlowDriver
from memorywam_robot.arms.arm_drivers import driver_from_argument
from memorywam_runtime.errors import DeviceError, InputError

N = 14


@pytest.fixture
def motors(tmp_path):
    return Motors(tmp_path / "motors", N)


SILENT_NS = lerobot_driver.SILENT_NS


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A driver on a bus, and its device; let go of at the end, whatever hangs."""
    made = []
    # A thread without priority may have no turn for long where much else runs.
    monkeypatch.setattr(lerobot_driver, "SILENT_NS", 10 * SILENT_NS)

    def open_(**options):
        device = BusDevice(tmp_path / "motors", **options)
        driver = LeRobotDriver(device, JOINTS)
        made.append((driver, device))
        return driver, device

    yield open_
    for driver, device in made:
        device.bus.fault = ""
        driver._bus.end()
        driver._thread.join(2.0)


def until(driver, is_so, seconds=1.0):
    """Write and read, as a supervisor does, until something is so; return whether it is."""
    out, target = np.zeros(N), np.zeros(N)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        driver.write(target)
        driver.read(out)
        if is_so():
            return True
        time.sleep(0.01)
    return False


def test_targets_are_sent_in_the_robots_names_order_and_units(opened, motors):
    driver, _ = opened()
    assert isinstance(driver, SlowDriver)
    target = np.linspace(0.01, 0.14, N)
    driver.write(target)
    time.sleep(0.1)
    expected = [np.degrees(value) for value in target]
    expected[6], expected[13] = 7.0, 14.0  # grippers in per cent
    np.testing.assert_allclose(motors.goal, expected[::-1], rtol=1e-9)  # the bus has another order
    out = np.zeros(N)
    driver.read(out)
    np.testing.assert_allclose(out, target, atol=1e-3)


def test_no_call_waits_for_a_bus_that_takes_20_ms(opened):
    driver, device = opened(call_s=0.02)
    sys.setswitchinterval(0.0005)
    try:
        out, spans_ms, times_ns = np.zeros(N), [], set()
        for _ in range(60):
            began_ns = time.monotonic_ns()
            driver.write(out)
            driver.read(out)
            spans_ms.append((time.monotonic_ns() - began_ns) / 1e6)
            times_ns.add(driver.measured_ns)
            assert time.monotonic_ns() - driver.measured_ns > 9e6  # the middle of its call, or more
            time.sleep(0.01)
    finally:
        sys.setswitchinterval(0.005)
    assert np.median(spans_ms) < 2
    assert 1 < len(times_ns) < 60  # about every 25 ms, or more where much else runs
    assert device.bus.hardware.num_sent < 60  # the newest of several


def test_a_clipped_target_is_counted(opened):
    driver, _ = opened(limit=1.0)
    driver.write(np.full(N, 0.005))
    time.sleep(0.1)
    driver.read(np.zeros(N))
    assert driver.num_clipped == 0
    driver.write(np.full(N, 0.5))
    time.sleep(0.1)
    driver.read(np.zeros(N))
    assert driver.num_clipped == 1


def test_a_lost_packet_is_one_failed_call_and_the_next_answer_mends_it(opened):
    driver, device = opened()
    device.bus.fault = "read"
    with pytest.raises(DeviceError, match="no status packet"):
        until(driver, lambda: False)
    device.bus.fault = ""
    time.sleep(0.05)
    with contextlib.suppress(DeviceError):  # of the last that failed
        driver.read(np.zeros(N))
    driver.read(np.zeros(N))


@pytest.mark.parametrize("kind", ["read", "write", "nan"])
def test_a_lost_packet_of_a_slow_bus_is_one_failed_call_however_many_ticks_it_takes(
    opened, monkeypatch, kind
):
    driver, device = opened(call_s=0.03)
    name = "sync_write" if kind == "write" else "sync_read"
    inner, left = getattr(device.bus, name), [1]

    def once(register, *args, **options):
        found = inner(register, *args, **options)
        if register == "Torque_Enable" or not left:
            return found
        left.clear()
        if kind == "nan":
            return dict.fromkeys(found, np.nan)
        raise ConnectionError("lost")

    monkeypatch.setattr(device.bus, name, once)
    failed, out = [], np.zeros(N)

    def hear(call):
        try:
            call(out)
        except DeviceError as error:
            failed.append(str(error))

    for _ in range(20):
        hear(driver.write)
        hear(driver.read)
        time.sleep(0.01)
    assert len(failed) == 1
    assert ("finite" if kind == "nan" else "lost") in failed[0]


def test_what_was_sent_last_is_told(opened):
    driver, device = opened(limit=10.0)
    out = np.ones(N)
    driver.sent(out)
    np.testing.assert_array_equal(out, 0)  # where they stood
    driver.write(np.full(N, 0.3))
    time.sleep(0.1)
    driver.sent(out)
    np.testing.assert_allclose(out[:2], np.radians(10.0))  # as the robot clipped it
    device.bus.fault = "write"
    with pytest.raises(DeviceError):
        until(driver, lambda: False)
    driver.sent(out)
    np.testing.assert_allclose(out[:2], np.radians(10.0))
    device.bus.fault = ""
    read = device.bus.sync_read

    def hangs(register, **options):
        device.bus.fault = "hang"
        return read(register, **options)

    device.bus.sync_read = hangs
    driver.write(np.full(N, 0.1))
    time.sleep(0.1)
    driver.sent(out)  # told before the question that hangs
    np.testing.assert_allclose(out, 0.1)
    device.bus.sync_read = read


def test_a_target_that_is_not_taken_is_sent_again(opened, motors):
    driver, device = opened()
    device.bus.fault = "write"
    with pytest.raises(DeviceError, match=r"took no command.*Failed transmit"):
        until(driver, lambda: False)
    time.sleep(0.05)
    with pytest.raises(DeviceError):
        driver.write(np.full(N, 0.01))  # kept all the same
    device.bus.fault = ""
    time.sleep(0.1)
    assert motors.goal[-1] == pytest.approx(np.degrees(0.01))
    until(driver, lambda: True)


def test_a_bus_that_hangs_is_a_failure_after_as_long_as_a_command_is_good_for(opened, monkeypatch):
    driver, device = opened()
    out = np.zeros(N)
    assert until(driver, lambda: device.bus.hardware.num_sent > 2)
    device.bus.fault = "hang"
    monkeypatch.setattr(lerobot_driver, "SILENT_NS", SILENT_NS)
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match=r"nothing for .* ms|taken no target for .* ms"):
        until(driver, lambda: False, 2.0)
    assert 0.08 < time.monotonic() - began_s < 0.25
    time.sleep(0.15)  # each counts from its own last success
    with pytest.raises(DeviceError, match="taken no target for"):
        driver.write(out)
    with pytest.raises(DeviceError, match="said nothing for"):
        driver.read(out)
    monkeypatch.setattr(lerobot_driver, "SILENT_NS", 10 * SILENT_NS)
    device.bus.fault = ""
    time.sleep(0.1)
    driver.read(out)


def test_a_pause_of_the_writer_is_no_fault_of_the_bus(opened):
    driver, _ = opened()
    driver.write(np.zeros(N))
    time.sleep(1.2)
    driver.write(np.zeros(N))
    driver.write(np.zeros(N))


def test_the_motors_are_asked_for_their_torque(opened, motors, monkeypatch):
    monkeypatch.setattr(lerobot_bus, "_TORQUE_NS", 50_000_000)
    driver, device = opened()
    assert driver.is_powered
    motors.torque[3] = 0  # a servo that protects itself
    assert until(driver, lambda: not driver.is_powered)
    motors.torque[3] = 1
    assert until(driver, lambda: driver.is_powered)
    assert device.bus.num_torque_reads > 2


def test_motors_that_cannot_be_asked_are_trusted(tmp_path):
    device = BusDevice(tmp_path / "motors")
    ask = device.bus.sync_read

    def refuse(register, **options):
        if register == "Torque_Enable":
            raise KeyError(register)
        return ask(register, **options)

    device.bus.sync_read = refuse  # type: ignore[method-assign]
    driver = LeRobotDriver(device, JOINTS)
    assert driver.is_powered
    driver.close()


@pytest.mark.parametrize("num_lost", [1, 2, 3])
def test_a_lost_packet_is_no_bus_that_cannot_be_asked(opened, motors, monkeypatch, num_lost):
    monkeypatch.setattr(lerobot_bus, "_TORQUE_NS", 20_000_000)
    asked = []

    def lost(device):
        asked.append(device)
        if len(asked) <= num_lost:
            raise ConnectionError("There is no status packet!")
        return False

    monkeypatch.setattr(lerobot_bus, "has_torque", lost)
    driver, _ = opened()
    assert until(driver, lambda: not driver.is_powered, 0.4) == (num_lost < 3)
    assert num_lost < 3 or len(asked) == 3


def test_closing_sends_the_last_target_and_leaves_the_torque_on(opened, motors):
    driver, device = opened(call_s=0.02)
    driver.write(np.full(N, 0.02))
    driver.write(np.full(N, 0.03))
    driver.close()
    driver.close()
    assert device.disconnects == 1
    assert motors.goal[-1] == pytest.approx(np.degrees(0.03))
    assert motors.torque.all()
    assert driver.is_powered
    with pytest.raises(DeviceError, match="thread of the arms' bus has ended"):
        driver.write(np.zeros(N))


def test_a_bus_that_hangs_at_the_end_is_said_and_not_waited_for(opened, monkeypatch):
    monkeypatch.setattr(lerobot_driver, "_END_S", 0.1)
    driver, device = opened()
    device.bus.fault = "hang"
    time.sleep(0.05)
    with pytest.raises(DeviceError, match=r"hangs.*keep the last target"):
        driver.close()
    assert device.disconnects == 0


def test_a_bus_that_is_not_let_go_is_said(opened):
    driver, device = opened()

    def disconnect():
        raise ConnectionError("the port is gone")

    device.disconnect = disconnect
    with pytest.raises(DeviceError, match=r"were not let go: .*the port is gone"):
        driver.close()
    driver.close()


def test_other_joints_are_refused(tmp_path):
    device = BusDevice(tmp_path / "motors")
    device.bus.names = [*device.bus.names[:-1], "base"]
    with pytest.raises(InputError, match="the contract's joints are"):
        LeRobotDriver(device, JOINTS)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("cameras={}", "--cameras"),
        ("views=head:front", "--cameras"),
        ("instruction=wave", "--instruction"),
        ("steps=9", "--max-steps"),
    ],
)
def test_what_is_not_the_arms_is_said_elsewhere(option, expected):
    with pytest.raises(InputError, match=rf"with --async; expected {expected}"):
        open_lerobot(words_from_argument(f"so101_follower,{option}"), ACTIONS)


def test_joints_have_names():
    with pytest.raises(InputError, match="goes by the names of joints"):
        driver_from_argument("lerobot:so101_follower", memoryview(b""))


def test_cameras_are_taken_out_of_every_part_of_a_configuration():
    @dataclass
    class Arm:
        cameras: dict[str, int] = field(default_factory=lambda: {"wrist": 1})

    @dataclass
    class Pair:
        left_arm_config: Arm = field(default_factory=Arm)
        cameras: dict[str, int] = field(default_factory=lambda: {"head": 1})

    pair = Pair()
    without_cameras(pair)
    assert pair.cameras == pair.left_arm_config.cameras == {}
