"""Joints keep their names through any order, and their angles through any unit."""

import math

import msgspec
import numpy as np
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.lerobot_joints import JointMap, check_modes, joint_map_from_contract
from memorywam_runtime.errors import InputError

ACTIONS = contract_from_preset("tiny").actions
UNITS = {"rad": "degrees", "fraction": "range_0_100"}


def test_names_become_keys_and_units_are_converted():
    joints = joint_map_from_contract(ACTIONS, UNITS)
    assert joints.keys[0] == "left_waist.pos"
    assert joints.keys[13] == "right_gripper.pos"
    values = joints.to_values(np.full(14, 0.5))
    assert values["right_wrist_rotate.pos"] == pytest.approx(math.degrees(0.5))
    assert values["left_gripper.pos"] == 50.0
    np.testing.assert_allclose(joints.from_values(values), np.full(14, 0.5), rtol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_the_host_keeps_each_value_with_its_name(seed):
    names = ACTIONS.names
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(14)]
    joints = joint_map_from_contract(ACTIONS, UNITS, order=[f"{name}.pos" for name in shuffled])
    action = np.arange(14.0)
    by_name = dict(zip(names, action, strict=True))
    theirs = joints.to_host(action)
    for name, value in zip(shuffled, theirs, strict=True):
        factor = 100 if "gripper" in name else 180 / math.pi
        assert value == pytest.approx(by_name[name] * factor)
    np.testing.assert_allclose(joints.from_host(theirs), action, rtol=1e-15)
    np.testing.assert_array_equal(joints.to_host(action[None]), theirs[None])
    # A robot's observation may come in any order as well.
    values = joints.to_values(action)
    again = joints.from_values(dict(sorted(values.items(), reverse=True)))
    np.testing.assert_allclose(again, action, rtol=1e-15)


def test_same_units_are_exact():
    joints = joint_map_from_contract(ACTIONS, {"rad": "rad", "fraction": "fraction"})
    action = np.random.default_rng(0).standard_normal(14)
    assert joints.to_host(action).tobytes() == action.tobytes()
    assert joints.from_host(action).tobytes() == action.tobytes()


def test_other_names_are_said():
    joints = joint_map_from_contract(ACTIONS, UNITS, keys={"left_waist": "left_shoulder_pan.pos"})
    assert joints.keys[:2] == ("left_shoulder_pan.pos", "left_shoulder.pos")
    with pytest.raises(InputError, match="no joint 'waist'"):
        joint_map_from_contract(ACTIONS, UNITS, keys={"waist": "x"})
    with pytest.raises(InputError, match="one twice"):
        joint_map_from_contract(ACTIONS, UNITS, keys={"left_waist": "left_shoulder.pos"})
    with pytest.raises(InputError, match=r"without \['left_waist.pos'\], with \['other'\]"):
        joint_map_from_contract(ACTIONS, UNITS, order=["other", *joints_but_first()])


def joints_but_first():
    return [f"{name}.pos" for name in ACTIONS.names[1:]]


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({}, "no unit for 'rad'"),
        ({"rad": "turns"}, "units=rad:turns"),
        ({"rad": "range_m100_100"}, "cannot make 'rad' of LeRobot's 'range_m100_100'"),
        ({"rad": "range_0_100"}, "cannot make 'rad'"),
        ({"rad": "degrees", "fraction": "degrees"}, "cannot make 'fraction'"),
    ],
)
def test_units_are_never_guessed(units, said):
    with pytest.raises(InputError, match=said):
        joint_map_from_contract(ACTIONS, units)


def test_nameless_joints_are_refused():
    nameless = msgspec.structs.replace(ACTIONS, names=())
    with pytest.raises(InputError, match="never guessed"):
        joint_map_from_contract(nameless, UNITS)
    with pytest.raises(InputError, match="a state of 7"):
        joint_map_from_contract(msgspec.structs.replace(ACTIONS, state_dim=7), UNITS)


def test_what_the_motors_are_set_to_is_believed_over_what_was_said():
    joints = joint_map_from_contract(ACTIONS, UNITS)
    check_modes(joints, ACTIONS, UNITS, {"left_waist.pos": "degrees"})
    check_modes(joints, ACTIONS, UNITS, {"left_gripper.pos": "range_0_100"})
    with pytest.raises(InputError, match=r"'left_waist\.pos' is set to range_m100_100"):
        check_modes(joints, ACTIONS, UNITS, {"left_waist.pos": "range_m100_100"})


@pytest.mark.parametrize("bad", [np.zeros(13), np.zeros((1, 14)), np.full(14, np.nan)])
def test_what_is_no_action_is_refused(bad):
    with pytest.raises(InputError, match="expected 14 finite numbers"):
        joint_map_from_contract(ACTIONS, UNITS).to_values(bad)


def test_a_missing_joint_is_named():
    joints = JointMap(["a", "b"], [1, 1])
    with pytest.raises(InputError, match="no 'b' among"):
        joints.from_values({"a": 1.0})
    with pytest.raises(InputError, match=r"joint state \[3\]"):
        joints.from_host(np.zeros(3))
