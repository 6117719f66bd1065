"""The real LeRobot: its registry, robots, cameras and evaluation loops, with our adapters.

Its packages take 600 MB and want another torch, so they live in a folder of their own.
"""

import os
from pathlib import Path

import pytest
from tests.fakes.faults import keep
from tests.fakes.lerobot_arms import Motors, policy_killed
from tests.fakes.package_folders import LEROBOT, packages, program

pytestmark = pytest.mark.proof

PRELUDE = """
import logging, sys
from dataclasses import dataclass, field
import numpy as np
import torch
# Its torchvision was built for CUDA and finds none; nothing here detects objects.
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
import lerobot.utils.import_utils as parts
parts._transformers_available = False  # one of its policies is written for an older one
from memorywam_export.checkpoints.presets import contract_from_preset
CONTRACT = contract_from_preset("tiny")
NAMES = CONTRACT.actions.names
"""

ROBOT = (
    PRELUDE
    + '''
import lerobot.robots as robots, lerobot.cameras as cameras
from lerobot.cameras import CameraConfig
import time

@cameras.CameraConfig.register_subclass("paced")
@dataclass
class PacedConfig(cameras.CameraConfig):
    color_mode: str = "rgb"

class Paced(cameras.Camera):
    """A new image every 20 ms, by LeRobot's rules for async_read and read_latest."""
    def __init__(self, config):
        super().__init__(config)
        self.color_mode, self.taken, self.opened = config.color_mode, -1, None
    @property
    def is_connected(self):
        return self.opened is not None
    @staticmethod
    def find_cameras():
        return []
    def connect(self, warmup=True):
        self.opened = time.monotonic()
    def newest(self):
        return int((time.monotonic() - self.opened) / 0.02)
    def read(self):
        return np.full((48, 64, 3), self.newest() % 256, np.uint8)
    def async_read(self, timeout_ms=200):
        until = time.monotonic() + timeout_ms / 1e3
        while self.newest() == self.taken:
            if time.monotonic() >= until:
                raise TimeoutError("no new frame")
            time.sleep(0.001)
        self.taken = self.newest()
        return self.read()
    def read_latest(self, max_age_ms=500):
        return self.read()
    def disconnect(self):
        self.opened = None

@robots.RobotConfig.register_subclass("pair")
@dataclass
class PairConfig(robots.RobotConfig):
    port: str
    disable_torque_on_disconnect: bool = True
    use_degrees: bool = True
    cameras: dict[str, CameraConfig] = field(default_factory=dict)

class Pair(robots.Robot):
    config_class, name = PairConfig, "pair"
    torque = True
    def __init__(self, config):
        super().__init__(config)
        self.config, self.connected = config, False
        self.cameras = cameras.make_cameras_from_configs(config.cameras)
        self.at = {f"{name}.pos": 0.0 for name in reversed(NAMES)}
    @property
    def observation_features(self):
        return self.action_features | {name: (48, 64, 3) for name in self.cameras}
    @property
    def action_features(self):
        return dict.fromkeys(self.at, float)
    @property
    def is_connected(self):
        return self.connected
    is_calibrated = True
    def connect(self, calibrate=True):
        assert calibrate is False
        self.connected = True
        for camera in self.cameras.values():
            camera.connect()
    def calibrate(self): pass
    def configure(self): pass
    def get_observation(self):
        return self.at | {name: one.read_latest() for name, one in self.cameras.items()}
    def send_action(self, action):
        self.at = {key: action[key] for key in self.at}
        return dict(self.at)
    def disconnect(self):
        assert self.connected
        self.connected = False
        if self.config.disable_torque_on_disconnect:
            Pair.torque = False

from memorywam_robot.adapters.lerobot_opening import camera_from_lerobot, robot_from_lerobot
from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.adapters.lerobot_camera import LeRobotCamera
from memorywam_robot.cameras.camera_rules import NOISELESS
from memorywam_robot.loop import run_episode
from memorywam_robot.runs import policy_from_bundle
from memorywam_runtime.opening import Opening
from memorywam_runtime.errors import InputError, DeviceError

root = logging.getLogger(); before = (root.handlers[:], root.level)
VIEWS = ", ".join(f"{one}: {{type: paced, fps: 50, width: 64, height: 48}}"
                  for one in ("front", "left_wrist", "right_wrist"))
import msgspec
JOINT_KEYS = {name: f"{name}.pos" for name in ("shoulder_pan", "shoulder_lift", "elbow_flex",
              "wrist_flex", "wrist_roll", "gripper")}
JOINTS = "+".join(f"{name}:{key}" for name, key in JOINT_KEYS.items())
TEXT = ("pair,port=/dev/null,cameras={" + VIEWS + "},units=rad:degrees+fraction:range_0_100,"
        "views=head:front,instruction=random,steps=20")
robot = robot_from_lerobot(words_from_argument(TEXT), CONTRACT)
assert (root.handlers, root.level) == before
policy = policy_from_bundle(__import__("pathlib").Path(sys.argv[1]), Opening(num_threads=1))
started = time.monotonic()
result = run_episode(policy, robot)
took = time.monotonic() - started
assert (result.num_steps, result.num_frames) == (20, 2), result
assert took > 1.9, took                      # 20 steps at 10 Hz, the first pause aside
robot.close()
assert Pair.torque
print("episode", round(took, 2))

for text, said in [
    ("pair,units=rad:degrees+fraction:range_0_100", "refuses no options"),
    ("pair,port=x,speed=1,units=rad:degrees+fraction:range_0_100", "refuses"),
    ("nobody,units=rad:degrees+fraction:range_0_100", "knows no 'nobody'"),
]:
    try:
        robot_from_lerobot(words_from_argument(text), CONTRACT)
    except InputError as error:
        assert said in str(error), error
    else:
        raise AssertionError(text)
so101 = f"so101_follower,port=/dev/null,joints={JOINTS},units=rad:degrees+fraction:range_0_100"
SO101 = msgspec.structs.replace(CONTRACT, actions=msgspec.structs.replace(
    CONTRACT.actions, names=tuple(JOINT_KEYS), units=("rad",) * 5 + ("fraction",), action_dim=6,
    state_dim=6))
for text, kind, said in [
    (so101, DeviceError, "/dev/null"),  # its motors are configured; their bus is not there
    (so101 + ",use_degrees=false", InputError, "is set to range_m100_100"),
]:
    try:
        robot_from_lerobot(words_from_argument(text), SO101)
    except kind as error:
        assert said in str(error), error
    else:
        raise AssertionError(text)

camera = LeRobotCamera("head", camera_from_lerobot(
    words_from_argument("paced,fps=50,width=64,height=48")), NOISELESS)
camera.start()
time.sleep(0.5)
frames = camera.take()
camera.close()
assert 20 <= len(frames) <= 27, len(frames)
print("frames", len(frames))
print("known", sorted(robots.RobotConfig.get_known_choices())[:30])
'''
)

POLICY = (
    PRELUDE
    + """
from pathlib import Path
import gymnasium
from lerobot.scripts.lerobot_eval import rollout
from lerobot.utils.control_utils import predict_action
from lerobot.policies.utils import make_robot_action
from memorywam_robot.adapters.lerobot_joints import joint_map_from_contract
from memorywam_robot.adapters.lerobot_module import policy_as_module
from memorywam_robot.adapters.lerobot_policy import LeRobotPolicy
from memorywam_robot.loop import run_episode
from memorywam_robot.runs import policy_from_bundle
from memorywam_runtime.opening import Opening
from tests.fakes.lerobot import StepRobot

STEPS = 40
inner = policy_from_bundle(Path(sys.argv[1]), Opening(num_threads=1))
robot = StepRobot(CONTRACT, STEPS)
run_episode(inner, robot, seed=3)
expected = np.array(robot.commands)
SAME = {"rad": "rad", "fraction": "fraction"}
ORDER = [f"{name}.pos" for name in sorted(NAMES)]

# 1. What lerobot-record does at every step.
joints = joint_map_from_contract(CONTRACT.actions, SAME, order=ORDER)
policy = LeRobotPolicy(inner, joints, seed=3, max_steps=STEPS)
policy.reset()
given = []
for step in range(STEPS):
    seen = robot.at(step)
    frame = {f"observation.images.{name}": one for name, one in seen.images.items()}
    frame["observation.state"] = joints.to_host(seen.state)
    action = predict_action(frame, policy, torch.device(policy.config.device), lambda x: x,
                            lambda x: x, policy.config.use_amp, "random", "pair")
    named = make_robot_action(action, {"action": {"names": ORDER}})
    given.append([named[f"{name}.pos"] for name in NAMES])
assert np.array(given).tobytes() == expected.tobytes()
assert policy.frames_expected == policy.frames_seen == 10
print("record ok")

# 2. lerobot-eval, with its own loop around an environment; its states are float32.
class Scene(gymnasium.Env):
    metadata = {"render_fps": 10}
    _max_episode_steps = STEPS
    task, task_description = "random", "random"
    def __init__(self):
        one = robot.at(0)
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict({
            "pixels": gymnasium.spaces.Dict({name: box(0, 255, image.shape, np.uint8)
                                             for name, image in one.images.items()}),
            "agent_pos": box(-100, 100, (14,), np.float64)})
        self.action_space = box(-100, 100, (14,), np.float32)
    def look(self):
        seen = robot.at(self.step_)
        return {"pixels": dict(seen.images), "agent_pos": seen.state}
    def reset(self, seed=None, options=None):
        self.step_ = 0
        return self.look(), {"is_success": False}
    def step(self, action):
        self.step_ += 1
        return self.look(), 0.0, False, False, {"is_success": False}

env = gymnasium.vector.SyncVectorEnv([Scene])
joints = joint_map_from_contract(CONTRACT.actions, SAME)
policy = LeRobotPolicy(inner, joints, seed=3)
module = policy_as_module(policy, torch.nn.Module)
same = lambda x: x
found = rollout(env, module, same, same, same, same)
actions = found["action"][0].numpy()
assert actions.shape == (STEPS, 14)
np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-4)
assert policy.frames_expected == policy.frames_seen == 10
print("eval ok", float(np.abs(actions - expected).max()))
"""
)

PLUGIN = """
from dataclasses import dataclass, field
from pathlib import Path
from lerobot.cameras import CameraConfig
from lerobot.robots import Robot, RobotConfig
from tests.fakes.lerobot_arms import BusDevice

@RobotConfig.register_subclass("bench")
@dataclass
class BenchConfig(RobotConfig):
    motors: str = ""
    disable_torque_on_disconnect: bool = True
    cameras: dict[str, CameraConfig] = field(default_factory=dict)

class Bench(BusDevice, Robot):
    config_class, name = BenchConfig, "bench"
    is_connected = False
    def __init__(self, config):
        Robot.__init__(self, config)
        BusDevice.__init__(self, Path(config.motors), call_s=0.008)
        self.disables_torque = config.disable_torque_on_disconnect
    def connect(self, calibrate=True):
        assert not calibrate
        self.is_connected = True
    def disconnect(self):
        assert self.is_connected
        self.is_connected = False
        super().disconnect()
    def calibrate(self): raise AssertionError
    def configure(self): raise AssertionError
"""
"""A robot of LeRobot's as others publish them: it is found by the name of its distribution."""

CUSTOMIZED = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
import lerobot.utils.import_utils as parts
parts._transformers_available = False
"""
"""What `PRELUDE` mends, in every process."""


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    return packages(LEROBOT, tmp_path_factory.mktemp("packages"))


def test_a_robot_and_cameras_of_its_registry(lerobot, tiny_bundle):
    said = program(ROBOT, lerobot, tiny_bundle)
    assert "episode" in said


def test_its_loops_with_our_policy(lerobot, tiny_bundle):
    said = program(POLICY, lerobot, tiny_bundle)
    assert "record ok" in said
    assert "eval ok" in said


def test_arms_of_its_registry_stay_still_and_powered_when_the_policy_is_killed(lerobot, tmp_path):
    plugin = tmp_path / "plugin"
    for name, text in {
        "lerobot_robot_bench/__init__.py": PLUGIN,
        "lerobot_robot_bench-1.0.dist-info/METADATA": "Name: lerobot_robot_bench\nVersion: 1.0\n",
        "sitecustomize.py": CUSTOMIZED,
    }.items():
        (plugin / name).parent.mkdir(parents=True, exist_ok=True)
        (plugin / name).write_text(text)
    paths = [str(Path(__file__).parents[3]), str(plugin), str(lerobot)]
    motors = Motors(tmp_path / "motors", 14)
    record = policy_killed(
        f"lerobot:bench,motors={tmp_path / 'motors'},units=rad:degrees+fraction:range_0_100",
        motors,
        os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
    )
    keep(record)
    assert record.still, record
    assert record.powered
    assert motors.num_sent > 10
