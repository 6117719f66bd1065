"""A survey knows an episode's length and phases, and refuses one that holds nothing."""

import msgspec
import numpy as np
import pytest

from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_calibration.episodes.survey import surveyed
from memorywam_runtime.errors import InputError


@pytest.fixture
def survey(writer, tmp_path):
    def survey(contract=None):
        found = episodes_in(tmp_path, writer.contract, writer.manifest.contract_hash)
        return surveyed(found, contract or writer.contract)

    return survey


def test_length_and_thirds(writer, survey, tmp_path):
    writer.write(tmp_path, "a", 9, seed=1)
    (found,) = survey(_without_grippers(writer.contract))
    assert found.num_frames == 9
    assert found.instruction == "random"
    phases = [found.phase(frame) for frame in range(9)]
    assert phases == ["begin"] * 3 + ["middle"] * 3 + ["end"] * 3


def test_it_tells_how_far_it_is(writer, tmp_path):
    for seed, name in enumerate(("a", "b")):
        writer.write(tmp_path, name, 9, seed=seed)
    told: list[str] = []
    found = episodes_in(tmp_path, writer.contract, writer.manifest.contract_hash)
    surveyed(found, writer.contract, tell=told.append)
    assert told == ["reads a, 1 of 2 episodes", "reads b, 2 of 2 episodes"]


def test_frames_near_a_gripper_that_moves(writer, survey, tmp_path):
    def closes_at_frame_6(step, state):
        closed = np.zeros(len(state))
        closed[[6, 13]] = (1.0, 0.0) if step >= 6 * 16 else (0.0, 0.0)
        return closed

    writer.write(tmp_path, "a", 12, state_of=closes_at_frame_6)
    (found,) = survey()
    assert sorted(found.gripper_frames) == [3, 4, 5, 6, 7, 8]
    assert found.phase(2) == "begin"
    assert found.phase(6) == "gripper"


def test_an_episode_of_no_length_is_refused(writer, survey, tmp_path):
    writer.write(tmp_path, "a", 3)
    writer.write(tmp_path, "empty", 0, max_steps=16)
    with pytest.raises(InputError, match=r"empty\.mcap has no frame"):
        survey()


def test_a_camera_of_one_colour_is_refused(writer, survey, tmp_path):
    def dark(name, step):
        picture = np.random.default_rng(step).integers(0, 256, (24, 20, 3), np.uint8)
        return np.full_like(picture, step) if name == "head" else picture

    for seed in range(2):
        writer.write(tmp_path, f"a{seed}", 3, seed=seed, image_of=dark)
    with pytest.raises(InputError, match="camera 'head' shows one colour in all of the 18 images"):
        survey()


def test_a_camera_that_stands_still_is_refused(writer, survey, tmp_path):
    still = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)

    def frozen(name, step):
        moving = np.random.default_rng(step).integers(0, 256, (24, 20, 3), np.uint8)
        return still if name == "left_wrist" else moving

    writer.write(tmp_path, "a", 3, image_of=frozen)
    with pytest.raises(InputError, match="camera 'left_wrist' shows the same picture in all"):
        survey()


def test_some_dark_frames_are_none_of_its_business(writer, survey, tmp_path):
    def blinks(name, step):
        picture = np.random.default_rng(step).integers(0, 256, (24, 20, 3), np.uint8)
        return picture * (step % 8 > 0)

    writer.write(tmp_path, "a", 3, image_of=blinks)
    assert len(survey()) == 1


def _without_grippers(contract):
    """Return the contract with joints alone."""
    units = ("rad",) * contract.actions.action_dim
    actions = msgspec.structs.replace(contract.actions, units=units)
    return msgspec.structs.replace(contract, actions=actions)
