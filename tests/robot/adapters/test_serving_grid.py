"""The grid: what comes has its place, what never came is missed, and both are counted."""

import logging

import msgspec
import numpy as np
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.serving_grid import GridFeeder
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation


def at(step):
    return Observation(images={}, state=np.zeros(14), step=step)


@pytest.fixture
def policy(scripted):
    return scripted(lambda frame, state: np.full((16, 14), float(frame)))


@pytest.fixture
def feeder(policy):
    feeder = GridFeeder(policy, max_frames=10)
    feeder.begin("job", seed=3, max_steps=160)
    return feeder


def test_frames_are_made_of_the_grid(feeder, policy):
    completed = [step for step in range(40) if feeder.observe(at(step))]
    assert completed == [0, 16, 32]
    assert policy.groups == [(0,), (4, 8, 12, 16), (20, 24, 28, 32)]
    assert policy.resets == [("job", 3, 160)]
    assert feeder.report() == {
        "memory_version": 3, "frames_expected": 10, "frames_seen": 10, "frames_repeated": 0,
        "step": 39, "expected_steps": [40, 44, 48], "fill": 0.3,
    }  # fmt: skip


def test_a_hole_is_refused_and_nothing_is_changed(feeder, policy):
    feeder.observe(at(0))
    feeder.observe(at(4))
    with pytest.raises(InputError, match=r"step 13, but none of steps \[8, 12\]: 4 frames exp"):
        feeder.observe(at(13))
    assert feeder.last_step == 4
    assert policy.expected_steps() == (8, 12, 16)


def test_steps_do_not_go_back(feeder):
    feeder.observe(at(0))
    feeder.observe(at(6 - 2))
    for step in (4, 3):
        with pytest.raises(InputError, match=f"step {step} after step 4"):
            feeder.observe(at(step))


def test_a_hole_may_be_filled(policy, caplog):
    feeder = GridFeeder(policy, repeats_missing=True)
    feeder.begin("job")
    feeder.observe(at(0))
    feeder.observe(at(9))  # stands in for 4 and 8, and is itself not on the grid
    assert (feeder.num_expected, feeder.num_seen, feeder.num_repeated) == (3, 1, 2)
    feeder.observe(at(20))
    assert policy.groups == [(0,), (4, 8, 12, 16)]
    assert (feeder.num_expected, feeder.num_seen, feeder.num_repeated) == (6, 2, 4)
    assert "3 frames expected, 1 seen; the one that came stands in" in caplog.text
    with pytest.raises(InputError, match="at most 8 in a row"):
        feeder.observe(at(20 + 40))


def test_the_first_observation_is_never_filled(policy):
    feeder = GridFeeder(policy, repeats_missing=True)
    feeder.begin("job")
    with pytest.raises(InputError, match=r"none of steps \[0, 4\]"):
        feeder.observe(at(8))


def test_nothing_before_an_episode(policy):
    feeder = GridFeeder(policy)
    with pytest.raises(InputError, match="before an episode began"):
        feeder.observe(at(0))
    with pytest.raises(InputError, match="no frame since the episode began"):
        feeder.act(np.zeros(14))


def test_the_end_is_told(feeder, caplog):
    with caplog.at_level(logging.INFO, "memorywam_robot"):
        feeder.observe(at(0))
        feeder.observe(at(4))
        feeder.end()
    assert "'job' over after step 4: 2 frames expected, 2 seen, 0 repeated" in caplog.text
    assert (feeder.total_seen, feeder.num_seen) == (2, 0)
    with pytest.raises(InputError, match="before an episode began"):
        feeder.observe(at(8))


def test_executed_actions_go_with_their_frame(scripted):
    tiny = contract_from_preset("tiny")
    conventions = msgspec.structs.replace(tiny.conventions, action_history=True)
    contract = msgspec.structs.replace(tiny, conventions=conventions)
    policy = scripted(lambda *_: np.zeros((16, 14)), contract)
    feeder = GridFeeder(policy)
    feeder.begin("job")
    feeder.observe(at(0))
    for step in (4, 8, 12, 16):
        feeder.observe(at(step), np.full((4, 14), float(step)))
    assert policy.executed[0] is None
    assert policy.executed[1][:, 0].tolist() == [4.0] * 4 + [8.0] * 4 + [12.0] * 4 + [16.0] * 4
    for step in (20, 24, 28):
        feeder.observe(at(step))
    with pytest.raises(InputError, match="found no executed actions"):
        feeder.observe(at(32))


def test_an_observation_that_fails_leaves_its_actions_behind(scripted):
    tiny = contract_from_preset("tiny")
    conventions = msgspec.structs.replace(tiny.conventions, action_history=True)
    policy = scripted(
        lambda *_: np.zeros((16, 14)), msgspec.structs.replace(tiny, conventions=conventions)
    )
    feeder = GridFeeder(policy)
    feeder.begin("job")
    feeder.observe(at(0))
    with pytest.raises(InputError, match="none of steps"):
        feeder.observe(at(8), np.zeros((8, 14)))
    for step in (4, 8, 12, 16):
        feeder.observe(at(step), np.full((4, 14), float(step)))
    assert policy.executed[1].shape == (16, 14)


def test_observations_that_stand_alone(scripted):
    contract = contract_from_preset("tiny-fastwam")

    class Single:
        """Each observation is a frame."""

        def __init__(self):
            self.contract, self.steps = contract, []

        def reset(self, *_, **__):
            pass

        def expected_steps(self):
            return (0,)

        def remember(self, observations, executed):
            self.steps += [one.step for one in observations]

    policy = Single()
    feeder = GridFeeder(policy)  # type: ignore[arg-type]
    feeder.begin("job")
    assert [feeder.observe(at(step)) for step in (0, 7, 50)] == [True] * 3
    assert policy.steps == [0, 7, 50]
    assert (feeder.num_expected, feeder.num_seen) == (3, 3)


def test_a_snapshot_goes_on(direct_policy):
    from tests.fakes.policy_server import observation

    contract = direct_policy.contract
    feeder = GridFeeder(direct_policy)
    feeder.begin("random")
    for step in range(0, 33, 4):
        feeder.observe(observation(contract, step))
    kept, state = feeder.snapshot(), np.zeros(14)
    expected = feeder.act(state)
    feeder.begin("random")
    feeder.observe(observation(contract, 0))
    feeder.restore(kept)
    assert feeder.report()["frames_seen"] == 9
    assert feeder.report()["memory_version"] == 3
    assert np.array_equal(feeder.act(state), expected)
    feeder.observe(observation(contract, 36))
    with pytest.raises(InputError, match="a snapshot is taken between frames"):
        feeder.snapshot()
