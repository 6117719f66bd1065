"""A LeRobot device behind the loop: what was sent is known, holds are still, torque stays."""

import time

import numpy as np
import pytest
from tests.fakes.lerobot import FakeDevice

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.lerobot_cameras import LeRobotCameras
from memorywam_robot.adapters.lerobot_joints import joint_map_from_contract
from memorywam_robot.adapters.lerobot_robot import LeRobotArm, LeRobotRobot
from memorywam_robot.loop import run_episode
from memorywam_robot.robot import Job
from memorywam_runtime.errors import DeviceError, InputError

CONTRACT = contract_from_preset("tiny")
JOINTS = joint_map_from_contract(CONTRACT.actions, {"rad": "degrees", "fraction": "range_0_100"})
VIEWS = {name: name for name in CONTRACT.observations.cameras}


def device_(**options):
    # In another order than the contract's: robots have their own.
    return FakeDevice(CONTRACT.actions.names[::-1], CONTRACT.observations.cameras, **options)


def robot_(device, control_hz=1000.0, num_steps=20):
    return LeRobotRobot(
        device,
        LeRobotArm(device, JOINTS, control_hz),
        LeRobotCameras(device, VIEWS),
        Job(instruction="random", num_steps=num_steps),
    )


def test_an_episode_through_the_loop(scripted):
    def chunk(frame, state):
        return np.repeat(np.arange(1.0, 17.0)[:, None] / 100 + frame, 14, axis=1)

    device = device_()
    policy = scripted(chunk, CONTRACT)
    result = run_episode(policy, robot_(device))
    assert policy.groups == [(0,), (4, 8, 12, 16)]
    assert len(device.sent) == 21  # 20 steps and the hold
    assert device.sent[-1] == device.sent[-2]
    assert device.sent[0]["left_waist.pos"] == pytest.approx(np.degrees(0.01))
    assert device.sent[0]["right_gripper.pos"] == pytest.approx(1.0)
    assert result.success is None
    assert device.disconnects == 0


def test_what_was_really_sent_is_known():
    device = device_(limit=1.0)
    arm = LeRobotArm(device, JOINTS, 1000)
    arm.command(np.full(14, 0.5))
    assert arm.num_clipped == 1
    assert arm.sent is not None
    assert arm.sent[0] == pytest.approx(np.radians(1.0))
    assert arm.sent[6] == pytest.approx(0.01)
    np.testing.assert_allclose(arm.state(), arm.sent)


def test_a_command_takes_its_period_and_a_pause_is_not_caught_up():
    arm = LeRobotArm(device_(), JOINTS, 50)
    began = time.monotonic()
    for _ in range(5):
        arm.command(np.zeros(14))
    assert 0.098 < time.monotonic() - began < 0.2
    time.sleep(0.1)
    began = time.monotonic()
    arm.command(np.zeros(14))
    assert time.monotonic() - began > 0.018
    assert arm.num_pauses == 1


def test_a_hold_measures_once():
    device = device_()
    arm = LeRobotArm(device, JOINTS, 1000)
    arm.command(np.full(14, 0.1))
    device.at["left_waist.pos"] = 5.0
    arm.hold()
    device.at["left_waist.pos"] = 4.0  # sagging
    arm.hold()
    assert [sent["left_waist.pos"] for sent in device.sent[1:]] == [5.0, 5.0]
    arm.command(np.full(14, 0.1))
    device.at["left_waist.pos"] = 3.0
    arm.hold()
    assert device.sent[-1]["left_waist.pos"] == 3.0


def test_a_dead_robot_raises_ours_and_a_hold_never_raises():
    device = device_()
    robot = robot_(device)
    device.broken = ConnectionError("bus is silent")
    with pytest.raises(DeviceError, match="took no command: bus is silent"):
        robot.arm.command(np.zeros(14))
    with pytest.raises(DeviceError, match="does not answer"):
        robot.arm.state()
    with pytest.raises(DeviceError, match="does not answer"):
        robot.start(0)
    robot.arm.hold()


@pytest.mark.parametrize("bad", [np.zeros(13), np.full(14, np.inf)])
def test_a_bad_command_moves_nothing(bad):
    device = device_()
    with pytest.raises(InputError):
        LeRobotArm(device, JOINTS, 1000).command(bad)
    assert device.sent == []


def test_joints_that_the_contract_does_not_have_are_refused():
    with pytest.raises(InputError, match="the contract's joints are"):
        LeRobotArm(FakeDevice([*CONTRACT.actions.names, "base"]), JOINTS, 10)
    with pytest.raises(InputError, match="rename them"):
        LeRobotArm(FakeDevice(CONTRACT.actions.names[1:]), JOINTS, 10)


def test_images_are_newer_than_the_question_and_the_callers_own():
    device = device_()
    cameras = LeRobotCameras(device, VIEWS)
    head = device.cameras["head"]
    head.ready = 1
    first = cameras.images()
    assert set(first) == set(VIEWS)
    assert (first["head"] == 2).all()  # 1 lay ready, and is too old
    assert (first["left_wrist"] == 1).all()
    second = cameras.images()
    assert (second["head"] == 3).all()
    assert (first["head"] == 2).all()


def test_a_stale_camera_holds_the_arms_and_lets_go_of_nothing(scripted):
    device = device_()
    robot = robot_(device, num_steps=40)
    policy = scripted(lambda frame, state: np.full((16, 14), 0.01), CONTRACT)
    see = policy.see

    def blind(observation):
        see(observation)
        device.cameras["left_wrist"].stuck = True

    policy.see = blind
    with pytest.raises(DeviceError, match="camera 'left_wrist' gave no new image in 200 ms"):
        run_episode(policy, robot)
    assert len(device.sent) == 9  # 8 steps and the hold
    assert device.sent[-1] == device.sent[-2]
    assert device.disconnects == 0


def test_cameras_that_do_not_fit_are_refused():
    device = device_()
    with pytest.raises(InputError, match="no camera 'top' for 'head'"):
        LeRobotCameras(device, VIEWS | {"head": "top"})
    device.cameras["head"].color_mode = "bgr"
    with pytest.raises(InputError, match="gives BGR"):
        LeRobotCameras(device, VIEWS)


def test_a_robot_over_a_network_gives_the_images_of_its_observation():
    image = np.full((4, 6, 3), 9, np.uint8)

    class Remote(FakeDevice):
        @property
        def observation_features(self):
            return self.action_features | dict.fromkeys(VIEWS, (4, 6, 3))

        def get_observation(self):
            return dict(self.at) | dict.fromkeys(VIEWS, image)

    found = LeRobotCameras(Remote(CONTRACT.actions.names), VIEWS).images()
    assert all((one == 9).all() for one in found.values())


def test_closing_holds_first_and_only_once():
    device = device_()
    robot = robot_(device)
    robot.close()
    robot.close()
    assert len(device.sent) == 1
    assert device.disconnects == 1


def test_the_verdict_tells_of_clipping():
    device = device_(limit=0.001)
    robot = robot_(device)
    robot.start(0)
    robot.arm.command(np.ones(14))
    assert robot.verdict().remark == "1 commands clipped, 0 late"
    assert robot.verdict().success is None
