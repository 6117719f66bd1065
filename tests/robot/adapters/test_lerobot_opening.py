"""The door to LeRobot: torque is kept, what is missing is said, importing changes nothing."""

import logging
import subprocess
import sys
from dataclasses import dataclass

import pytest
from tests.fakes.lerobot import ArmConfig, PairConfig

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters import lerobot_opening
from memorywam_robot.adapters.lerobot_opening import keep_torque, robot_from_lerobot
from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_runtime.errors import InputError, MissingPartError

CONTRACT = contract_from_preset("tiny")
UNITS = "units=rad:degrees+fraction:range_0_100"

NO_SIDE_EFFECTS = """
import logging, signal, sys, threading, warnings
import memorywam_robot.loop, memorywam_robot.robot, memorywam_runtime.policy
root = logging.getLogger()
before = (root.handlers[:], root.level, len(warnings.filters), threading.active_count(),
          signal.getsignal(signal.SIGINT), sys.excepthook)
import memorywam_robot.adapters.gym_opening
import memorywam_robot.adapters.lerobot_camera
import memorywam_robot.adapters.lerobot_module
import memorywam_robot.adapters.lerobot_opening
import memorywam_robot.adapters.ros_node
assert (root.handlers[:], root.level, len(warnings.filters), threading.active_count(),
        signal.getsignal(signal.SIGINT), sys.excepthook) == before
heavy = {"torch", "lerobot", "draccus", "gymnasium", "rclpy", "mujoco", "dm_control", "cv2"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_importing_has_no_side_effects():
    subprocess.run([sys.executable, "-c", NO_SIDE_EFFECTS], check=True, timeout=60)


def test_without_lerobot():
    if "lerobot" in sys.modules:
        pytest.skip("LeRobot is installed here")
    with pytest.raises(MissingPartError, match="pip install 'lerobot"):
        robot_from_lerobot(words_from_argument(f"so101_follower,{UNITS}"), CONTRACT)


def test_units_are_asked_for_before_anything_is_opened():
    with pytest.raises(InputError, match="no unit for 'rad'"):
        robot_from_lerobot(words_from_argument("so101_follower"), CONTRACT)


def test_torque_is_kept_in_every_part_of_a_configuration():
    one, pair = ArmConfig(), PairConfig()
    assert keep_torque(one) == 1
    assert not one.disable_torque_on_disconnect
    assert keep_torque(pair) == 2
    assert not pair.left_arm_config.disable_torque_on_disconnect
    assert not pair.right_arm_config.disable_torque_on_disconnect

    @dataclass
    class Bare:
        port: str = ""

    assert keep_torque(Bare()) == 0


def test_an_import_that_takes_over_logging_is_undone():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    intruder = logging.NullHandler()
    with lerobot_opening._quiet():
        root.addHandler(intruder)
        root.setLevel(logging.DEBUG)
    assert (root.handlers, root.level) == (handlers, level)
