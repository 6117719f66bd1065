"""Messages built for ROS 2 can be sent, and those received are read as they were meant."""

import numpy as np
import pytest
from tests.fakes import ros

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.ros_messages import (
    StampGaps,
    TrajectoryClasses,
    image_from_message,
    joint_names,
    stamp_ns,
    state_from_message,
    trajectory_from_chunk,
)
from memorywam_runtime.errors import InputError

CONTRACT = contract_from_preset("tiny")
NAMES = joint_names(CONTRACT.actions)
CLASSES = TrajectoryClasses(
    trajectory=ros.message("trajectory_msgs/msg/JointTrajectory"),
    point=ros.message("trajectory_msgs/msg/JointTrajectoryPoint"),
    duration=ros.message("builtin_interfaces/msg/Duration"),
)


def test_a_chunk_arrives_as_a_trajectory():
    chunk = np.random.default_rng(0).standard_normal((16, 14))
    read = ros.over_wire(trajectory_from_chunk(chunk, NAMES, 10.0, CLASSES))
    assert tuple(read.joint_names) == CONTRACT.actions.names
    assert np.array([point.positions for point in read.points]).tobytes() == chunk.tobytes()
    times = [
        point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in read.points
    ]
    assert times == pytest.approx([(k + 1) / 10 for k in range(16)])
    for point in read.points:
        assert not len(point.velocities)
        assert not len(point.accelerations)
    # Stamp zero: at once.
    assert (read.header.stamp.sec, read.header.stamp.nanosec) == (0, 0)


@pytest.mark.parametrize("hz", [3.0, 16.7, 50.0, 1000 / 60])
def test_times_are_whole_nanoseconds_that_rise(hz):
    made = trajectory_from_chunk(np.zeros((200, 14)), NAMES, hz, CLASSES)
    found = [p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in made.points]
    assert found == [round((k + 1) * 1e9 / hz) for k in range(200)]
    assert all(0 <= point.time_from_start.nanosec < 10**9 for point in made.points)


@pytest.mark.parametrize(
    "chunk", [np.zeros((0, 14)), np.zeros(14), np.zeros((2, 13)), np.full((2, 14), np.nan)]
)
def test_what_is_no_chunk(chunk):
    with pytest.raises(InputError, match="finite numbers"):
        trajectory_from_chunk(chunk, NAMES, 10.0, CLASSES)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("padding", [0, 1, 13])
def test_images_of_both_orders_and_any_row_length(encoding, padding):
    image = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    one = ros.over_wire(ros.image_message(image, 12_345_678_901, encoding, padding))
    found = image_from_message(one)
    np.testing.assert_array_equal(found, image)
    assert not np.shares_memory(found, np.frombuffer(one.data, np.uint8)), "a copy"
    assert stamp_ns(one.header) == 12_345_678_901


def test_what_is_no_image():
    image = np.zeros((5, 7, 3), np.uint8)
    grey = ros.image_message(image, 0)
    grey.encoding = "mono8"
    with pytest.raises(InputError, match="encoding 'mono8'; expected rgb8 or bgr8"):
        image_from_message(grey)
    short = ros.image_message(image, 0)
    short.height = 6
    with pytest.raises(InputError, match="6 x 7"):
        image_from_message(short)
    narrow = ros.image_message(image, 0)
    narrow.width = 8
    with pytest.raises(InputError, match="at least 3 bytes a pixel"):
        image_from_message(narrow)
    with pytest.raises(InputError, match="0 x 0"):
        image_from_message(ros.message("sensor_msgs/msg/Image")(encoding="rgb8"))


def test_joints_go_by_name():
    order = np.random.default_rng(2).permutation(14)
    positions = np.arange(14.0)
    names = [NAMES[index] for index in order]
    one = ros.over_wire(ros.joints_message([*names, "lift"], [*positions[order], 99]))
    np.testing.assert_array_equal(state_from_message(one, NAMES), positions)


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (NAMES[1:], range(13)),
        ((*NAMES, NAMES[0]), range(15)),
        ((*NAMES, NAMES[0]), range(14)),
        (NAMES, range(13)),
        (NAMES, ()),
    ],
)
def test_joints_that_do_not_fit(names, positions):
    with pytest.raises(InputError, match="each of the contract's once"):
        state_from_message(ros.joints_message(names, list(positions)), NAMES)


def test_a_contract_without_names_goes_nowhere():
    import msgspec

    with pytest.raises(InputError, match="names no joints"):
        joint_names(msgspec.structs.replace(CONTRACT.actions, names=()))


def test_gaps_by_stamp():
    gaps = StampGaps(10)
    assert [gaps.judge(at) for at in (100, 111, 119, 150, 150, 140, 160)] == [
        True, True, True, True, False, False, True,
    ]  # fmt: skip
    assert (gaps.num_frames, gaps.num_lost, gaps.num_reordered) == (5, 2, 2)
