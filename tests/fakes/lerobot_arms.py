"""Arms on a slow bus, as LeRobot drives them; the motors outlive whoever drives them, in a file."""

import json
import mmap
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes.faults import FaultRecord, is_closed, is_fast, is_gone, watch_stop

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.lerobot_driver import LeRobotDriver
from memorywam_robot.adapters.lerobot_joints import joint_map_from_contract
from memorywam_robot.arms.arm_link import ArmLink

__all__ = ["ACTIONS", "JOINTS", "BusDevice", "Motors", "open_bus", "policy_killed"]

ACTIONS = contract_from_preset("tiny").actions
JOINTS = joint_map_from_contract(ACTIONS, {"rad": "degrees", "fraction": "range_0_100"})
_DEG_PER_S, _FALL_DEG_PER_S = 720.0, 90.0


class Mode(Enum):
    """How LeRobot spells a motor's normalization."""

    DEGREES = "degrees"
    PERCENT = "range_0_100"


class Motor:
    """What LeRobot knows of one."""

    def __init__(self, norm_mode: Mode) -> None:
        self.norm_mode = norm_mode


class Motors:
    """Servos that go to their goal, keep it when nobody talks to them, and fall without torque."""

    def __init__(self, path: Path, num_motors: int) -> None:
        """Open the file, or make one with all at 0 and powered."""
        rows = 3 * num_motors + 2
        if not path.exists():
            made = np.zeros(rows)
            made[2 * num_motors : 3 * num_motors] = 1
            made[-2] = time.monotonic()
            made.tofile(path)
        with path.open("r+b") as file:
            words = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float64)
        self._at, self.goal, self.torque = words[:-2].reshape(3, num_motors)
        self._times = words[-2:]

    @property
    def at(self) -> np.ndarray:
        """Where they are, in degrees and per cent."""
        now_s = time.monotonic()
        passed_s = now_s - self._times[0]
        self._times[0] = now_s
        most = _DEG_PER_S * passed_s
        way = np.clip(self.goal - self._at, -most, most)
        self._at += np.where(self.torque > 0, way, -_FALL_DEG_PER_S * passed_s)
        return self._at.copy()

    @property
    def num_sent(self) -> int:
        """Goals that came."""
        return int(self._times[1])

    def send(self, goal: Sequence[float]) -> None:
        """Take a goal."""
        self.goal[:] = goal
        self._times[1] += 1


class Bus:
    """LeRobot's serial bus: every call takes its time, in a busy loop."""

    def __init__(self, names: Sequence[str], path: Path, call_s: float) -> None:
        self.names = list(names)
        self.motors = {
            name: Motor(Mode.PERCENT if "gripper" in name else Mode.DEGREES) for name in names
        }
        self.hardware = Motors(path, len(self.names))
        self.call_s = call_s
        self.fault = ""
        self.num_torque_reads = 0

    def sync_read(self, register: str, *, normalize: bool = True) -> dict[str, float]:
        """Ask all motors."""
        self._talk(self.call_s)
        if register == "Torque_Enable":
            self.num_torque_reads += 1
            assert not normalize
            return dict(zip(self.names, self.hardware.torque.tolist(), strict=True))
        if self.fault == "read":
            raise ConnectionError("[TxRxResult] There is no status packet!")
        return dict(zip(self.names, self.hardware.at.tolist(), strict=True))

    def sync_write(self, register: str, values: Mapping[str, float]) -> None:
        """Tell all motors; none answers."""
        assert register == "Goal_Position"
        self._talk(self.call_s / 8)
        if self.fault == "write":
            raise ConnectionError("[TxRxResult] Failed transmit instruction packet!")
        self.hardware.send([values[name] for name in self.names])

    def _talk(self, seconds: float) -> None:
        """Look at a port that has nothing yet, as the vendors' libraries do."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s or self.fault == "hang":
            select.select([], [], [], 0)


class BusDevice:
    """A robot of LeRobot's with arms alone; in another order than the contract's."""

    def __init__(self, path: Path, *, call_s: float = 0.0, limit: float | None = None) -> None:
        self.bus = Bus(ACTIONS.names[::-1], path, call_s)
        self.limit = limit
        self.disables_torque = False
        self.disconnects = 0

    @property
    def action_features(self) -> dict[str, type]:
        return {f"{name}.pos": float for name in self.bus.names}

    observation_features = action_features
    is_calibrated = True

    def connect(self, *, calibrate: bool) -> None:
        assert not calibrate

    def get_observation(self) -> dict[str, Any]:
        return {f"{key}.pos": value for key, value in self.bus.sync_read("Position").items()}

    def send_action(self, action: Mapping[str, float]) -> dict[str, float]:
        most = np.inf if self.limit is None else self.limit
        goal = {key.removesuffix(".pos"): min(value, most) for key, value in action.items()}
        self.bus.sync_write("Goal_Position", goal)
        return {f"{key}.pos": value for key, value in goal.items()}

    def disconnect(self) -> None:
        self.disconnects += 1
        if self.disables_torque:
            self.bus.hardware.torque[:] = 0


def open_bus(text: str, _page: memoryview) -> LeRobotDriver:
    """Return arms by `PATH,CALL_MS[,FAULT]`; a signal turns the fault on, and off again."""
    path, call_ms, *faults = text.split(",")
    device = BusDevice(Path(path), call_s=float(call_ms) / 1e3)

    def turn(*_: object) -> None:
        device.bus.fault = "" if device.bus.fault else faults[0]

    if faults:
        signal.signal(signal.SIGUSR1, turn)
    sys.setswitchinterval(0.0005)
    return LeRobotDriver(device, JOINTS)


def policy_killed(
    driver: str, motors: Motors, environment: Mapping[str, str] | None = None
) -> FaultRecord:
    """Kill a policy whose arms go fast; return the record of the stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.policy_process", f"driver={driver}"],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        link = ArmLink.attach(said["link"])
        while not is_fast(link, 2.5):
            assert process.poll() is None
        since_ns = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
        record, status = watch_stop(
            link,
            "policy killed (SIGKILL), arms of LeRobot's",
            "brake at once, hold, end at rest with torque on",
            since_ns,
        )
        assert status.mode == "stopped"
        assert is_gone(said["supervisor"])
        assert is_closed(link)
        link.state.read()
        assert link.state.record["is_powered"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert motors.torque.all()  # the supervisor is gone, and they hold
    before = motors.at
    time.sleep(0.1)
    np.testing.assert_array_equal(motors.at, before)
    return record
