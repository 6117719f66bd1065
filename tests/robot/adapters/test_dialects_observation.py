"""Cameras and joints by name, in whatever order and form they come."""

import numpy as np
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.dialects_observation import ObservationReader, image_from_value
from memorywam_robot.adapters.serving import DialectOptions
from memorywam_runtime.errors import InputError

TINY = contract_from_preset("tiny")


def image(value):
    return np.full((4, 6, 3), value, np.uint8)


def read(message, **options):
    reader = ObservationReader(TINY, DialectOptions(**options))
    found = reader.observation({"state": np.arange(14.0)} | message, 7)
    assert found.step == 7
    assert np.array_equal(found.state, np.arange(14.0))
    return {name: int(one[0, 0, 0]) for name, one in found.images.items()}


EXPECTED = {"head": 1, "left_wrist": 2, "right_wrist": 3}


@pytest.mark.parametrize(
    "message",
    [
        {"images": {"head": image(1), "left_wrist": image(2), "right_wrist": image(3)}},
        {"images": {"right_wrist": image(3), "head": image(1), "left_wrist": image(2)}},
        {"images": {"cam_high": image(1), "cam_right_wrist": image(3), "cam_left_wrist": image(2)}},
        {"images": {"left_camera": image(2), "head_camera": image(1), "right_camera": image(3)}},
        {"observation.images.cam_right_wrist": image(3), "observation.images.cam_high": image(1),
         "observation.images.cam_left_wrist": image(2)},
        {"observation/head": image(1), "observation/images/left_wrist": image(2),
         "images": {"right_wrist": image(3)}},
    ],
)  # fmt: skip
def test_cameras_by_name(message):
    assert read(message) == EXPECTED


def test_cameras_by_option():
    message = {"images": {"top": image(1), "a": image(2), "b": image(3), "low": image(9)}}
    cameras = {"top": "head", "a": "left_wrist", "b": "right_wrist", "low": ""}
    assert read(message, cameras=cameras) == EXPECTED
    with pytest.raises(InputError, match="found --camera top=roof; expected one of left_wrist"):
        read(message, cameras=cameras | {"top": "roof"})


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({"head": 1, "left_wrist": 2}, "no image of 'right_wrist'"),
        ({"head": 1, "cam_high": 1, "left_wrist": 2, "right_wrist": 3}, "two images of camera"),
        ({"head": 1, "left_wrist": 2, "right_wrist": 3, "cam_low": 4}, "an image of 'cam_low'"),
    ],
)
def test_cameras_that_are_refused(images, expected):
    with pytest.raises(InputError, match=expected):
        read({"images": {name: image(value) for name, value in images.items()}})


def test_colours_first_are_turned():
    shown = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(image_from_value(shown.transpose(2, 0, 1), "head"), shown)
    assert image_from_value(shown, "head") is shown


@pytest.mark.parametrize(
    "value",
    [np.zeros((3, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8),
     np.zeros((4, 4, 3), np.float32), [[1]], None],
)  # fmt: skip
def test_images_that_are_refused(value):
    with pytest.raises(InputError, match="image of 'head'"):
        image_from_value(value, "head")


def test_joints_by_their_keys():
    reader = ObservationReader(TINY, DialectOptions(state_keys=("arm", "gripper")))
    state = reader.state({"gripper": 13, "arm": list(range(13))})
    assert state.tolist() == list(range(14))
    with pytest.raises(InputError, match="no 'gripper' among keys arm"):
        reader.state({"arm": np.zeros(13)})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, "found 0 joint states among keys none"),
        ({"state": 0, "observation/state": 0}, "found 2 joint states"),
        ({"state": np.zeros((1, 14))}, "expected a vector"),
        ({"state": "text"}, "expected numbers"),
        ({"state": np.zeros(15)}, "found .15.; expected .14."),
        ({"state": [*[0.0] * 13, np.inf]}, "expected finite numbers"),
    ],
)
def test_joints_that_are_refused(message, expected):
    with pytest.raises(InputError, match=expected):
        ObservationReader(TINY, DialectOptions()).state(message)
